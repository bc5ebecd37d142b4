// Pieces of work: each once, whatever the number of threads, and an exception comes out.
#include "threads.hpp"

#include <atomic>
#include <cstddef>
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
      parallel(pieces, threads, [&](std::size_t i) { ++runs.at(i); });
      for (const auto& n : runs) CHECK(n == 1);
    }
  }
}

TEST_CASE("as many threads as asked for take part, the caller among them") {
  constexpr int threads = 3;
  std::atomic<int> arrived{0};
  std::mutex guard;
  std::set<std::thread::id> seen;
  parallel(threads, threads, [&](std::size_t) {
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
  parallel(9, 1, [&](std::size_t) { alone.insert(std::this_thread::get_id()); });
  CHECK(alone == std::set{std::this_thread::get_id()});
}

TEST_CASE("an exception of a piece comes out when all threads are done") {
  for (const int threads : {1, 4}) {
    CHECK_THROWS_AS(parallel(8, threads,
                             [](std::size_t i) {
                               if (i == 5) throw std::runtime_error("piece");
                             }),
                    std::runtime_error);
  }
}
