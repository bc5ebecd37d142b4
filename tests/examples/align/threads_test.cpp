// Pieces of work: each once, whatever the number of threads, and an exception comes out.
#include "threads.hpp"

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "catch.hpp"

using namespace align;

TEST_CASE("every piece runs once on any number of threads") {
  for (const int threads : {1, 2, 5}) {
    for (const std::size_t pieces : {0U, 1U, 2U, 7U, 100U}) {
      CAPTURE(threads, pieces);
      std::vector<std::atomic<int>> runs(pieces);
      workers on{threads};
      on(pieces, [&](std::size_t i) { ++runs.at(i); });
      for (const auto& n : runs) CHECK(n == 1);
    }
  }
}

TEST_CASE("as many threads as asked for take part, the caller among them") {
  constexpr int threads = 3;
  std::atomic<int> arrived{0};
  std::mutex guard;
  std::set<std::thread::id> seen;
  workers on{threads};
  CHECK(on.count() == threads);
  on(threads, [&](std::size_t) {
    {
      const std::lock_guard lock{guard};
      seen.insert(std::this_thread::get_id());
    }
    ++arrived;
    while (arrived < threads) std::this_thread::yield();  // nobody does two
  });
  CHECK(seen.size() == threads);
  CHECK(seen.contains(std::this_thread::get_id()));
  std::set<std::thread::id> alone;
  workers one{1};
  one(9, [&](std::size_t) { alone.insert(std::this_thread::get_id()); });
  CHECK(alone == std::set{std::this_thread::get_id()});
}

TEST_CASE("an exception of a piece comes out when all threads are done") {
  for (const int threads : {1, 4}) {
    workers on{threads};
    CHECK_THROWS_AS(on(8,
                       [](std::size_t i) {
                         if (i == 5) throw std::runtime_error("piece");
                       }),
                    std::runtime_error);
    std::atomic<int> runs{0};
    on(8, [&](std::size_t) { ++runs; });  // and the threads go on
    CHECK(runs == 8);
  }
}

TEST_CASE("work may start work of its own") {
  workers on{3};
  std::vector<std::atomic<int>> runs(4 * 5);
  on(4, [&](std::size_t i) { on(5, [&](std::size_t j) { ++runs.at(5 * i + j); }); });
  for (const auto& n : runs) CHECK(n == 1);
}

TEST_CASE("without a number there are as many threads as the machine lends, and no more") {
  const int count = workers{0}.count();
  CHECK(count >= 1);
  CHECK(count <= std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}
