// The layout of packed batches and the division of a batch among shards.
#include "batch.hpp"

#include <numeric>
#include <vector>

#include "catch.hpp"
#include "random.hpp"

using namespace align;

TEST_CASE("everything behind the separator is scored, the end included") {
  packed_batch batch;
  batch.append(std::vector<token>{10, 11}, std::vector<token>{12, 13});
  batch.append(std::vector<token>{14}, std::vector<token>{15}, false);
  CHECK(batch.sequences() == 2);
  CHECK(batch.inputs == std::vector<token>{vocabulary::begin, 10, 11, vocabulary::separator, 12, 13,
                                           vocabulary::begin, 14, vocabulary::separator, 15});
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 6, 10});
  CHECK(batch.scored == std::vector<std::int32_t>{3, 4, 5, 8});
  CHECK(batch.targets == std::vector<token>{12, 13, vocabulary::end, 15});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 3, 4});
  CHECK(sequence_length(2, 2) == 6);

  batch.clear();
  batch.append_open(std::vector<token>{10}, std::vector<token>{12, 13});
  CHECK(batch.inputs == std::vector<token>{vocabulary::begin, 10, vocabulary::separator, 12, 13});
  CHECK(batch.scored == std::vector<std::int32_t>{4});
  CHECK(batch.targets.size() == 1);
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 5});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 1});
  batch.append_open({}, {});
  CHECK(batch.inputs.size() == 7);
  CHECK(batch.scored == std::vector<std::int32_t>{4, 6});
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 5, 7});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 1, 2});
  CHECK(batch.sequences() == 2);
}

TEST_CASE("cuts cover every sequence once and balance the lengths") {
  random_source random{5};
  std::vector<std::size_t> lengths(64);
  for (std::size_t& n : lengths) n = 5 + random.below(40);
  const auto cuts = balanced_cuts(lengths, 4);
  REQUIRE(cuts.size() == 5);
  CHECK(cuts.front() == 0);
  CHECK(cuts.back() == lengths.size());
  const auto total = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
  for (std::size_t i = 0; i < 4; ++i) {
    REQUIRE(cuts[i] <= cuts[i + 1]);
    const auto length =
        std::accumulate(lengths.begin() + static_cast<std::ptrdiff_t>(cuts[i]),
                        lengths.begin() + static_cast<std::ptrdiff_t>(cuts[i + 1]), std::size_t{0});
    // Each end is off by half a sequence at most.
    CHECK(length >= total / 4 - 45);
    CHECK(length <= total / 4 + 45);
  }
}

TEST_CASE("a sequence belongs to the run in which its middle lies") {
  using sizes = std::vector<std::size_t>;
  CHECK(balanced_cuts(sizes{1, 1, 1, 1}, 2) == sizes{0, 2, 4});
  CHECK(balanced_cuts(sizes{3, 1}, 2) == sizes{0, 1, 2});
  CHECK(balanced_cuts(sizes{1, 3}, 2) == sizes{0, 1, 2});
  CHECK(balanced_cuts(sizes{1, 2, 1}, 2) == sizes{0, 1, 3});  // on the border: behind it
  CHECK(balanced_cuts(sizes{1, 1, 1}, 1) == sizes{0, 3});
  CHECK(balanced_cuts(sizes{5, 1, 1}, 3) == sizes{0, 0, 1, 3});
}

TEST_CASE("fewer sequences than runs leave runs empty") {
  const auto cuts = balanced_cuts(std::vector<std::size_t>{9}, 4);
  REQUIRE(cuts.size() == 5);
  CHECK(cuts.front() == 0);
  CHECK(cuts.back() == 1);
  CHECK(balanced_cuts({}, 2) == std::vector<std::size_t>{0, 0, 0});
}
