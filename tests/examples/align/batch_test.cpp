// The layout of packed batches and the division of a batch among shards.
#include "batch.hpp"

#include <numeric>
#include <stdexcept>
#include <vector>

#include "catch.hpp"
#include "random.hpp"

using namespace align;

TEST_CASE("every token of a completion is scored, and the last is only a target") {
  packed_batch batch;
  batch.append(std::vector<token>{1, 10, 11, 2}, std::vector<token>{12, 13, 3});
  batch.append(std::vector<token>{14}, std::vector<token>{15});
  CHECK(batch.sequences() == 2);
  CHECK(batch.inputs == std::vector<token>{1, 10, 11, 2, 12, 13, 14});
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 6, 7});
  CHECK(batch.scored == std::vector<std::int32_t>{3, 4, 5, 6});
  CHECK(batch.targets == std::vector<token>{12, 13, 3, 15});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 3, 4});
  CHECK(sequence_length(4, 3) == 6);
  CHECK(sequence_length(1, 1) == 1);
}

TEST_CASE("an open completion is scored where the next token is asked for") {
  packed_batch batch;
  batch.append_open(std::vector<token>{1, 10, 2}, std::vector<token>{12, 13});
  CHECK(batch.inputs == std::vector<token>{1, 10, 2, 12, 13});
  CHECK(batch.scored == std::vector<std::int32_t>{4});
  CHECK(batch.targets.size() == 1);
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 5});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 1});
  batch.append_open(std::vector<token>{1, 2}, {});
  CHECK(batch.inputs.size() == 7);
  CHECK(batch.scored == std::vector<std::int32_t>{4, 6});
  CHECK(batch.offsets == std::vector<std::int32_t>{0, 5, 7});
  CHECK(batch.scored_offsets == std::vector<std::int32_t>{0, 1, 2});
  CHECK(batch.sequences() == 2);
  batch.clear();
  CHECK(batch.sequences() == 0);
  CHECK(batch.inputs.empty());
}

TEST_CASE("nothing can be predicted from no prompt") {
  packed_batch batch;
  CHECK_THROWS_AS(batch.append({}, std::vector<token>{4}), std::invalid_argument);
  CHECK_THROWS_AS(batch.append_open({}, std::vector<token>{4}), std::invalid_argument);
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
