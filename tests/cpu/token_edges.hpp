// Rows at the edges of what a softmax can take, whoever computes: logits beyond every digit, equal
// ones, the lowest number there is, targets that are all but certain or impossible. The same checks
// for every back end.

#pragma once

#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/token_checks.hpp"
#include "random.hpp"

namespace testing {

/// Logits from 1e4 to the end of fp32, 2^32 and beyond among them, where a float has no digits for
/// what counts: the highest one has all the probability, wherever it and the target are.
template <class S, class BackEnd>
void check_huge_logits(const BackEnd& on, const std::vector<token_options>& all,
                       const std::vector<std::int64_t>& vocabularies) {
  using R = compute_t<S>;
  for (const double huge : {1e4, 6e4, 1e8, 0x1p32, 0x1.8p33, 1e30, 1e37}) {
    if (std::is_same_v<S, prospect::float16> && huge > 65504) continue;
    for (const token_options& options : all) {
      for (const std::int64_t vocabulary : vocabularies) {
        for (const std::int64_t target : {std::int64_t{0}, vocabulary - 1}) {
          for (const std::int64_t best : {std::int64_t{0}, vocabulary - 1}) {
            CAPTURE(huge, options.temperature, vocabulary, target, best);
            logits_matrix<S> logits{1, vocabulary};
            logits.fill_row(0, [&](std::int64_t j) { return j == best ? huge : -huge * 0.9; });
            const std::vector<std::int64_t> targets{target};
            const auto row = logits.row(0);
            const auto want = oracle::softmax(row, target, of(options));
            const auto pass = on.forward(logits, targets, options);
            const real size = 2 * largest(row) / options.temperature;
            CHECK(log_prob_in_contract(pass.log_prob[0], want.log_prob, size));
            CHECK(near(pass.lse[0], want.lse, 1e-15L, 1e-6L));
            CHECK(near(pass.entropy[0], 0, 0, 1e-4L));
            CHECK(near(pass.sum_squares[0], 1, 1e-6L));
            CHECK(pass.argmax[0] == (best == target ? 1 : 0));
            on.gradient(logits, logits, targets, pass, std::vector<R>{1}, options);
            for (std::int64_t j = 0; j < vocabulary; ++j) {
              const double gradient = (j == target ? 1 : 0) - (j == best ? 1 : 0);
              REQUIRE(near(prospect::load(logits.at(0, j)), gradient / options.temperature, 4e-3L));
            }
          }
        }
      }
    }
  }
}

/// Of two that share the probability each has half of it, at any height that leaves an lse in fp64
/// the digits of log 2.
template <class S, class BackEnd>
void check_huge_ties(const BackEnd& on) {
  using R = compute_t<S>;
  for (const double huge : {1e4, 65536.0, -65537.0, 0x1p32, -0x1p32, 0x1.8p35, -0x1p40}) {
    if (std::is_same_v<S, prospect::float16> && std::abs(huge) > 65504) continue;
    CAPTURE(huge);
    logits_matrix<S> logits{1, 70};
    logits.fill_row(
        0, [&](std::int64_t j) { return j == 3 || j == 65 ? huge : huge - std::abs(huge); });
    const std::vector<std::int64_t> targets{65};
    const auto pass = on.forward(logits, targets, {});
    CHECK(near(pass.log_prob[0], -std::log(2.0L), 4e-6L));
    on.gradient(logits, logits, targets, pass, std::vector<R>{1}, {});
    for (std::int64_t j = 0; j < 70; ++j) {
      const double gradient = j == 65 ? 0.5 : j == 3 ? -0.5 : 0;
      REQUIRE(near(prospect::load(logits.at(0, j)), gradient, 4e-3L));
    }
  }
}

/// A gradient with an lse that is not that of its logits: a NaN among them stays where it is, and
/// an infinite lse leaves nothing.
template <class S, class BackEnd>
void check_given_lse(const BackEnd& on) {
  using R = compute_t<S>;
  logits_matrix<S> logits{1, 70}, want{1, 70}, got{1, 70};
  const auto logit = [](std::int64_t j) { return static_cast<double>(j % 7) - 3; };
  logits.fill_row(0, logit);
  const std::vector<std::int64_t> targets{5};
  const std::vector<R> d{0.5};
  auto pass = on.forward(logits, targets, {});
  on.gradient(logits, want, targets, pass, d, {});
  logits.fill_row(0, [&](std::int64_t j) {
    return j == 17 ? std::numeric_limits<double>::quiet_NaN() : logit(j);
  });
  on.gradient(logits, got, targets, pass, d, {});
  for (std::int64_t j = 0; j < 70; ++j) {
    CAPTURE(j);
    const auto g = prospect::load(got.at(0, j));
    CHECK((j == 17 ? std::isnan(g) : g == prospect::load(want.at(0, j))));
  }
  logits.fill_row(0, logit);
  for (const double lse : {-1.0, 1.0}) {
    pass.lse[0] = lse * std::numeric_limits<double>::infinity();
    CAPTURE(pass.lse[0]);
    on.gradient(logits, got, targets, pass, d, {});
    for (std::int64_t j = 0; j < 70; ++j) REQUIRE(std::isnan(prospect::load(got.at(0, j))));
  }
}

/// A probability that is nothing by itself, times a large coefficient.
template <class S, class BackEnd>
void check_large_coefficients(const BackEnd& on) {
  logits_matrix<S> logits{1, 70}, gradient{1, 70};
  logits.fill_row(0,
                  [](std::int64_t j) { return j == 5 ? 1.0 : -84.0 - static_cast<double>(j % 8); });
  const std::vector<std::int64_t> targets{5};
  const auto want = oracle::softmax(logits.row(0), 5);
  const auto pass = on.forward(logits, targets, {});
  for (const float a : {1.5F, 30.0F, 1e20F}) {
    if (std::is_same_v<S, prospect::float16> && a > 1e4F) continue;
    CAPTURE(a);
    const std::vector<compute_t<S>> both{a};
    on.gradient(logits, gradient, targets, pass, both, both, {});
    CHECK(wrong_columns(gradient, 0, 5, a, a, want, 0) == 0);
  }
}

template <class BackEnd>
void check_argmax_of_equals(const BackEnd& on) {
  for (const std::int64_t vocabulary : {3, 64, 500}) {
    for (const token_options& options : all_options) {
      logits_matrix<float> logits{3, vocabulary};
      for (std::int64_t t = 0; t < 3; ++t) {
        logits.fill_row(t, [&](std::int64_t j) { return j == vocabulary / 2 ? 0.5 : 0.75; });
      }
      const std::vector<std::int64_t> targets{0, vocabulary / 2, vocabulary - 1};
      CHECK(on.forward(logits, targets, options).argmax == std::vector<std::uint8_t>{1, 0, 0});
    }
  }
}

/// What masking with the lowest number leaves behind.
template <class BackEnd>
void check_mean_of_lowest(const BackEnd& on) {
  logits_matrix<float> logits{1, 64};
  const double lowest = -3e38;
  logits.fill_row(0, [&](std::int64_t j) { return j < 40 ? lowest : 1.0; });
  const std::vector<std::int64_t> targets{50};
  const auto pass = on.forward(logits, targets, {});
  CHECK(near(pass.log_prob[0], -std::log(24.0L), 0, 4e-6L));
  CHECK(near(pass.mean_logit[0], static_cast<real>(logits.at(0, 0)) * 40 / 64, 1e-6L));
}

/// A z-loss alone keeps its digits in the target's column.
template <class BackEnd>
void check_z_loss(const BackEnd& on, random_source& random) {
  for (const double low : {-1.0, -20.0, -60.0}) {
    CAPTURE(low);
    logits_matrix<float> logits{1, 100}, gradient{1, 100};
    logits.fill_row(0, [&](std::int64_t j) { return j == 7 ? low : random.normal(1); });
    const std::vector<std::int64_t> targets{7};
    const auto want = oracle::softmax(logits.row(0), 7);
    const auto pass = on.forward(logits, targets, {});
    const std::vector<float> a{0.7F}, b{0.0F};
    on.gradient(logits, gradient, targets, pass, a, b, {});
    CHECK(wrong_columns(gradient, 0, 7, 0.7F, 0, want, 0) == 0);
  }
}

/// A soft cap's slope keeps its digits in the target's column.
template <class BackEnd>
void check_cap_slope(const BackEnd& on) {
  for (double x = 1; x < 40; x += 1.5) {
    for (const double sign : {1.0, -1.0}) {
      CAPTURE(x, sign);
      logits_matrix<float> logits{1, 3}, gradient{1, 3};
      logits.fill_row(0, [&](std::int64_t j) { return j == 1 ? sign * x : 0.1; });
      const std::vector<std::int64_t> targets{1};
      const token_options options{.soft_cap = 1};
      const auto want = oracle::softmax(logits.row(0), 1, of(options));
      const auto pass = on.forward(logits, targets, options);
      const std::vector<float> one{1.0F};
      on.gradient(logits, gradient, targets, pass, one, one, options);
      CHECK(wrong_columns(gradient, 0, 1, 1, 1, want, 0) == 0);
    }
  }
}

/// Tokens that cannot be: log-prob and gradient of a row of three.
template <class S, class BackEnd>
void check_impossible(const BackEnd& on) {
  constexpr double never = -std::numeric_limits<double>::infinity();
  const auto run = [&](const std::vector<double>& row, std::int64_t target) {
    logits_matrix<S> logits{1, static_cast<std::int64_t>(row.size())};
    logits.fill_row(0, [&](std::int64_t j) { return row[static_cast<std::size_t>(j)]; });
    const std::vector<std::int64_t> targets{target};
    const auto pass = on.forward(logits, targets, {});
    on.gradient(logits, logits, targets, pass, std::vector<compute_t<S>>{1}, {});
    std::vector<double> gradient;
    for (const S x : logits.elements()) gradient.push_back(prospect::load(x));
    return std::pair{static_cast<double>(pass.log_prob[0]), gradient};
  };
  // Only the target is possible: it is certain.
  const auto [certain, no_gradient] = run({never, 2, never}, 1);
  CHECK(certain == 0);
  CHECK(no_gradient == std::vector<double>{0, 0, 0});
  // The target itself is impossible: -inf, and the gradient still points the right way.
  const auto [impossible, gradient] = run({never, 2, 2}, 0);
  CHECK(impossible == never);
  CHECK(gradient[0] == 1);
  const real digits = std::is_same_v<S, float> ? last_place<float> : 1e-14L;
  CHECK(near(gradient[1], -0.5, digits));
  CHECK(near(gradient[2], -0.5, digits));
  // Impossible tokens get no gradient.
  const auto beside_impossible = run({0, never, 0}, 0).second;
  CHECK(near(beside_impossible[0], 0.5, digits));
  CHECK(beside_impossible[1] == 0);
  CHECK(near(beside_impossible[2], -0.5, digits));
  // A row of nothing but -inf is no distribution.
  CHECK(std::isnan(run({never, never}, 0).first));
}

}  // namespace testing
