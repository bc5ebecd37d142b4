// What is known of the losses beyond DPO, IPO and KTO: constants where training starts, optima,
// slopes that reverse, what must notice a shift, and what happens far out, where every naive form
// overflows.

#include <prospect/losses/any.hpp>

#include <cmath>
#include <numbers>
#include <string>

#include "catch.hpp"
#include "closeness.hpp"
#include "losses/at.hpp"
#include "special_numbers.hpp"

namespace {

using testing::at_margin;
using testing::at_ratio;
using testing::infinity;
using testing::near;
using testing::root_of;
using testing::ulps;

constexpr long double log_2 = std::numbers::ln2_v<long double>;

/// A pair without a reference: mean log-probabilities per token of one token each.
template <class R = double>
auto of_policies(const auto& loss, double chosen, double rejected) {
  return differentiate(loss, prospect::pair<R>{.chosen = {.policy = static_cast<R>(chosen)},
                                               .rejected = {.policy = static_cast<R>(rejected)}});
}
/// Log-ratios on 5 and 9 tokens.
double loss_of_ratios(const auto& loss, double chosen, double rejected) {
  return differentiate(
             loss,
             prospect::pair<double>{.chosen = {.policy = -30, .ratio = chosen, .tokens = 5},
                                    .rejected = {.policy = -40, .ratio = rejected, .tokens = 9}})
      .loss;
}

}  // namespace

TEMPLATE_TEST_CASE("step 0: the known constants of the family", "[losses]", float, double) {
  using R = TestType;
  const auto starts_at = [](const auto& loss, long double want) {
    CAPTURE(std::string{loss.name});
    CHECK(ulps(at_margin<R>(loss, 0).loss, want) <= 2);
  };
  starts_at(prospect::sigmoid_norm{}, log_2);
  starts_at(prospect::neg_sigmoid{}, -0.5L);
  starts_at(prospect::exo{}, -log_2 - std::log(1e-3L * (1 - 1e-3L)) / 2);
  starts_at(prospect::discopop{}, (1 + log_2) / 2);
  starts_at(prospect::nca{}, 2 * log_2);
  starts_at(prospect::bco_pair{}, 2 * log_2);
  starts_at(prospect::sppo_hard{}, 50);
  starts_at(prospect::apo_zero{}, 1);
  starts_at(prospect::apo_down{}, 1);
  starts_at(prospect::cpo{}, log_2);
  starts_at(prospect::orpo{}, 0.1L * log_2);
  starts_at(prospect::simpo{}, std::log1p(std::exp(0.5L)));
  starts_at(prospect::alphapo{}, std::log1p(std::exp(0.5L)));
  starts_at(prospect::bradley_terry{}, log_2);
  for (const bool desirable : {true, false}) {
    CHECK(ulps(at_ratio<R>(prospect::kto_logsigmoid{}, 0, desirable).loss, log_2) <= 1);
    CHECK(ulps(at_ratio<R>(prospect::bco{}, 0, desirable).loss, log_2) <= 1);
  }
}

TEST_CASE("DiscoPOP pushes the margin down at the start, between its two extrema", "[losses]") {
  const auto slope = [](double m) { return at_margin(prospect::discopop{.beta = 1}, m).d_chosen; };
  CHECK(near(slope(0), 0.784L, 1e-3L));
  CHECK(near(root_of(slope, -0.2, 0), -0.1186L, 1e-3L));
  CHECK(near(root_of(slope, 0, 0.2), 0.0720L, 1e-3L));
  CHECK(slope(-0.2) < 0);
  CHECK(slope(0.2) < 0);
}

TEST_CASE("optima: EXO's margin, NCA's chosen completion", "[losses]") {
  for (const double e : {1e-3, 0.1, 0.3}) {
    const prospect::exo loss{.beta = 1, .label_smoothing = e};
    const auto slope = [&](double m) { return at_margin(loss, m).d_chosen; };
    const double best = std::log((1 - e) / e);
    CHECK(near(root_of(slope, -2, 20), best, 1e-12L));
    CHECK(near(at_margin(loss, best).loss, 0, 0, 1e-15L));
    CHECK(slope(best - 1) < 0);
    CHECK(slope(best + 1) > 0);
  }
  const auto slope = [](double a) { return at_margin(prospect::nca{.beta = 1}, a).d_chosen; };
  CHECK(near(root_of(slope, -5, 5), log_2, 1e-13L));
}

