// The layout of packed batches.
#include "model/batch.hpp"

#include <stdexcept>
#include <vector>

#include "catch.hpp"

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
