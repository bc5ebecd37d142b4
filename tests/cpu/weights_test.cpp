// Weights and margins: what they multiply and shift, and what they leave alone.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "losses/some.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::normaliser;
using prospect::cpu::evaluate;
using testing::near;
using testing::paired_case;
using testing::random_source;
using testing::refuses;
using testing::same_bits;
using testing::same_metrics;
using testing::unpaired_case;

using testing::infinity;
using testing::not_a_number;

/// Looks at neither difference of log-ratios.
struct sides_apart {
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::softplus(-p.chosen.log_ratio()) + prospect::softplus(p.rejected.log_ratio());
  }
};

/// Without the promise that it is free of branches, and so evaluated pair by pair.
struct margin_and_nothing_else {
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::softplus(-0.5 * p.log_ratio_margin());
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a weight multiplies its pair's loss and coefficients, and nothing else",
                   "[weights]", float, double) {
  using R = TestType;
  random_source random{411};
  CAPTURE(random.seed());
  constexpr std::int64_t n = 300;
  testing::for_some_losses([&]<class L>(const L& loss) {
    if constexpr (prospect::paired_loss<L>) {
      paired_case<R> plain{random, n, true}, weighted = plain;
      const auto before = evaluate(loss, plain.in(), plain.out());
      auto in = weighted.in();
      std::vector<R> weight(n);
      constexpr R choices[] = {0, 1, 2, R(0.5), -1};  // exact, whatever is multiplied
      for (auto& w : weight) w = choices[random.integer(0, 4)];
      in.weight = weight;
      const auto after = evaluate(loss, in, weighted.out());
      double sum = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        CAPTURE(L::name, i);
        const R w = weight[static_cast<std::size_t>(i)];
        CHECK(weighted.loss[i] == w * plain.loss[i]);
        CHECK(weighted.d_chosen[i] == w * plain.d_chosen[i]);
        CHECK(weighted.d_rejected[i] == w * plain.d_rejected[i]);
        CHECK(weighted.reward_chosen[i] == plain.reward_chosen[i]);
        sum += static_cast<double>(weighted.loss[i]);
      }
      CHECK(near(after.loss.sum, sum, 1e-12L, 1e-12L));
      auto rest = after;
      rest.loss.sum = before.loss.sum;
      rest.total = before.total;
      CHECK(same_metrics(rest, before));  // counts too: a weight is in no denominator
      CHECK(near(after.total, sum / before.loss.count, 1e-12L, 1e-12L));
    }
  });
}

TEST_CASE("a weight of 0 switches a pair off, whatever it holds", "[weights]") {
  const std::vector<double> chosen{-1, not_a_number, -infinity, -2}, rejected{-2, -1, -1, -1};
  const std::vector<double> reference(4, -1.0);
  std::vector<double> loss(4), d(4), e(4);
  const auto metrics =
      evaluate(prospect::dpo{},
               {.policy_chosen = chosen,
                .policy_rejected = rejected,
                .reference_chosen = reference,
                .reference_rejected = reference,
                .weight = std::vector<float>{1, 0, 0, 0}},
               {.loss = loss, .d_policy_chosen = d, .d_policy_rejected = e}, normaliser::mean());
  for (const std::size_t i : {1U, 2U, 3U}) {
    CHECK(loss[i] == 0);
    CHECK(d[i] == 0);
    CHECK(e[i] == 0);
  }
  CHECK(metrics.loss.sum == loss[0]);
  CHECK(metrics.total == loss[0] / 4);  // still counted
  CHECK(metrics.nonfinite.sum == 2);    // its inputs are what they are
  CHECK(metrics.first_nonfinite == 1);
}

TEST_CASE("a weight or margin that is no number spoils its own pair", "[weights]") {
  random_source random{412};
  for (const double bad : {not_a_number, infinity, -infinity}) {
    for (const bool in_margin : {false, true}) {
      CAPTURE(bad, in_margin);
      paired_case<float> clean{random, 5, false}, spoilt = clean;
      evaluate(prospect::dpo{}, clean.in(), clean.out());
      auto in = spoilt.in();
      std::vector<float> row(5, in_margin ? 0.0F : 1.0F);
      row[3] = static_cast<float>(bad);
      (in_margin ? in.margin : in.weight) = row;
      const auto metrics = evaluate(prospect::dpo{}, in, spoilt.out());
      CHECK(metrics.nonfinite.sum == 1);
      CHECK(metrics.first_nonfinite == 3);
      for (const std::int64_t i : {0, 1, 2, 4}) {
        CHECK(same_bits(spoilt.loss[i], clean.loss[i]));
        CHECK(same_bits(spoilt.d_chosen[i], clean.d_chosen[i]));
      }
      // Not read where it is not counted.
      const std::vector<std::int32_t> tokens{1, 1, 1, 0, 1};
      in.chosen_tokens = tokens;
      CHECK(evaluate(prospect::dpo{}, in, spoilt.out()).nonfinite.sum == 0);
      CHECK(spoilt.loss[3] == 0);
      CHECK(spoilt.d_chosen[3] == 0);
    }
  }
}

