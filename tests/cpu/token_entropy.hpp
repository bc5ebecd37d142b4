// The coefficient of a row's entropy in its gradient, whoever computes: against the textbook,
// golden figures, and what must not show in any bit. The same checks for every back end.

#pragma once

#include <prospect/tokens.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/token_checks.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace testing {

/// A column of (a p - b onehot - c p (log p + H)) dz/dx, and the magnitude of what is subtracted in
/// it. H is the entropy that the call is given, whose own error is the forward pass's.
struct entropy_column {
  real gradient, terms, negligible;

  entropy_column(const oracle::softmax_row& want, std::size_t v, bool at_target, real z, real a,
                 real b, real c, real entropy) {
    const real p = want.probability[v], slope = want.slope[v];
    const real l = at_target ? want.log_prob : z - want.lse;
    const real of_entropy = p == 0 ? 0 : -p * (l + entropy);
    if (at_target) {
      gradient = gradient_at_target(want, v, a, b) + slope * c * of_entropy;
      terms = std::min(std::abs(a) * p + std::abs(b), std::abs(a - b) + std::abs(a) * want.rest);
      terms += p == 0 ? 0 : std::abs(c) * p * (std::abs(l) + entropy);
    } else {
      // Of a certain token that is not the target, log p is known to the digits of 1.
      gradient = slope * (a * p + c * of_entropy);
      terms = p == 0 ? 0 : p * (std::abs(a) + std::abs(c) * (1 + std::abs(l) + entropy));
    }
    terms *= slope;
    // A probability below the smallest number is 0 before it meets its factor.
    negligible = p == 0 ? 0 : 1 + std::abs(l) + entropy;
  }
};

/// How many columns of a row are not that.
template <class S>
std::int64_t wrong_entropy_columns(logits_matrix<S>& logits, logits_matrix<S>& got, std::int64_t t,
                                   std::int64_t target, real a, real b, real c, real entropy,
                                   const oracle::softmax_options& options) {
  const auto row = logits.row(t);
  const auto want = oracle::softmax(row, target, options);
  const real size = largest(row) / std::min<real>(1, options.temperature);
  std::int64_t wrong = 0;
  for (std::int64_t j = 0; j < got.columns(); ++j) {
    const auto v = static_cast<std::size_t>(j);
    const entropy_column column{want, v, j == target, options.z(row[v]), a, b, c, entropy};
    const real least = testing::negligible<S> * (1 + 1e-6L) * column.negligible;
    const auto x = static_cast<real>(prospect::load(got.at(t, j)));
    const bool nothing = std::abs(column.gradient) < least && std::abs(x) < least;
    if (nothing || gradient_in_contract(got.at(t, j), column.gradient, column.terms, size))
      continue;
    UNSCOPED_INFO("column " << j << " is " << x << ", should be " << column.gradient);
    ++wrong;
  }
  return wrong;
}

/// Gradients with all three coefficients, out of place and in place, and of some rows with fewer.
template <class S, class BackEnd>
void check_entropy(const BackEnd& on, logits_matrix<S>& logits,
                   const std::vector<std::int64_t>& targets, const token_options& options,
                   random_source& random) {
  using R = compute_t<S>;
  const auto n = targets.size();
  const auto pass = on.forward(logits, targets, options);
  const R x = static_cast<R>(random.uniform(0.1, 2)), y = static_cast<R>(random.uniform(0.1, 2));
  const R small = R(1e-3) * x;
  const R triples[][3] = {
      {0, 0, x},     {0, 0, -small}, {-y, -y, small}, {y, y, -x},
      {small, 0, x}, {x, -y, y},     {0, y, -x},      {R(1e-30) * x, 0, R(1e-30)}};
  std::vector<R> a, b, c;
  for (std::size_t t = 0; t < n; ++t) {
    const auto& triple = triples[random.integer(0, 7)];
    a.push_back(triple[0]), b.push_back(triple[1]);
    c.push_back(t % 4 == 3 ? R(0) : triple[2]);
  }
  logits_matrix<S> gradient{logits.rows(), logits.columns(), random.integer(0, 5),
                            random.integer(0, 5)};
  logits_matrix<S> two = gradient, in_place = logits;
  on.gradient(logits, gradient, targets, pass, a, b, c, options);
  on.gradient(logits, two, targets, pass, a, b, options);
  on.gradient(in_place, in_place, targets, pass, a, b, c, options);
  CHECK(gradient.padding_untouched());
  CHECK(in_place.padding_untouched());
  CHECK(same_bits(in_place.elements(), gradient.elements()));
  for (std::size_t i = 0; i < n; ++i) {
    const auto t = static_cast<std::int64_t>(i);
    CAPTURE(t, targets[i], a[i], b[i], c[i], pass.entropy[i]);
    std::int64_t other = 0;
    for (std::int64_t j = 0; j < logits.columns(); ++j) {
      const S without = targets[i] == ignored_target ? stored<S>(0) : two.at(t, j);
      other += same_bits(gradient.at(t, j), without) ? 0 : 1;
    }
    if (targets[i] == ignored_target || c[i] == 0) {
      CHECK(other == 0);
    } else {
      CHECK(wrong_entropy_columns(logits, gradient, t, targets[i], a[i], b[i], c[i],
                                  pass.entropy[i], of(options)) == 0);
    }
  }
}

