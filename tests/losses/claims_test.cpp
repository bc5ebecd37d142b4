// The claims of the papers that are exact: each loss does what its authors say that it does.

#include <prospect/losses/losses.hpp>

#include <cmath>

#include "catch.hpp"
#include "closeness.hpp"
#include "losses/at.hpp"

using testing::at_margin;
using testing::at_ratio;
using testing::near;
using testing::root_of;
using testing::sigmoid;

TEST_CASE("KTO ignores what is hopeless and what is solved; DPO does not", "[losses][claims]") {
  // Ethayarajh et al. 2024, proposition 4.1: the gradient is beta sigma'(beta (r - z)).
  const prospect::kto kto{.beta = 0.1};
  const auto slope = [&](double r) { return -at_ratio(kto, r, true).d_policy / 0.1; };
  CHECK(near(slope(0), 0.25, 1e-14L));
  CHECK(near(slope(20), 0.10499, 5e-5L));
  CHECK(near(slope(50), 0.006648, 5e-5L));
  CHECK(near(slope(-50), slope(50), 1e-14L));
  CHECK(slope(500) < 1e-20);
  CHECK(-at_margin(prospect::dpo{}, -50).d_chosen / 0.1 > 0.99);
}

TEST_CASE("contradictory votes: KTO follows the majority, DPO keeps the reference's bias",
          "[losses][claims]") {
  // Theorem 4.3 as a bandit with two arms: 60 % prefer a, the reference plays it 1 time in 5.
  const double majority = 0.6, reference_odds = 0.25;
  const auto dpo_slope = [&](const prospect::dpo& loss, double h) {
    return majority * at_margin(loss, h).d_chosen - (1 - majority) * at_margin(loss, -h).d_chosen;
  };
  const auto odds = [&](double beta) {
    const prospect::dpo loss{.beta = beta};
    return reference_odds *
           std::exp(root_of([&](double h) { return dpo_slope(loss, h); }, -100, 100));
  };
  CHECK(near(odds(1.0), 0.375, 1e-9L));
  CHECK(near(odds(1.0) / (1 + odds(1.0)), 0.2727, 2e-4L));
  CHECK(near(odds(0.1), 14.4, 2e-3L));

  const prospect::kto kto{.beta = 1};
  for (double r = -30; r <= 30; r += 0.5) {
    const double towards_a = majority * at_ratio(kto, r, true).d_policy +
                             (1 - majority) * at_ratio(kto, r, false).d_policy;
    const double towards_b = (1 - majority) * at_ratio(kto, r, true).d_policy +
                             majority * at_ratio(kto, r, false).d_policy;
    CHECK(towards_a < 0);
    CHECK(towards_b > 0);
  }
}

TEST_CASE("where one answer always wins, DPO never stops and IPO does", "[losses][claims]") {
  // Azar et al. 2023, section 5.3, with a uniform reference: pi(a) = sigmoid(h).
  for (const double beta : {0.01, 0.1, 1.0}) {
    CHECK(at_margin(prospect::dpo{.beta = beta}, 500).d_chosen < 0);
  }
  const auto stops_at = [](double tau) {
    const prospect::ipo_sum loss{.tau = tau};
    return sigmoid(root_of([&](double h) { return at_margin(loss, h).d_chosen; }, -100, 100));
  };
  CHECK(near(stops_at(0.1), 0.993307, 1e-6L));
  CHECK(near(stops_at(1.0), 0.622459, 1e-6L));
}
