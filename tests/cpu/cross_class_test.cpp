// HALOs' SimpleKTO: baselines that couple the batch and carry gradient. Golden figures, the oracle
// on random batches, finite differences of the whole batch, and what is peculiar to it.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/unpaired/kto.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "oracle/golden.hpp"
#include "oracle/simple_kto.hpp"
#include "random.hpp"

namespace {

using oracle::real;
using prospect::cross_class;
using prospect::kto;
using prospect::normaliser;
using prospect::cpu::evaluate;
using testing::near;
using testing::random_source;

/// A batch against a reference of zeros, so that log-probs are log-ratios.
template <class S>
struct batch {
  std::vector<S> policy, reference, loss, d_policy;
  std::vector<std::uint8_t> desirable;

  void add(long double log_ratio, bool up) {
    policy.push_back(testing::stored<S>(log_ratio));
    reference.push_back(testing::stored<S>(0));
    desirable.push_back(up ? 1 : 0);
  }
  prospect::unpaired_metrics run(const kto& with, normaliser by = normaliser::mean()) {
    loss.assign(policy.size(), testing::poison<S>());
    d_policy.assign(policy.size(), testing::poison<S>());
    return evaluate(with, in(), cross_class{}, {.loss = loss, .d_policy = d_policy}, by);
  }
  prospect::unpaired_batch<S> in() const {
    return {.policy = policy, .reference = reference, .desirable = desirable};
  }
  oracle::simple_kto_batch classes() const {
    oracle::simple_kto_batch both;
    for (std::size_t i = 0; i < policy.size(); ++i) {
      (desirable[i] != 0 ? both.desirable : both.undesirable).push_back(prospect::load(policy[i]));
    }
    return both;
  }
};

/// Rows of both classes in random order, around a common level that decides the clamps.
template <class S>
batch<S> random_batch(random_source& random) {
  batch<S> b;
  const double level = random.normal(3);
  const std::int64_t n = random.integer(2, 24);
  for (std::int64_t i = 0; i < n; ++i) {
    const bool up = i == 0 || (i != 1 && random.chance(0.4));
    b.add(level + random.normal(4), up);
  }
  return b;
}

template <class S>
void check_against_oracle(batch<S>& b, const kto& loss) {
  const auto metrics = b.run(loss);
  const auto want =
      oracle::simple_kto(b.classes(), loss.beta, loss.desirable_weight, loss.undesirable_weight);
  // Largest weights and slopes are of order 1; fp32 forms z, the margin and the slope.
  const real tolerance = 16 * std::numeric_limits<prospect::compute_t<S>>::epsilon() *
                         std::max(loss.desirable_weight, loss.undesirable_weight);
  std::size_t up = 0, down = 0;
  for (std::size_t i = 0; i < b.policy.size(); ++i) {
    CAPTURE(i);
    const bool desirable = b.desirable[i] != 0;
    const real l = desirable ? want.desirable[up] : want.undesirable[down];
    const real d = desirable ? want.d_desirable[up] : want.d_undesirable[down];
    (desirable ? up : down) += 1;
    CHECK(testing::stored_near<S>(b.loss[i], l, tolerance));
    CHECK(testing::stored_near<S>(b.d_policy[i], d,
                                  tolerance * loss.beta / static_cast<double>(b.policy.size())));
  }
  CHECK(near(metrics.total, want.loss, 0, tolerance));
}

}  // namespace

TEST_CASE("golden batches of SimpleKTO", "[cross_class][golden]") {
  for (const auto& golden : oracle::golden_simple_kto) {
    CAPTURE(golden.chosen_shift);
    std::vector<double> policy, reference, d(12);
    std::vector<std::uint8_t> desirable;
    // Interleaved, so that the order of rows is not that of classes.
    for (std::size_t i = 0; i < 6; ++i) {
      const auto& p = oracle::golden_pairs[i];
      policy.insert(policy.end(), {p.policy_chosen + golden.chosen_shift, p.policy_rejected});
      reference.insert(reference.end(), {p.reference_chosen, p.reference_rejected});
      desirable.insert(desirable.end(), {1, 0});
    }
    const auto m = evaluate(kto{.beta = 0.1},
                            prospect::unpaired_batch<double>{
                                .policy = policy, .reference = reference, .desirable = desirable},
                            cross_class{}, {.d_policy = d});
    CHECK(near(m.total, golden.loss, 1e-12L));
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(near(d[2 * i], golden.d_chosen[i], 1e-12L));
      CHECK(near(d[2 * i + 1], golden.d_rejected[i], 1e-12L));
    }

    const std::vector<float> p32(policy.begin(), policy.end()),
        r32(reference.begin(), reference.end());
    std::vector<float> d32(12);
    const auto m32 = evaluate(
        kto{.beta = 0.1},
        prospect::unpaired_batch<float>{.policy = p32, .reference = r32, .desirable = desirable},
        cross_class{}, {.d_policy = d32});
    CHECK(near(m32.total, golden.loss, 1e-5L));
    for (std::size_t i = 0; i < 6; ++i) {
      CHECK(near(d32[2 * i], golden.d_chosen[i], 1e-5L));
      CHECK(near(d32[2 * i + 1], golden.d_rejected[i], 1e-5L));
    }
  }
}