/// Five logits, their entropy H, and the gradient of -0.01 H by them, in arbitrary precision: those
/// of an entropy bonus, times the number of tokens it is the mean of.
struct golden_entropy {
  std::array<double, 5> logits;
  double entropy;
  std::array<double, 5> gradient;
};
inline constexpr golden_entropy golden_entropies[] = {
    {{0.0, 0.0, 0.0, 0.0, 0.0}, 1.6094379124341003, {0.0, 0.0, 0.0, 0.0, 0.0}},
    {{-0.83203125, -0.4375, -0.44140625, -0.92578125, -2.23828125},
     1.4894172606502354,
     {-0.00027980940074295515, 0.0007287678742365448, 0.0007146449135446653, -0.0004215811947974505,
      -0.0007420221922408044}},
    {{-0.02734375, -0.55078125, 0.34765625, 0.1484375, 1.640625},
     1.2821642791355112,
     {-0.0010202642562818368, -0.0009295313604169828, -0.0009126073355711746,
      -0.0009966926203298682, 0.0038590955725998624}},
    {{0.21875, 0.5078125, 0.0, -0.59765625, -2.30078125},
     1.394347803456403,
     {0.0002637199069611058, 0.0014062687475418678, -0.00026818351125011626, -0.0008690765687722121,
      -0.0005327285744806452}},
    {{-0.12109375, 0.6015625, -0.3046875, -0.78125, -2.62109375},
     1.3263007304394905,
     {-0.00039140417580662846, 0.0025083520338939607, -0.000665990058117085, -0.0009618904804710052,
      -0.0004890673194992419}},
    {{0.01953125, 0.3515625, 1.39453125, 0.69140625, -0.4609375},
     1.4136369277850878,
     {-0.0008686008254265889, -0.000692143031333188, 0.0026576872074206364, -0.00022676964875081277,
      -0.0008701737019100466}},
    {{0.1875, -2.48828125, -1.30078125, -0.8125, -0.2734375},
     1.343995074552224,
     {0.0022416571711662185, -0.0006490600893618812, -0.0009591115392315173, -0.0007795697150792474,
      0.00014608417250642743}},
    {{0.0, 0.0, 0.0, 0.0, 0.0}, 1.6094379124341003, {0.0, 0.0, 0.0, 0.0, 0.0}},
    {{1.89453125, 14.24609375, 12.58984375, 10.59375, 2.546875},
     0.5339588223031743,
     {-4.2682318816673164e-07, 0.0027756285900807347, -0.002068074465886853, -0.0007063522845013841,
      -7.7501650433099e-07}},
    {{1.59765625, 3.73828125, 2.20703125, 3.9921875, 13.296875},
     0.001972674545084043,
     {-9.70742289597937e-07, -6.745091645501671e-06, -1.6924547600241264e-06,
      -8.463763299525542e-06, 1.7872051994649276e-05}},
    {{5.9296875, -8.93359375, -1.6328125, 1.921875, -20.63671875},
     0.09388064876289103,
     {0.0007397732496342568, -5.0912304896711076e-08, -3.8187443828346686e-05,
      -0.0007015348927469426, -7.540708183088536e-13}},
    {{0.7421875, -1.31640625, 19.25, 7.12890625, -0.05859375},
     7.171151139768167e-05,
     {-1.6963299314796307e-09, -2.405901782177779e-10, 6.625324370494861e-07,
      -6.598009489486721e-07, -7.945679911165469e-10}},
};