TEST_CASE("a margin is subtracted from the difference that the loss sees, in nats", "[weights]") {
  random_source random{413};
  CAPTURE(random.seed());
  constexpr std::int64_t n = 40;
  paired_case<double> c{random, n, false};
  auto in = c.in();
  const std::vector<double> margin = random.normals(n, 3);
  in.margin = margin;
  const auto check = [&](const auto& loss, const auto& expected) {
    const auto plain = evaluate(loss, c.in(), {});
    const auto metrics = evaluate(loss, in, c.out());
    for (std::int64_t i = 0; i < n; ++i) {
      CAPTURE(i);
      const auto p = c.point(i);
      CHECK(near(c.loss[i], expected(p, margin[static_cast<std::size_t>(i)]), 1e-12L, 1e-13L));
    }
    CHECK(metrics.rewards_margins.sum == plain.rewards_margins.sum);
    CHECK(metrics.rewards_accuracies.sum == plain.rewards_accuracies.sum);
  };
  // ODPO: -log sigmoid(beta delta - offset), with offset = beta margin.
  check(prospect::dpo{.beta = 0.2}, [](const auto& p, double m) {
    return oracle::softplus(-(0.2L * (p.chosen - p.rejected) - 0.2L * m));
  });
  check(margin_and_nothing_else{}, [](const auto& p, double m) {
    return oracle::softplus(-0.5L * (p.chosen - p.rejected - m));
  });
  check(prospect::ipo_sum{.tau = 0.2}, [](const auto& p, double m) {
    const oracle::real d = p.chosen - p.rejected - m - 2.5L;
    return d * d;
  });
  // Means per token, and so a margin per token.
  check(prospect::ipo{.tau = 0.2}, [](const auto& p, double m) {
    const oracle::real d = p.chosen / p.chosen_tokens - p.rejected / p.rejected_tokens - m - 2.5L;
    return d * d;
  });
}

TEST_CASE("a margin that the loss would drop is refused", "[weights][errors]") {
  random_source random{414};
  paired_case<float> c{random, 4, false, false};
  auto in = c.in();
  const std::vector<float> row(4, 1.0F), three(3, 1.0F);
  in.margin = row;
  CHECK(refuses("margin", [&] { evaluate(sides_apart{}, in, c.out()); }));
  testing::for_some_losses([&]<class L>(const L& loss) {
    if constexpr (prospect::paired_loss<L>) CHECK_NOTHROW(evaluate(loss, in, c.out()));
  });
  in.margin = three;
  CHECK(refuses("margin", [&] { evaluate(prospect::dpo{}, in, c.out()); }));
  in.margin = {};
  in.weight = three;
  CHECK(refuses("weight", [&] { evaluate(prospect::dpo{}, in, c.out()); }));
}

TEMPLATE_TEST_CASE("a weight multiplies a completion's loss and coefficient", "[weights]", float,
                   double) {
  using R = TestType;
  random_source random{415};
  CAPTURE(random.seed());
  constexpr std::int64_t n = 300;
  unpaired_case<R> plain{random, n, true}, weighted = plain;
  const auto point = prospect::constant_point(0.5);
  const auto before = evaluate(prospect::kto{}, plain.in(), point, plain.out());
  auto in = weighted.in();
  std::vector<R> weight(n);
  constexpr R choices[] = {0, 1, 4, R(0.5), -1};
  for (auto& w : weight) w = choices[random.integer(0, 4)];
  in.weight = weight;
  auto after = evaluate(prospect::kto{}, in, point, weighted.out());
  for (std::int64_t i = 0; i < n; ++i) {
    const R w = weight[static_cast<std::size_t>(i)];
    CHECK(weighted.loss[i] == w * plain.loss[i]);
    CHECK(weighted.d_policy[i] == w * plain.d_policy[i]);
    CHECK(weighted.reward[i] == plain.reward[i]);
  }
  CHECK(after.loss.count == before.loss.count);
  after.loss = before.loss;
  after.total = before.total;
  CHECK(same_metrics(after, before));
}

TEST_CASE("attached terms carry the weights of the rows that pull", "[weights][cross_class]") {
  // Against finite differences of the total, which holds the whole coupling.
  random_source random{416};
  CAPTURE(random.seed());
  constexpr std::int64_t n = 9;
  unpaired_case<double> c{random, n, true, false};
  for (std::int64_t i = 0; i < n; ++i) {
    c.policy[i] = c.reference[i] + 2 + random.normal(1);  // both means above the clamp
    c.desirable[i] = i % 2 == 0 ? 1 : 0;
  }
  c.tokens[4] = 0;
  c.tokens[0] = c.tokens[1] = 3;
  std::vector<double> weight = random.normals(n, 2);
  weight[1] = 0;  // pulls at nothing, and is pulled at
  auto in = c.in();
  in.weight = weight;
  const auto total = [&] {
    return evaluate(prospect::kto{}, in, prospect::cross_class{}, {}).total;
  };
  evaluate(prospect::kto{}, in, prospect::cross_class{}, c.out());
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (c.tokens[i] == 0) {
      CHECK(same_bits(c.d_policy[i], 0.0));
      continue;
    }
    const double p = c.policy[i], h = 1e-4;
    c.policy[i] = p + h;
    const double high = total();
    c.policy[i] = p - h;
    const double low = total();
    c.policy[i] = p;
    CHECK(near(c.d_policy[i], (high - low) / (2 * h), 1e-6L, 1e-10L));
    CHECK(c.d_policy[i] != 0);
  }
  // One that is no number pulls at nothing and spoils only its own row.
  unpaired_case<double> spoilt = c;
  weight[1] = not_a_number;
  auto spoilt_in = spoilt.in();
  spoilt_in.weight = weight;
  const auto metrics = evaluate(prospect::kto{}, spoilt_in, prospect::cross_class{}, spoilt.out());
  CHECK(metrics.nonfinite.sum == 1);
  CHECK(metrics.first_nonfinite == 1);
  for (std::int64_t i = 0; i < n; ++i) {
    if (i != 1) CHECK(same_bits(spoilt.d_policy[i], c.d_policy[i]));
  }
}