TEST_CASE("a constant of the prompt is noticed by what is absolute or averaged", "[losses]") {
  const auto notices = [](const auto& loss) {
    return loss_of_ratios(loss, 1.5, -0.75) != loss_of_ratios(loss, 1.5 + 2.75, -0.75 + 2.75);
  };
  CHECK_FALSE(notices(prospect::exo{}));
  CHECK_FALSE(notices(prospect::discopop{}));
  CHECK_FALSE(notices(prospect::neg_sigmoid{}));
  CHECK(notices(prospect::sigmoid_norm{}));
  CHECK(notices(prospect::nca{}));
  CHECK(notices(prospect::bco_pair{}));
  CHECK(notices(prospect::sppo_hard{}));
  CHECK(notices(prospect::apo_zero{}));
  CHECK(notices(prospect::apo_down{}));
  // So do scores that are no log-ratios.
  for (const auto& score : {prospect::forward_kl, prospect::js_divergence}) {
    CHECK(notices(prospect::scored{prospect::dpo{}, score}));
  }
  CHECK_FALSE(notices(prospect::scored{prospect::dpo{}, prospect::reverse_kl}));
}

TEST_CASE("which losses never turn a completion round, and which do past their optimum",
          "[losses]") {
  /// The least and the greatest of d_chosen and d_rejected over log-ratios of either sign.
  struct extremes {
    double chosen[2] = {infinity, -infinity};
    double rejected[2] = {infinity, -infinity};
  };
  const auto of = [](const auto& loss) {
    extremes seen;
    const auto note = [](double(&range)[2], double x) {
      range[0] = std::fmin(range[0], x);
      range[1] = std::fmax(range[1], x);
    };
    for (double w = -60; w <= 60; w += 2.5) {
      for (double l = -60; l <= 60; l += 2.5) {
        const auto v = differentiate(
            loss, prospect::pair<double>{.chosen = {.policy = -70 + w, .ratio = w, .tokens = 5},
                                         .rejected = {.policy = -70 + l, .ratio = l, .tokens = 9}});
        note(seen.chosen, v.d_chosen);
        note(seen.rejected, v.d_rejected);
      }
    }
    return seen;
  };
  const auto never = [&](const auto& loss) {
    CAPTURE(std::string{loss.name});
    const extremes seen = of(loss);
    CHECK(seen.chosen[0] < 0);
    CHECK(seen.chosen[1] <= 0);
    CHECK(seen.rejected[0] >= 0);
    CHECK(seen.rejected[1] > 0);
  };
  never(prospect::sigmoid_norm{});
  never(prospect::neg_sigmoid{});
  never(prospect::bco_pair{});
  never(prospect::apo_zero{});
  never(prospect::cpo{});
  never(prospect::slic{});
  never(prospect::simpo{});
  never(prospect::alphapo{});
  never(prospect::orpo{});
  never(prospect::bradley_terry{});
  const auto turns = [&](const auto& loss) {
    CAPTURE(std::string{loss.name});
    const extremes seen = of(loss);
    CHECK(seen.chosen[0] < 0);
    CHECK(seen.chosen[1] > 0);
  };
  turns(prospect::sigmoid_norm{.label_smoothing = 0.3});
  turns(prospect::exo{});
  turns(prospect::nca{});
  turns(prospect::sppo_hard{});
  turns(prospect::apo_down{});
  // It pushes both down: the rejected one always, the chosen one where it is far ahead.
  CHECK(of(prospect::apo_down{}).rejected[0] >= 0);
}

