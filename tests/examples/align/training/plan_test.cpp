// Batches visit the data as they should, and what is measured beforehand is what training asks for.
#include "training/plan.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <stdexcept>
#include <vector>

#include "catch.hpp"

using namespace align;

namespace {

feedback some_feedback(std::size_t desirable, std::size_t undesirable, bool paired = false) {
  feedback data{.rows = {}, .paired = paired};
  for (std::size_t i = 0; i < desirable + undesirable; ++i) {
    data.rows.push_back({{4}, {5}, i < desirable});
  }
  return data;
}

}  // namespace

TEST_CASE("a pass visits every row at most once and misses less than a batch") {
  const feedback data = some_feedback(30, 23);
  std::multiset<std::size_t> seen;
  const auto batches = batches_of_epoch(data, 8, false, 1, 0);
  for (const auto& batch : batches) {
    CHECK(batch.size() == 8);
    seen.insert(batch.begin(), batch.end());
  }
  CHECK(batches.size() == 6);
  CHECK(std::set<std::size_t>(seen.begin(), seen.end()).size() == seen.size());
  CHECK(*seen.rbegin() < 53);
  CHECK(batches_of_epoch(data, 8, false, 1, 1) != batches);
  CHECK(batches_of_epoch(data, 8, false, 2, 0) != batches);
  CHECK(batches_of_epoch(data, 8, false, 1, 0) == batches);
}

TEST_CASE("a batch larger than the data takes all of it") {
  CHECK(batches_of_epoch(some_feedback(3, 2), 32, false, 1, 0).front().size() == 5);
}

TEST_CASE("balanced batches hold both thumbs equally") {
  const feedback data = some_feedback(9, 30);
  const auto batches = batches_of_epoch(data, 6, true, 1, 0);
  CHECK(batches.size() == 3);
  for (const auto& batch : batches) {
    CHECK(batch.size() == 6);
    CHECK(std::ranges::count_if(batch, [&](std::size_t i) { return data.rows[i].desirable; }) == 3);
  }
}

TEST_CASE("feedback that fills no batch is refused") {
  CHECK_THROWS_AS(batches_of_epoch(some_feedback(0, 30), 6, true, 1, 0), std::invalid_argument);
  CHECK_THROWS_AS(batches_of_epoch({}, 6, false, 1, 0), std::invalid_argument);
}

TEST_CASE("steps go through one pass after the other, in whatever order they are asked for") {
  const feedback data = some_feedback(10, 10);
  const schedule plan{.steps = 9, .batch = 6, .seed = 3};
  std::vector<std::vector<std::size_t>> expected;
  for (int epoch = 0; epoch < 3; ++epoch) {
    const auto batches = batches_of_epoch(data, 6, false, 3, epoch);
    REQUIRE(batches.size() == 3);
    expected.insert(expected.end(), batches.begin(), batches.end());
  }
  batch_order forward(data, plan, false), anywhere(data, plan, false);
  for (int step = 0; step < 9; ++step) {
    CHECK(forward.rows_of_step(step) == expected[static_cast<std::size_t>(step)]);
  }
  for (const int step : {7, 2, 3, 8, 0}) {
    CHECK(anywhere.rows_of_step(step) == expected[static_cast<std::size_t>(step)]);
  }
}

TEST_CASE("of pairs the chosen rows come first, then their partners") {
  const feedback data = some_feedback(10, 10, true);
  const schedule plan{.steps = 4, .batch = 4, .seed = 3};
  batch_order order(data, plan, false);
  for (int step = 0; step < 4; ++step) {
    const std::vector<std::size_t> rows = order.rows_of_step(step);
    REQUIRE(rows.size() == 8);
    for (std::size_t i = 0; i < 4; ++i) {
      CHECK(rows[i] < 10);
      CHECK(rows[4 + i] == rows[i] + 10);
    }
  }
}

TEST_CASE("parts are as even as can be and no larger than asked for") {
  using parts = std::vector<std::pair<std::size_t, std::size_t>>;
  CHECK(parts_of(10, {}) == parts{{0, 10}});
  CHECK(parts_of(10, {.together = 10}) == parts{{0, 10}});
  CHECK(parts_of(10, {.together = 32}) == parts{{0, 10}});
  CHECK(parts_of(10, {.together = 9}) == parts{{0, 5}, {5, 10}});
  CHECK(parts_of(10, {.together = 4}) == parts{{0, 3}, {3, 6}, {6, 10}});
  CHECK(parts_of(3, {.together = 1}) == parts{{0, 1}, {1, 2}, {2, 3}});
}

TEST_CASE("what is measured is every row of the steps and its stand-in, each once") {
  const bool mismatched = GENERATE(true, false);
  const bool paired = GENERATE(true, false);
  const feedback data = some_feedback(12, 12, paired);
  const objective goal{.paired = paired, .mismatched = mismatched, .evaluate = {}};
  const schedule plan{.steps = 11, .batch = 5, .seed = 2};
  const auto measured = measured_by(data, plan, goal);

  std::map<prompt_completion, int> asked;
  const std::size_t per_pass = data.units() / 5;
  for (std::size_t step = 0; step < 11; ++step) {
    const auto epoch = static_cast<int>(step / per_pass);
    std::vector<std::size_t> rows = batches_of_epoch(data, 5, false, 2, epoch)[step % per_pass];
    for (std::size_t i = 0; paired && i < 5; ++i) rows.push_back(rows[i] + 12);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      ++asked[{rows[i], rows[i]}];
      if (mismatched) ++asked[{rows[i], rows[(i + 1) % rows.size()]}];
    }
  }
  CHECK(measured.size() == asked.size());
  for (const prompt_completion& one : measured) {
    REQUIRE(asked.contains(one));
    asked.erase(one);  // a second one would not be found
  }
  CHECK(asked.empty());
}

TEST_CASE("a batch of one has no stand-in to measure") {
  const feedback data = some_feedback(2, 1);
  const objective goal{.mismatched = true, .evaluate = {}};
  CHECK(measured_by(data, {.steps = 3, .batch = 1}, goal).size() == 3);
}

TEST_CASE("balanced steps alone are measured where the objective wants them") {
  const feedback data = some_feedback(2, 20);
  const objective goal{.balanced = true, .evaluate = {}};
  const auto measured = measured_by(data, {.steps = 1, .batch = 4, .seed = 1}, goal);
  REQUIRE(measured.size() == 4);
  CHECK(std::ranges::count_if(measured, [](const prompt_completion& p) { return p.prompt < 2; }) ==
        2);
}
