// The proposed class weights: both published bounds, either class in the minority, and the paper's
// own example.

#include <prospect/class_weights.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"

using prospect::propose_class_weights;
using prospect::weight_bound;
using testing::near;

TEST_CASE("the paper's example: one thumb up for ten down", "[class_weights]") {
  const auto later = propose_class_weights(100, 1000);
  CHECK(later.low.desirable == 10);
  CHECK(near(later.high.desirable, 15, 1e-14L));
  CHECK(later.low.undesirable == 1);
  CHECK(later.high.undesirable == 1);
  CHECK(later.bound == 1.5);
  CHECK(near(later.unweighted_ratio, 0.1, 1e-15L));
  CHECK_FALSE(later.balanced());

  const auto first = propose_class_weights(100, 1000, weight_bound::four_thirds);
  CHECK(first.low.desirable == 10);
  CHECK(near(first.high.desirable, 40.0L / 3, 1e-14L));
  CHECK(near(first.bound, 4.0L / 3, 1e-15L));
}

TEST_CASE("a desirable majority raises the other class", "[class_weights]") {
  const auto proposal = propose_class_weights(600, 100);
  CHECK(proposal.low.desirable == 1);
  CHECK(near(proposal.low.undesirable, 6, 1e-14L));
  CHECK(proposal.high.desirable == 1);
  CHECK(near(proposal.high.undesirable, 4, 1e-14L));
}

TEST_CASE("both ends satisfy the rule they come from, and no weight is below 1",
          "[class_weights]") {
  testing::random_source random{51};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 200; ++trial) {
    const auto up = static_cast<double>(random.integer(1, 100000));
    const auto down = static_cast<double>(random.integer(1, 100000));
    for (const weight_bound bound : {weight_bound::four_thirds, weight_bound::three_halves}) {
      const auto proposal = propose_class_weights(up, down, bound);
      const auto ratio = [&](const prospect::class_weights& w) {
        return w.desirable * up / (w.undesirable * down);
      };
      CHECK(near(ratio(proposal.low), 1, 1e-13L));
      CHECK(near(ratio(proposal.high), proposal.bound, 1e-13L));
      for (const auto& weights : {proposal.low, proposal.high}) {
        CHECK(std::min(weights.desirable, weights.undesirable) == 1);
      }
    }
  }
}

TEST_CASE("balanced counts need no weights", "[class_weights]") {
  CHECK(propose_class_weights(100, 100).balanced());
  CHECK(propose_class_weights(150, 100).balanced());
  CHECK_FALSE(propose_class_weights(150, 100, weight_bound::four_thirds).balanced());
  CHECK_FALSE(propose_class_weights(99, 100).balanced());
}

TEST_CASE("balance ends at both bounds", "[class_weights]") {
  CHECK(propose_class_weights(4, 3, weight_bound::four_thirds).balanced());
  CHECK_FALSE(propose_class_weights(400001, 300000, weight_bound::four_thirds).balanced());
  CHECK(propose_class_weights(3, 2).balanced());
  CHECK_FALSE(propose_class_weights(300001, 200000).balanced());
  CHECK_FALSE(propose_class_weights(999999, 1000000).balanced());
  // At the bound the upper end is no weight at all.
  CHECK(propose_class_weights(3, 2).high.desirable == 1);
  CHECK(propose_class_weights(3, 2).high.undesirable == 1);
}

TEST_CASE("counts too far apart have no weights, and those just near enough do",
          "[class_weights]") {
  CHECK(near(propose_class_weights(1e30, 1).low.undesirable, 1e30L, 1e-14L));
  CHECK(near(propose_class_weights(1, 0.999e30).low.desirable, 0.999e30L, 1e-14L));
  CHECK(testing::refuses("too far apart", [] { propose_class_weights(1.001e30, 1); }));
  CHECK(testing::refuses("too far apart", [] { propose_class_weights(1, 1.001e30); }));
}

TEST_CASE("a class that is absent cannot be weighted back", "[class_weights]") {
  using testing::refuses;
  for (const double nonsense : {0.0, -1.0, std::nan(""), static_cast<double>(INFINITY)}) {
    CAPTURE(nonsense);
    CHECK(refuses("n_desirable", [&] { propose_class_weights(nonsense, 5); }));
    CHECK(refuses("n_undesirable", [&] { propose_class_weights(5, nonsense); }));
  }
}