TEST_CASE("AlphaPO and ORPO where their formulas are hard to evaluate", "[losses]") {
  for (const double alpha : {1e-6, -1e-6}) {
    const double simpo = of_policies(prospect::simpo{}, -1, -1.5).loss;
    CHECK(near(of_policies(prospect::alphapo{.alpha = alpha}, -1, -1.5).loss, simpo, 1e-5L));
  }
  // (1 - exp(-alpha p)) / alpha of very unlikely completions.
  const long double alpha = 0.25L, near_e22 = std::exp(50.25L), e22 = std::exp(50.0L);
  CHECK(near(of_policies(prospect::alphapo{.beta = 1, .gamma = 0}, -201, -200).loss,
             (near_e22 - e22) / alpha, 1e-13L));
  CHECK(near(of_policies(prospect::alphapo{.beta = 1, .gamma = 0}, -201, -200).d_chosen, -near_e22,
             1e-13L));
  // The slope of log-odds is 1 / (1 - exp(p)); log(1 - exp(p)) changes its form at -ln 2.
  for (const double p : {-1e-8, -1e-4, -0.6931, -0.6932, -5.0, -400.0}) {
    CAPTURE(p);
    const auto v = of_policies(prospect::orpo{.beta = 1, .sft_weight = 0}, p, -1);
    const long double odds = p - std::log(-std::expm1(static_cast<long double>(p)));
    const long double margin = odds - (-1 - std::log(-std::expm1(-1.0L)));
    CHECK(near(v.loss, std::log1p(std::exp(-margin)), 1e-13L));
    CHECK(near(v.d_chosen, 1 / ((1 + std::exp(margin)) * std::expm1(static_cast<long double>(p))),
               1e-13L));
  }
}

TEST_CASE("losses without a reference read none, scores and means what they say", "[losses]") {
  prospect::for_each_loss([]<class L>(const L& loss) {
    if constexpr (prospect::token_loss<L>) return;  // a matter of parameters
    const std::string name{L::name};
    CAPTURE(name);
    bool without = false;
    for (const char* free :
         {"cpo", "cpo_hinge", "cpo_ipo", "simpo", "alphapo", "orpo", "slic", "bradley_terry",
          "kto_surprisal", "tpo", "tpo_hinge", "tpo_ipo", "tpo_l"}) {
      without = without || name == free;
    }
    CHECK(prospect::reads_reference<double>(loss) == !without);
  });
  const auto reads_tokens = [](const auto& loss) { return prospect::reads_tokens<double>(loss); };
  CHECK(reads_tokens(prospect::sigmoid_norm{}));
  CHECK(reads_tokens(prospect::simpo{}));
  CHECK(reads_tokens(prospect::cpo_ipo{}));
  CHECK(reads_tokens(prospect::orpo{}));
  CHECK_FALSE(reads_tokens(prospect::cpo{}));
  CHECK_FALSE(reads_tokens(prospect::slic{}));
}

TEST_CASE("HALOs' SimPO is TRL's with another gamma; alpha 0 is SimPO", "[losses]") {
  // softplus(-beta (p - q - 0.3)) at beta = 10
  CHECK(near(of_policies(prospect::simpo::halos(), -1, -1.5).loss,
             std::log1p(std::exp(-10 * (0.5L - 0.3L))), 1e-14L));
  const double simpo = of_policies(prospect::simpo{}, -1, -1.5).loss;
  CHECK(of_policies(prospect::alphapo{.alpha = 0}, -1, -1.5).loss == simpo);
  CHECK(near(of_policies(prospect::alphapo{.alpha = 1e-9}, -1, -1.5).loss, simpo, 1e-8L));
}

