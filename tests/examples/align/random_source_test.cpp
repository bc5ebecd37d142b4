// The random source: the published sequence, and no bias that a test of this size could see.
#include "random_source.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

#include "catch.hpp"

using namespace align;

TEST_CASE("the random source is splitmix64") {
  random_source random(1234567);
  for (const std::uint64_t expected :
       {6457827717110365317u, 3203168211198807973u, 9817491932198370423u}) {
    CHECK(random.next() == expected);
  }
}

TEST_CASE("below is uniform and stays below") {
  random_source random(3);
  std::array<int, 7> seen{};
  for (int i = 0; i < 70000; ++i) ++seen[random.below(7)];
  for (const int n : seen) {
    CHECK(n > 10000 - 400);
    CHECK(n < 10000 + 400);
  }
}

TEST_CASE("a shuffle keeps every item, and each item lands anywhere") {
  random_source random(5);
  std::array<int, 6> first{};
  for (int i = 0; i < 6000; ++i) {
    std::vector<int> items(6);
    std::iota(items.begin(), items.end(), 0);
    shuffle(std::span(items), random);
    ++first[static_cast<std::size_t>(items[0])];
    std::ranges::sort(items);
    REQUIRE(items == std::vector{0, 1, 2, 3, 4, 5});
  }
  for (const int n : first) {
    CHECK(n > 1000 - 150);
    CHECK(n < 1000 + 150);
  }
}