TEMPLATE_TEST_CASE("SimpleKTO agrees with its oracle on random batches", "[cross_class]", float,
                   double, prospect::bfloat16, prospect::float16) {
  random_source random{81};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 200; ++trial) {
    auto b = random_batch<TestType>(random);
    check_against_oracle(b, kto{});
    check_against_oracle(b, kto{.beta = 0.5, .desirable_weight = 3, .undesirable_weight = 0.5});
  }
}

TEST_CASE("SimpleKTO's coefficients are the gradient of the whole batch", "[cross_class]") {
  random_source random{82};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 40; ++trial) {
    auto b = random_batch<double>(random);
    const kto loss{.beta = 0.3, .desirable_weight = 2, .undesirable_weight = 0.7};
    b.run(loss);
    const auto d = b.d_policy;
    for (std::size_t i = 0; i < d.size(); ++i) {
      const double p = b.policy[i], h = 1e-5;
      b.policy[i] = p + h;
      const double high = b.run(loss).total;
      b.policy[i] = p - h;
      const double low = b.run(loss).total;
      b.policy[i] = p;
      CAPTURE(trial, i);
      CHECK(near(d[i], (high - low) / (2 * h), 1e-6L, 1e-9L));
    }
  }
}

TEST_CASE("every desirable row is pushed up and every other one down", "[cross_class]") {
  random_source random{83};
  CAPTURE(random.seed());
  for (int trial = 0; trial < 2000; ++trial) {
    auto b = random_batch<double>(random);
    b.run(kto{});
    bool signs = true;
    for (std::size_t i = 0; i < b.policy.size(); ++i) {
      signs = signs && (b.desirable[i] != 0 ? b.d_policy[i] < 0 : b.d_policy[i] > 0);
    }
    CHECK(signs);
  }
}

TEMPLATE_TEST_CASE("what the classes pull at does not reach rows without tokens", "[cross_class]",
                   float, double, prospect::float16, prospect::bfloat16) {
  using S = TestType;
  testing::random_source random{74};
  CAPTURE(random.seed());
  testing::unpaired_case<S> c{random, 300, true};
  for (std::int64_t i = 0; i < 300; ++i) {  // both means above the clamp
    c.reference[i] = testing::stored<S>(prospect::load(c.policy[i]) - 3 + random.normal(2));
  }
  evaluate(kto{}, c.in(), cross_class{}, c.out(), normaliser::sum());
  bool pulled = false;
  for (std::int64_t i = 0; i < 300; ++i) {
    CAPTURE(i);
    if (c.tokens[i] == 0) {
      CHECK(testing::same_bits(c.d_policy[i], testing::stored<S>(0)));
      CHECK(testing::same_bits(c.loss[i], testing::stored<S>(0)));
    } else {
      pulled = pulled || prospect::load(c.d_policy[i]) != 0;
    }
  }
  CHECK(pulled);
}

TEST_CASE("the clamp passes the gradient at exactly 0, where training starts", "[cross_class]") {
  const auto coefficient = [](double log_ratio) {
    batch<double> b;
    for (int i = 0; i < 6; ++i) b.add(log_ratio, i % 2 == 0);
    b.run(kto{.beta = 0.1});
    return b.d_policy[0];
  };
  // Own slope beta / 4, and the same again through the other class's baseline, over 6 rows.
  CHECK(near(coefficient(0.0), -2 * 0.1L / 4 / 6, 1e-14L));
  // Just below 0 the baselines are switched off.
  CHECK(near(coefficient(-1e-12), -0.1L / 4 / 6, 1e-9L));
  CHECK(near(coefficient(1e-12), -2 * 0.1L / 4 / 6, 1e-9L));
}

TEST_CASE("without the other class there is no baseline, and no NaN", "[cross_class]") {
  for (const bool up : {true, false}) {
    batch<double> b;
    for (const double r : {0.5, -1.0, 3.0}) b.add(r, up);
    check_against_oracle(b, kto{});
    const auto alone = b.d_policy;
    // The same as KTO at z = 0.
    evaluate(kto{}, b.in(), prospect::zero_point(), {.d_policy = b.d_policy});
    CHECK(testing::same_bits(alone, b.d_policy));
  }
}

TEST_CASE("both baselines are reported, clamped and raw", "[cross_class]") {
  batch<double> b;
  for (const double r : {2.0, 4.0}) b.add(r, true);
  for (const double r : {-5.0, 1.0, -2.0}) b.add(r, false);
  const auto m = b.run(kto{});
  CHECK(m.kl.sum == 3);
  CHECK(m.kl.count == 2);
  CHECK(m.kl_unclamped.sum == 3 - 2);
  CHECK(m.kl_unclamped.count == 2);
  CHECK(m.rewards_chosen.count == 2);
  CHECK(m.rewards_rejected.count == 3);
}

TEST_CASE("an absent class has no baseline to report", "[cross_class]") {
  batch<double> b;
  for (const double r : {2.0, 4.0}) b.add(r, true);
  const auto m = b.run(kto{});
  CHECK(m.kl.sum == 3);
  CHECK(m.kl.count == 1);
}

TEST_CASE("the normaliser scales SimpleKTO's coefficients and nothing else", "[cross_class]") {
  random_source random{84};
  CAPTURE(random.seed());
  auto b = random_batch<double>(random);
  b.run(kto{}, normaliser::sum());
  const auto loss = b.loss, d = b.d_policy;
  b.run(kto{}, normaliser::over(64));
  CHECK(testing::same_bits(b.loss, loss));
  for (std::size_t i = 0; i < d.size(); ++i) CHECK(b.d_policy[i] == d[i] / 64);
}
