// Executors that do the library's loops in every order: what a result must not depend on.

#pragma once

#include <prospect/executor.hpp>

#include <cstdint>
#include <functional>
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

/// Any of them under one type, so that what is tested is compiled once.
class any_executor {
 public:
  template <prospect::executor E>
  explicit any_executor(E& on)
      : threads_{prospect::threads_of(on)},
        run_{[&on](std::int64_t n, prospect::task t) { on.run(n, t); }} {}

  std::int64_t threads() const { return threads_; }
  void run(std::int64_t n, prospect::task t) const { run_(n, t); }

 private:
  std::int64_t threads_;
  std::function<void(std::int64_t, prospect::task)> run_;
};

/// Calls f(name, executor) for each kind of executor.
inline void with_each_executor(const std::function<void(const std::string&, any_executor&)>& f) {
  const auto with = [&f](const std::string& name, auto& on) {
    any_executor any{on};
    f(name, any);
  };
  prospect::serial_executor serial;
  with("serial", serial);
  reversed_executor reversed;
  with("reversed", reversed);
  spawning_executor spawning;
  with("spawning", spawning);
  for (const int threads : {1, 2, 5}) {
    prospect::thread_pool pool{threads};
    with("pool of " + std::to_string(threads), pool);
  }
}

}  // namespace testing
