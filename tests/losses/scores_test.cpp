// Score transforms: each against its textbook formula, and as what a loss is made of; what stays
// as it was, and what comes out far beyond the exponents of a type.

#include <prospect/losses/any.hpp>

#include <array>
#include <cmath>
#include <limits>
#include <string>

#include "catch.hpp"
#include "closeness.hpp"
#include "losses/finite_differences.hpp"
#include "losses/textbook.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::score_transform;
using prospect::scored;
using testing::infinity;
using testing::near;

struct slope_at {
  long double value, slope;
};

/// As the paper has it, and with the constant.
slope_at textbook_score(const score_transform& score, long double u) {
  if (score.jensen_shannon) {
    // log 2 - log(1 + exp(-u)) = u / 2 - log cosh(u / 2), with all digits near 0
    const long double s = std::sinh(u / 4);
    return {u / 2 - std::log1p(2 * s * s), 1 / (1 + std::exp(u))};
  }
  const long double c = static_cast<long double>(score.alpha) - 1;
  if (c == 0) return {u, 1};
  return {std::expm1(c * u) / c, std::exp(c * u)};
}

constexpr std::array<score_transform, 7> scores{{prospect::reverse_kl,
                                                 prospect::forward_kl,
                                                 prospect::js_divergence,
                                                 {.alpha = -0.5},
                                                 {.alpha = 0.5},
                                                 {.alpha = 1.75},
                                                 {.alpha = 1e3}}};

template <class Visitor>
void for_each_scored(Visitor&& visit) {
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::score_taking_loss<L>) {
      for (const score_transform& score : scores) {
        CAPTURE(std::string{L::name}, score.alpha, score.jensen_shannon);
        visit(scored{loss, score});
      }
    }
  });
}

template <class R>
prospect::pair<R> pair_of(double chosen, double rejected) {
  return {.chosen = {.policy = -30, .ratio = static_cast<R>(chosen), .tokens = 5},
          .rejected = {.policy = -40, .ratio = static_cast<R>(rejected), .tokens = 9},
          .margin = R(0.25)};
}

}  // namespace

TEMPLATE_TEST_CASE("scores and their slopes are those of the textbook", "[losses]", float, double) {
  using R = TestType;
  using prospect::dual;
  for (const score_transform& score : scores) {
    for (const double x : {-60.0, -3.0, -0.75, -1e-6, 0.0, 1e-9, 0.5, 2.0, 60.0}) {
      const R u = static_cast<R>(x);
      CAPTURE(score.alpha, score.jensen_shannon, u);
      const slope_at want = textbook_score(score, u);
      if (std::abs(want.value) > 1e34L) continue;
      const dual<R, 1> got = score(dual<R, 1>::variable(u, 0));
      // The exponent is rounded once, and an exponential multiplies that.
      const long double relative =
          std::numeric_limits<R>::epsilon() * (4 + std::abs(score.alpha * u));
      CHECK(near(got.value, want.value, relative));
      CHECK(near(got.partial[0], want.slope, relative, std::numeric_limits<R>::min()));
      CHECK(score(u) == got.value);
    }
    CHECK(score(R(0)) == 0);
  }
}

TEST_CASE("alpha 1 is the log-ratio itself, and what is near it nearly so; alpha 0 is forward KL",
          "[losses]") {
  for (const double u : {-40.0, -0.5, 0.0, 3.0, 40.0}) {
    CHECK(prospect::alpha_divergence(1)(u) == u);
    CHECK(prospect::alpha_divergence(0)(u) == prospect::forward_kl(u));
    for (const double step : {1e-7, -1e-7, 1e-12, -1e-12}) {
      CHECK(near(prospect::alpha_divergence(1 + step)(u), u, 25e-7L));
    }
  }
}

TEST_CASE("a loss of scores is the loss, at what the textbook says the scores are", "[losses]") {
  for_each_scored([]<class L>(const scored<L>& loss) {
    for (const auto& [chosen, rejected] :
         {std::pair{1.5, -0.75}, {-2.25, -2.0}, {0.0, 0.0}, {0.25, 7.0}, {-6.0, 3.0}}) {
      CAPTURE(chosen, rejected);
      const auto p = pair_of<double>(chosen, rejected);
      auto exact = pair_of<long double>(chosen, rejected);
      const slope_at w = textbook_score(loss.score, chosen);
      const slope_at l = textbook_score(loss.score, rejected);
      if (std::max(std::abs(w.value), std::abs(l.value)) > 1e30L) continue;
      exact.chosen.ratio = w.value;
      exact.rejected.ratio = l.value;
      const auto got = differentiate(loss, p);
      const auto want = differentiate(loss.loss, exact);
      const long double terms = std::abs(want.loss) + std::abs(w.value) + std::abs(l.value);
      CHECK(near(got.loss, want.loss, 1e-13L, 1e-14L * terms));
      CHECK(near(got.d_chosen, want.d_chosen * w.slope, 1e-11L, 1e-13L * w.slope + 1e-300L));
      CHECK(near(got.d_rejected, want.d_rejected * l.slope, 1e-11L, 1e-13L * l.slope + 1e-300L));
      if (std::abs(loss.score.alpha) < 2) {
        auto no_margin = p;
        no_margin.margin = 0;
        CHECK(testing::gradient_matches_differences(loss, no_margin));
      }
      // The same by way of any loss.
      prospect::any_paired any{loss.loss};
      any.score = loss.score;
      const auto by_any = differentiate(any, p);
      CHECK(by_any.loss == got.loss);
      CHECK(near(by_any.d_chosen, got.d_chosen, 1e-15L));
      CHECK(near(by_any.d_rejected, got.d_rejected, 1e-15L));
    }
    CHECK(reward_scale(loss) == reward_scale(loss.loss));
    CHECK(prospect::reads_tokens<double>(loss.loss) ==
          (L::takes_scores == prospect::score_difference::of_means));
  });
}