TEMPLATE_TEST_CASE("far out the family has the limits of its formulas", "[losses]", float, double) {
  using R = TestType;
  for (const double far_out : {2000.0, 1e30, infinity}) {
    CAPTURE(far_out);
    const prospect::exo exo{.beta = 1, .label_smoothing = 0.25};
    CHECK(near(at_margin<R>(exo, -far_out).loss, -std::log(0.25L), 1e-6L));
    CHECK(near(at_margin<R>(exo, far_out).loss, -std::log(0.75L), 1e-6L));
    CHECK(at_margin<R>(exo, far_out).d_chosen == 0);
    CHECK(at_margin<R>(exo, -far_out).d_chosen == 0);
    for (const double tau : {0.05, 1.0}) {
      const prospect::discopop discopop{.beta = 1, .tau = tau};
      const auto right = at_margin<R>(discopop, far_out), wrong = at_margin<R>(discopop, -far_out);
      CHECK(right.loss == 0);
      CHECK(right.d_chosen == 0);
      CHECK(near(wrong.loss, far_out, tau == 1 ? 1e-3L : 1e-6L));
      CHECK(wrong.d_chosen == -1);
    }
    CHECK(at_margin<R>(prospect::neg_sigmoid{.beta = 1}, far_out).loss == -1);
    CHECK(at_margin<R>(prospect::neg_sigmoid{.beta = 1}, -far_out).d_chosen == 0);
  }
  // A temperature that makes much of a w that is nearly 1.
  for (const double m : {60e-30, 80.5e-30, 86e-30}) {
    const prospect::discopop cold{.beta = 1, .tau = 1e-30};
    CHECK(near(at_margin<R>(cold, m).d_chosen, at_margin(cold, m).d_chosen, 3e-7L));
  }
  // exp(-m) leaves fp32 at -88.
  const auto v = at_margin<R>(prospect::discopop{.beta = 1}, -90);
  CHECK(near(v.loss, 90, 1e-6L));
  CHECK(near(v.d_chosen, -1, 1e-6L));

  // Certain completions: 1 - exp(p) is 0, and the odds infinite.
  for (const double p : {-1e-8, 0.0}) {
    const auto certain = of_policies<R>(prospect::orpo{.beta = 1}, p, -1);
    CHECK(std::abs(certain.loss) < R(1e-7));
    // -q / (1 - q), q = exp(-1): the limit of the slope as p tends to 0
    CHECK(near(certain.d_chosen, -1 / (std::exp(1.0L) - 1), 1e-5L));
    CHECK(std::isfinite(of_policies<R>(prospect::orpo{}, -1, p).loss));
    CHECK(std::isfinite(of_policies<R>(prospect::orpo{}, p, p).loss));
  }
  CHECK(near(of_policies<R>(prospect::orpo{.beta = 1}, -400, -1).loss, 399 + 0.458675L, 1e-5L));

  // A reward that leaves the type stays at what it reached, and a pair of two such is no NaN.
  for (const double p : {-1000.0, -1e30}) {
    const auto both = of_policies<R>(prospect::alphapo{}, p, p);
    CHECK(std::isfinite(both.loss));
    CHECK(of_policies<R>(prospect::alphapo{}, p - 4000, -1).d_chosen == 0);
  }
}

TEST_CASE("losses of whole sequences make the same of all tokens that share an advantage",
          "[losses]") {
  const auto keeps_its_word = [](const auto& loss) {
    for (const double sum : {-60.0, -0.75, 0.0, 0.25, 60.0}) {
      for (const double advantage : {2.0, -1.0, 0.0}) {
        const auto of = [&](double policy, double ratio, double reference_ratio) {
          return testing::numbers(
              differentiate(loss, prospect::token<double>{.policy = policy,
                                                          .ratio = ratio,
                                                          .reference_ratio = reference_ratio,
                                                          .advantage = advantage,
                                                          .sum = sum,
                                                          .tokens = 3}));
        };
        const auto first = of(0, 0, 0);
        if (of(-2, 0.5, -0.25) != first || of(-0.125, -40, 30) != first) return false;
        for (const double bad : {infinity, -infinity, testing::not_a_number}) {
          if (of(bad, bad, bad) != first) return false;
        }
      }
    }
    return true;
  };
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::token_loss<L>) {
      const std::string name{L::name};
      CAPTURE(name);
      const bool whole = name == "gspo" || name == "gspo_token" || name == "luspo" ||
                         name == "gmpo" || name == "rloo";
      CHECK(prospect::sequence_level(loss) == whole);
      CHECK(prospect::sequence_level(prospect::averaged{loss, prospect::averaging::tokens}) ==
            whole);
      CHECK(keeps_its_word(loss) == whole);
      if constexpr (requires { loss.beta; }) {
        L held = loss;
        held.beta = 0.125;
        CHECK_FALSE(prospect::sequence_level(held));
      }
    }
  });
}