/// Those of the golden figures in one batch, and a row that is not scored.
template <class S, class BackEnd>
void check_golden_entropy(const BackEnd& on) {
  using R = compute_t<S>;
  constexpr auto rows = static_cast<std::int64_t>(std::size(golden_entropies));
  logits_matrix<S> logits{rows + 1, 5}, gradient{rows + 1, 5};
  std::vector<std::int64_t> targets;
  for (std::int64_t t = 0; t < rows; ++t) {
    logits.fill_row(
        t, [&](std::int64_t j) { return golden_entropies[t].logits[static_cast<std::size_t>(j)]; });
    targets.push_back(t % 5);
  }
  targets.push_back(ignored_target);
  const auto pass = on.forward(logits, targets, {});
  const std::vector<R> none(targets.size(), R(0)), c(targets.size(), R(-0.01));
  on.gradient(logits, gradient, targets, pass, none, none, c, {});
  const real digits = std::is_same_v<S, double> ? 1e-12L : 1e-6L;
  for (std::size_t t = 0; t < targets.size() - 1; ++t) {
    const golden_entropy& golden = golden_entropies[t];
    CAPTURE(t);
    CHECK(near(pass.entropy[t], golden.entropy, digits, digits));
    for (std::size_t j = 0; j < 5; ++j) {
      const real got =
          prospect::load(gradient.at(static_cast<std::int64_t>(t), static_cast<std::int64_t>(j)));
      CHECK(near(got, golden.gradient[j], digits, 0.01L * digits));
    }
  }
  for (std::int64_t j = 0; j < 5; ++j) CHECK(same_bits(gradient.at(rows, j), stored<S>(0)));
}

/// What cannot be has no gradient, and what is no number stays in its row.
template <class S, class BackEnd>
void check_entropy_of_impossible(const BackEnd& on) {
  using R = compute_t<S>;
  constexpr double never = -std::numeric_limits<double>::infinity();
  constexpr R nan = std::numeric_limits<R>::quiet_NaN();
  const auto run = [&](const std::vector<double>& row, std::int64_t target, R a, R c,
                       auto... entropy) {
    logits_matrix<S> logits{1, static_cast<std::int64_t>(row.size())};
    logits.fill_row(0, [&](std::int64_t j) { return row[static_cast<std::size_t>(j)]; });
    const std::vector<std::int64_t> targets{target};
    auto pass = on.forward(logits, targets, {});
    ((pass.entropy[0] = entropy), ...);
    on.gradient(logits, logits, targets, pass, {a}, {a}, {c}, {});
    std::vector<double> gradient;
    for (const S x : logits.elements()) gradient.push_back(prospect::load(x));
    return gradient;
  };
  const auto all_nan = [](const std::vector<double>& row) {
    return std::all_of(row.begin(), row.end(), [](double x) { return std::isnan(x); });
  };
  CHECK(run({never, 2, never}, 1, 0, 1) == std::vector<double>{0, 0, 0});
  CHECK(run({never, 2, never}, 1, 1, R(3e5)) == std::vector<double>{0, 0, 0});
  // The target itself is impossible: the entropy of the others is all there is beside -b.
  const auto impossible = run({never, 2, 2}, 0, 1, 1);
  CHECK(impossible[0] == -1);
  const real digits = std::is_same_v<S, float> ? 1e-6L : 4e-3L;
  CHECK(near(impossible[1], 0.5, digits));
  CHECK(near(impossible[2], 0.5, digits));
  CHECK(run({0, never, 0}, 0, 0, 1)[1] == 0);
  CHECK(run({never, never, 0}, 1, 0, 1) == std::vector<double>{0, 0, 0});

  CHECK(all_nan(run({never, never, never}, 0, 0, 1)));
  CHECK(all_nan(run({0, std::numeric_limits<double>::quiet_NaN(), 0}, 0, 0, 1)));
  CHECK(all_nan(run({0, 1, 2}, 0, 0, nan)));
  CHECK(all_nan(run({0, 1, 2}, 0, nan, 1)));
  CHECK(all_nan(run({0, 1, 2}, 0, 1, 1, nan)));
  CHECK(all_nan(run({0, 1, 2}, 0, 1, 1, std::numeric_limits<R>::infinity())));
  // An entropy without a coefficient is not read.
  CHECK(run({0, 1, 2}, 0, 1, 0, nan) == run({0, 1, 2}, 0, 1, 0));
  CHECK(run({0, std::numeric_limits<double>::quiet_NaN(), 0}, 0, 0, 0) ==
        std::vector<double>{0, 0, 0});
}

}  // namespace testing