TEST_CASE("reverse KL changes no digit", "[losses]") {
  const auto p = pair_of<double>(1.375, -0.3);
  for_each_scored([&](const auto& loss) {
    if (!loss.score.is_identity()) return;
    const auto got = differentiate(loss, p), want = differentiate(loss.loss, p);
    CHECK(got.loss == want.loss);
    CHECK(near(got.d_chosen, want.d_chosen, 1e-15L));
    CHECK(near(got.d_rejected, want.d_rejected, 1e-15L));
  });
}

TEMPLATE_TEST_CASE("far out nothing is NaN, in fp32 nothing but a square is infinite", "[losses]",
                   float, double) {
  using R = TestType;
  for_each_scored([]<class L>(const scored<L>& loss) {
    constexpr bool squares = std::same_as<L, prospect::ipo> || std::same_as<L, prospect::ipo_sum>;
    for (const double chosen : {-1e4, -150.0, 0.0, 150.0, 1e4, 1e30, -1e30}) {
      for (const double rejected : {-1e4 - 5, -1e4, -149.0, 0.0, 150.0, 1e4 + 3, 1e30, -1e30}) {
        CAPTURE(chosen, rejected);
        const auto v = differentiate(loss, pair_of<R>(chosen, rejected));
        CHECK_FALSE(std::isnan(v.loss));
        CHECK_FALSE(std::isnan(v.d_chosen));
        CHECK_FALSE(std::isnan(v.d_rejected));
        if (std::same_as<R, float> && !squares) {
          CHECK(std::isfinite(v.loss));
          CHECK(std::isfinite(v.d_chosen));
          CHECK(std::isfinite(v.d_rejected));
        }
      }
    }
  });
}

TEMPLATE_TEST_CASE("which side leads is right where neither score is a number of its type",
                   "[losses]", float, double) {
  using R = TestType;
  const auto at = [](const auto& loss, double chosen, double rejected) {
    return differentiate(loss, pair_of<R>(chosen, rejected));
  };
  const scored forward{prospect::dpo{}, prospect::forward_kl};
  const scored alpha{prospect::dpo{}, prospect::alpha_divergence(1.75)};
  // Solved, and solved for good.
  for (const auto& v : {at(forward, -1e4, -1e4 - 5), at(alpha, 1e4, 1e4 - 5)}) {
    CHECK(v.loss == 0);
    CHECK(v.d_chosen == 0);
    CHECK(v.d_rejected == 0);
  }
  // Ranked wrongly: as far out as the type goes.
  const auto wrong = at(forward, -1e4 - 5, -1e4), wrong_too = at(alpha, 1e4 - 5, 1e4);
  const scored means{prospect::sigmoid_norm{}, prospect::alpha_divergence(1.75)};
  // By exponents alone the rejected side leads, but per token exp(750) / 5 is above exp(750.375)
  // / 9.
  CHECK(at(means, 1000, 1000.5).loss == 0);
  CHECK(at(means, 1000, 1001).loss > 1e30);
  if constexpr (std::same_as<R, float>) {
    CHECK(near(wrong.loss, 0.1L * std::exp(80.0L), 0.01L));
    CHECK(wrong.d_chosen == 0);
    CHECK(wrong.d_rejected == 0);
    CHECK(near(wrong_too.loss, 0.1L * std::exp(80.0L) / 0.75L, 0.03L));
  } else {
    CHECK(wrong.loss == infinity);
    CHECK(wrong.d_chosen == -infinity);
    CHECK(wrong.d_rejected == infinity);
    CHECK(wrong_too.loss == infinity);
    // The last exponents whose exponential is one.
    CHECK(near(at(forward, -709, 0).loss, 0.1L * std::expm1(709.0L), 1e-13L));
    CHECK(near(at(forward, -709.5, 0).loss, 0.1L * std::expm1(709.5L), 1e-13L));
  }
}

TEST_CASE("scores that make no sense are refused with their losses", "[losses]") {
  for (const double alpha : {std::nan(""), infinity, -infinity}) {
    const scored loss{prospect::dpo{}, prospect::alpha_divergence(alpha)};
    REQUIRE(loss.problem() != nullptr);
    CHECK(std::string{loss.problem()}.find("alpha") == 0);
  }
  CHECK(std::string{scored{prospect::dpo{.beta = 0}, prospect::forward_kl}.problem()}.find(
            "beta") == 0);
  prospect::any_paired none{prospect::simpo{}};
  CHECK(none.problem() == nullptr);
  none.score = prospect::js_divergence;
  REQUIRE(none.problem() != nullptr);
  CHECK(std::string{none.problem()}.find("score") == 0);
}