TEST_CASE("a loss changes with the sum over its sequence unless it promises not to", "[losses]") {
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::sums_tokens<L>) {
      CAPTURE(std::string{L::name});
      bool changes = false;
      for (const double sum : {-60.0, -0.75, -1e-4, 0.0, 1e-4, 0.25, 60.0}) {
        for (const double advantage : {2.0, -1.0}) {
          for (const double ratio : {-30.0, -0.5, 0.0, 1e-4, 0.125, 30.0}) {
            const auto value = differentiate(loss, prospect::token<double>{.policy = -2,
                                                                           .ratio = ratio,
                                                                           .reference_ratio = 0.25,
                                                                           .advantage = advantage,
                                                                           .sum = sum,
                                                                           .tokens = 3});
            changes = changes || value.d_sum != 0;
          }
        }
      }
      CHECK(changes == !prospect::detaches_sum<L>);
      STATIC_REQUIRE(prospect::detaches_sum<prospect::averaged<L>> == prospect::detaches_sum<L>);
    }
  });
}

TEST_CASE("any loss is the one it was made of", "[losses]") {
  const prospect::pair<double> p{.chosen = {.policy = -3, .ratio = 0.5, .tokens = 4},
                                 .rejected = {.policy = -5, .ratio = -1.25, .tokens = 7}};
  const prospect::unpaired<double> e{.answer = p.chosen, .z = 0.25, .desirable = true};
  const prospect::token<double> t{.policy = -3,
                                  .ratio = 0.5,
                                  .reference_ratio = -0.25,
                                  .advantage = 2,
                                  .sum = 1.5,
                                  .tokens = 4};
  prospect::for_each_loss([&]<class L>(L loss) {
    CAPTURE(std::string{L::name});
    // Members stand in the order of the table.
    double next = 0.125;
    for (const auto& parameter : L::parameters) loss.*parameter.member = next += 0.0625;
    const auto check = [&](const auto& any, const auto& sample) {
      CHECK(any.name() == L::name);
      CHECK(any.template is<L>());
      CHECK(any.beta == prospect::reward_scale(loss));
      CHECK(any.next_token().weight == prospect::next_token_of(loss).weight);
      CHECK(any.next_token().over_same_as(prospect::next_token_of(loss)));
      CHECK(any.problem() == loss.problem());
      next = 0.125;
      for (std::size_t i = 0; i < L::parameters.size(); ++i) {
        CHECK(any.parameter[i] == (next += 0.0625));
      }
      const auto got = differentiate(any, sample), want = differentiate(loss, sample);
      CHECK(testing::numbers(got) == testing::numbers(want));
      CHECK(prospect::reads_reference<double>(any) == prospect::reads_reference<double>(loss));
      if constexpr (prospect::sums_tokens<std::remove_cvref_t<decltype(any)>>) {
        const auto part = contribution(any, sample);
        auto wanted = decltype(part){};
        if constexpr (prospect::sums_tokens<L>) wanted = contribution(loss, sample);
        CHECK(part.value == wanted.value);
        CHECK(part.slope == wanted.slope);
      }
      if constexpr (prospect::token_loss<L>) {
        CHECK(prospect::reads_advantage<double>(any) == prospect::reads_advantage<double>(loss));
        CHECK(any.average == loss.average);
      } else {
        CHECK(prospect::reads_tokens<double>(any) == prospect::reads_tokens<double>(loss));
      }
    };
    if constexpr (prospect::paired_loss<L>) {
      check(prospect::any_paired{loss}, p);
    } else if constexpr (prospect::unpaired_loss<L>) {
      check(prospect::any_unpaired{loss}, e);
    } else {
      check(prospect::any_token{loss}, t);
    }
  });
}
