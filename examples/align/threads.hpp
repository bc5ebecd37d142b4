// Work shared among threads. The pieces are fixed by the caller and never by the number of threads,
// so that results do not depend on the machine.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace align {

// Calls work(0) ... work(pieces - 1), each once, on at most `threads` threads including this one,
// and waits. The first exception is rethrown here.
template <class Work>
void parallel(std::size_t pieces, int threads, const Work& work) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_guard;
  const auto run = [&] {
    try {
      for (std::size_t i = next++; i < pieces; i = next++) work(i);
    } catch (...) {
      const std::lock_guard lock{failure_guard};
      if (!failure) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    for (int i = 1; i < threads; ++i) helpers.emplace_back(run);
    run();
  }
  if (failure) std::rethrow_exception(failure);
}

}  // namespace align
