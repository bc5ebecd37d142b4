// Executors: every piece once, whoever asks and from wherever, and an exception comes out.

#include <prospect/executor.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "catch.hpp"
#include "executors.hpp"

namespace {

using prospect::serial_executor;
using prospect::thread_pool;

/// How often each piece ran; pieces outside [0, n) would be a wild write.
template <class E>
std::vector<int> runs_of_each(E& on, std::int64_t n) {
  std::vector<std::atomic<int>> count(static_cast<std::size_t>(n));
  on.run(n, [&](std::int64_t i) { ++count.at(static_cast<std::size_t>(i)); });
  return {count.begin(), count.end()};
}

std::vector<int> once(std::int64_t n) { return std::vector<int>(static_cast<std::size_t>(n), 1); }

/// Each piece, one for each thread, waits for the others: only if all threads run do all get
/// through.
bool all_threads_meet(thread_pool& pool) {
  std::atomic<int> arrived{0};
  std::atomic<bool> together{true};
  pool.run(pool.threads(), [&](std::int64_t) {
    ++arrived;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (arrived < pool.threads() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    if (arrived < pool.threads()) together = false;
  });
  return together;
}

struct no_run {};
struct wrong_run {
  void run(std::int64_t n, const std::string& name);
};
static_assert(!prospect::executor<no_run> && !prospect::executor<wrong_run>);
static_assert(prospect::executor<testing::reversed_executor>);
static_assert(prospect::executor<const testing::spawning_executor>);

}  // namespace

TEST_CASE("every piece runs once, and all are done on return", "[executor]") {
  testing::with_each_executor([](const std::string& name, auto& on) {
    for (const std::int64_t n : {0, 1, 2, 3, 7, 1000}) {
      CAPTURE(name, n);
      CHECK(runs_of_each(on, n) == once(n));
    }
  });
}

TEST_CASE("a pool stays whole over many short jobs", "[executor]") {
  // A job lives on its caller's stack: a thread that comes late must not find it.
  thread_pool pool{4};
  std::int64_t wrong = 0;
  for (std::int64_t round = 0; round < 5000; ++round) {
    const std::int64_t n = 2 + round % 3;
    std::atomic<std::int64_t> sum{0};
    pool.run(n, [&](std::int64_t i) { sum += i + 1; });
    wrong += sum == n * (n + 1) / 2 ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("a pool has the threads it says", "[executor]") {
  CHECK(thread_pool{1}.threads() == 1);
  CHECK(thread_pool{3}.threads() == 3);
  CHECK(thread_pool{}.threads() == prospect::detail::usable_processors());
  CHECK(&thread_pool::shared() == &thread_pool::shared());

  thread_pool pool{3};
  CHECK(all_threads_meet(pool));
  std::this_thread::sleep_for(std::chrono::milliseconds{20});
  CHECK(all_threads_meet(pool));  // those that have fallen asleep as well
}

TEST_CASE("a task may use the pool it runs on, and another one", "[executor]") {
  thread_pool outer{3}, other{2};
  for (thread_pool* inner : {&outer, &other}) {
    std::atomic<std::int64_t> sum{0};
    outer.run(5, [&](std::int64_t i) {
      inner->run(4, [&](std::int64_t j) {
        outer.run(3, [&](std::int64_t k) { sum += 100 * i + 10 * j + k; });
      });
    });
    std::int64_t want = 0;
    for (std::int64_t i = 0; i < 5; ++i) {
      for (std::int64_t j = 0; j < 4; ++j) {
        for (std::int64_t k = 0; k < 3; ++k) want += 100 * i + 10 * j + k;
      }
    }
    CHECK(sum == want);
  }
  // And the calling thread is its own again afterwards.
  CHECK(runs_of_each(outer, 50) == once(50));
}

TEST_CASE("several threads may use one pool at once", "[executor]") {
  thread_pool pool{3};
  constexpr int callers = 4;
  std::atomic<int> right{0};
  {
    std::vector<std::jthread> threads;
    for (int c = 0; c < callers; ++c) {
      threads.emplace_back([&, c] {
        for (std::int64_t round = 0; round < 200; ++round) {
          const std::int64_t n = 1 + (round + c) % 17;
          if (runs_of_each(pool, n) == once(n)) ++right;
        }
      });
    }
  }
  CHECK(right == callers * 200);
}

TEST_CASE("an exception comes out, and the executor works on", "[executor]") {
  testing::with_each_executor([](const std::string& name, auto& on) {
    if (name == "spawning") return;  // has no way to
    CAPTURE(name);
    for (const std::int64_t n : {1, 2, 100}) {
      const auto some_fail = [&](std::int64_t i) {
        if (i % 3 == 0) throw std::runtime_error{"piece"};
      };
      CHECK_THROWS_WITH(on.run(n, some_fail), "piece");
      CHECK(runs_of_each(on, n) == once(n));
    }
    // From the depth of a nested use as well.
    CHECK_THROWS_AS(on.run(4,
                           [&](std::int64_t) {
                             on.run(4, [](std::int64_t i) {
                               if (i == 2) throw std::invalid_argument{"inner"};
                             });
                           }),
                    std::invalid_argument);
    CHECK(runs_of_each(on, 20) == once(20));
  });
}

TEST_CASE("after an exception no piece is still running", "[executor]") {
  thread_pool pool{4};
  for (int round = 0; round < 50; ++round) {
    std::atomic<int> running{0};
    const auto body = [&](std::int64_t i) {
      ++running;
      if (i == 0) {
        --running;
        throw i;
      }
      std::this_thread::yield();
      --running;
    };
    CHECK_THROWS_AS(pool.run(16, body), std::int64_t);
    CHECK(running == 0);
  }
}

TEST_CASE("a pool that was stopped works alone", "[executor]") {
  thread_pool pool{3};
  std::atomic<int> ran{0};
  pool.run(6, [&](std::int64_t) {
    pool.stop();  // no thread waits for itself
    ++ran;
  });
  CHECK(ran == 6);
  CHECK(pool.threads() == 3);
  pool.stop();
  CHECK(pool.threads() == 1);
  CHECK(runs_of_each(pool, 50) == once(50));
  pool.stop();
  CHECK(runs_of_each(pool, 50) == once(50));
}

TEST_CASE("a pool may be stopped while another thread uses it", "[executor]") {
  for (int round = 0; round < 50; ++round) {
    thread_pool pool{3};
    std::atomic<bool> going{false};
    std::vector<int> runs;
    {
      const std::jthread user{[&] {
        for (int i = 0; i < 20; ++i) {
          runs = runs_of_each(pool, 40);
          going = true;
        }
      }};
      while (!going) std::this_thread::yield();
      pool.stop();
    }
    REQUIRE(runs == once(40));
  }
}

TEST_CASE("a task may have a pool of its own for a while", "[executor]") {
  thread_pool outer{2};
  std::atomic<int> ran{0};
  outer.run(4, [&](std::int64_t) {
    thread_pool brief{2};
    brief.run(3, [&](std::int64_t) { ++ran; });
  });
  CHECK(ran == 12);
}

// The address sanitizer's own leak check waits for the parent's threads in the child.
#if defined(__unix__) && !defined(__SANITIZE_ADDRESS__)
namespace {

/// Whether a forked child that does this exits with 0 and does not hang.
template <class Body>
bool child_passes(const Body& body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // hanging would be the defect
    body();
  }
  int status = 0;
  return waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("a forked child may exit, whatever its parent started", "[executor]") {
  // A thread that is still starting may hold the leak checker's lock, which the child would wait
  // for.
  REQUIRE(all_threads_meet(thread_pool::shared()));
  // Through the destructors of static objects.
  CHECK(child_passes([] { std::exit(0); }));
}

TEST_CASE("a forked child works alone on a pool of its parent", "[executor]") {
  auto pool = std::make_unique<thread_pool>(3);
  REQUIRE(all_threads_meet(*pool));
  CHECK(child_passes([&] {
    bool right = pool->threads() == 1 && runs_of_each(*pool, 50) == once(50);
    pool->stop();
    pool.reset();
    thread_pool own{3};
    right = right && own.threads() == 3 && all_threads_meet(own) &&
            runs_of_each(thread_pool::shared(), 50) == once(50);
    _exit(right ? 0 : 1);
  }));
  CHECK(pool->threads() == 3);
  CHECK(all_threads_meet(*pool));
}
#endif
