// Work shared among threads. The pieces are fixed by the caller and never by the number of threads,
// so that results do not depend on the machine.
#pragma once

#include <cstddef>
#include <prospect/executor.hpp>

namespace align {

// Threads that wait for work, the calling one included; 0 is one for each core. Also an executor
// for the library.
class workers {
 public:
  explicit workers(int threads) : pool_(threads) {}

  // Calls work(0) ... work(pieces - 1), each once, and waits. An exception is rethrown here. Work
  // that starts work of its own does that alone.
  template <class Work>
  void operator()(std::size_t pieces, const Work& work) {
    pool_.run(static_cast<std::int64_t>(pieces),
              [&](std::int64_t i) { work(static_cast<std::size_t>(i)); });
  }

  prospect::thread_pool& pool() { return pool_; }
  int count() const { return pool_.threads(); }

 private:
  prospect::thread_pool pool_;
};

}  // namespace align
