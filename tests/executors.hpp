// Executors that do the library's loops in every order: what a result must not depend on.

#pragma once

#include <prospect/executor.hpp>

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace testing {

/// A caller's own: from the last piece to the first.
struct reversed_executor {
  std::int64_t largest = 0;  ///< what it was asked for

  void run(std::int64_t n, prospect::task t) {
    largest = n > largest ? n : largest;
    for (std::int64_t i = n - 1; i >= 0; --i) t(i);
  }
};

/// A thread for every few pieces, however many cores there are.
struct spawning_executor {
  void run(std::int64_t n, prospect::task t) const {
    constexpr std::int64_t most = 3;
    std::vector<std::jthread> threads;
    for (std::int64_t first = 0; first < most; ++first) {
      threads.emplace_back([=] {
        for (std::int64_t i = first; i < n; i += most) t(i);
      });
    }
  }
};

/// Calls f(name, executor) for each kind of executor.
template <class F>
void with_each_executor(const F& f) {
  prospect::serial_executor serial;
  f("serial", serial);
  reversed_executor reversed;
  f("reversed", reversed);
  spawning_executor spawning;
  f("spawning", spawning);
  for (const int threads : {1, 2, 5}) {
    prospect::thread_pool pool{threads};
    f("pool of " + std::to_string(threads), pool);
  }
}

}  // namespace testing
