// Phases 1 and 3 against the textbook, whoever computes them: the same checks for every back end,
// storage type, layout and option.

#pragma once

#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace testing {

using oracle::real;
using prospect::compute_t;
using prospect::ignored_target;
using prospect::token_options;

inline const std::vector<token_options> all_options{
    {},
    {.temperature = 0.5},
    {.temperature = 0.7},
    {.temperature = 2},
    {.soft_cap = 30},
    {.soft_cap = 50},
    {.soft_cap = 1},
    {.temperature = 0.7, .soft_cap = 30},
    {.temperature = 2, .soft_cap = 1},
    {.temperature = 0.5, .soft_cap = 50},
};

inline oracle::softmax_options of(const token_options& o) {
  return {.temperature = o.temperature, .soft_cap = o.soft_cap};
}

/// Every output of the forward pass, full of poison.
template <class R>
struct token_results {
  std::vector<R> log_prob, entropy, sum_squares, mean_logit;
  std::vector<double> lse;
  std::vector<std::uint8_t> argmax;

  explicit token_results(std::int64_t n)
      : log_prob(static_cast<std::size_t>(n), poison<R>()),
        entropy{log_prob},
        sum_squares{log_prob},
        mean_logit{log_prob},
        lse(log_prob.size(), poison<double>()),
        argmax(log_prob.size(), poison<std::uint8_t>()) {}

  prospect::token_outputs<R> out() {
    return {.log_prob = log_prob,
            .lse = lse,
            .entropy = entropy,
            .sum_squares = sum_squares,
            .mean_logit = mean_logit,
            .target_is_argmax = argmax};
  }
};

/// The two highest z are told apart by the fp64 they are compared in.
inline bool argmax_is_clear(const std::vector<real>& row, const oracle::softmax_options& options) {
  std::vector<real> z;
  for (const real x : row) z.push_back(options.z(x));
  std::sort(z.begin(), z.end());
  if (z.size() < 2 || std::isinf(z[z.size() - 2])) return true;
  const real gap = z[z.size() - 1] - z[z.size() - 2];
  return gap == 0 ? std::isinf(options.soft_cap) : gap > 1e-14L * std::abs(z.back());
}

template <class R>
void check_scores(const token_results<R>& got, std::size_t t, const oracle::softmax_row& want,
                  const std::vector<real>& row, const oracle::softmax_options& options) {
  constexpr bool fp64 = std::is_same_v<R, double>;
  real size = largest(row), z_size = 0;
  for (const real x : row) {
    if (std::isfinite(options.z(x))) z_size = std::max(z_size, std::abs(options.z(x)));
  }
  size = std::max(size, z_size);
  CAPTURE(static_cast<double>(want.log_prob), got.log_prob[t], got.entropy[t], want.entropy);
  CHECK(log_prob_in_contract(got.log_prob[t], want.log_prob, size));
  CHECK(near(got.lse[t], want.lse, 1e-15L, 4 * lse_error<R>));
  // Entropy is a sum of p log p: relative where p is certain, absolute beside the logits' range.
  const real digits = fp64 ? 1e-12L : 4e-6L;
  CHECK(near(got.entropy[t], want.entropy, digits,
             want.rest < 0.5L && want.log_prob > -0.5L
                 ? (1 + z_size) * digits * want.rest + std::numeric_limits<R>::min()
                 : digits + (fp64 ? 1e-15L : 0x1p-23L) * std::min<real>(z_size, 200)));
  CHECK(got.entropy[t] >= 0);
  CHECK(near(got.sum_squares[t], want.sum_squares, digits));
  CHECK(near(got.mean_logit[t], want.mean_logit, 0, digits / 4 * (1 + z_size)));
  if (argmax_is_clear(row, options)) CHECK(got.argmax[t] == (want.target_is_argmax ? 1 : 0));
}

/// (a p - b onehot) dz/dx against the oracle, every column.
template <class S>
std::int64_t wrong_columns(logits_matrix<S>& got, std::int64_t t, std::int64_t target, real a,
                           real b, const oracle::softmax_row& want, real size) {
  std::int64_t wrong = 0;
  for (std::int64_t j = 0; j < got.columns(); ++j) {
    const auto v = static_cast<std::size_t>(j);
    const real p = want.probability[v], slope = want.slope[v];
    real gradient = a * p * slope, terms = 0;
    if (j == target) {
      gradient = gradient_at_target(want, v, a, b);
      terms = slope *
              std::min(std::abs(a) * p + std::abs(b), std::abs(a - b) + std::abs(a) * want.rest);
    }
    if (!gradient_in_contract(got.at(t, j), gradient, terms, size)) {
      UNSCOPED_INFO("column " << j << " is " << prospect::load(got.at(t, j)) << ", should be "
                              << gradient);
      ++wrong;
    }
  }
  return wrong;
}

/// Runs forward pass and gradient of a back end `on`, out of place and in place, and holds every
/// number against the oracle.
template <class S, class BackEnd>
void check_everything(const BackEnd& on, logits_matrix<S>& logits,
                      const std::vector<std::int64_t>& targets, const token_options& options,
                      random_source& random) {
  using R = compute_t<S>;
  const std::int64_t n = logits.rows();
  const auto original = logits;
  const auto pass = on.forward(logits, targets, options);
  CHECK(same_bits(logits.elements(), logits_matrix<S>{original}.elements()));

  // Equal coefficients, different ones, and one of them missing.
  const R x = static_cast<R>(random.uniform(0.1, 2)), y = static_cast<R>(random.uniform(0.1, 2));
  const R pairs[][2] = {{x, x}, {-x, -x}, {x, -y}, {x, y}, {x, 0}, {0, y}};
  const auto chosen = pairs[random.integer(0, 5)];
  const std::vector<R> a(targets.size(), chosen[0]), b(targets.size(), chosen[1]);
  logits_matrix<S> gradient{n, logits.columns(), random.integer(0, 5), random.integer(0, 5)};
  on.gradient(logits, gradient, targets, pass, a, b, options);
  CHECK(gradient.padding_untouched());

  for (std::int64_t t = 0; t < n; ++t) {
    const auto i = static_cast<std::size_t>(t);
    CAPTURE(t, targets[i], chosen[0], chosen[1]);
    if (targets[i] == ignored_target) {
      for (const auto* row : {&pass.log_prob, &pass.entropy, &pass.sum_squares, &pass.mean_logit}) {
        CHECK(same_bits((*row)[i], R(0)));
      }
      CHECK(same_bits(pass.lse[i], 0.0));
      CHECK(pass.argmax[i] == 0);
      for (std::int64_t j = 0; j < logits.columns(); ++j) {
        REQUIRE(same_bits(gradient.at(t, j), stored<S>(0)));
      }
      continue;
    }
    const auto row = logits.row(t);
    const auto want = oracle::softmax(row, targets[i], of(options));
    check_scores(pass, i, want, row, of(options));
    const real size = largest(row) / std::min(1.0, options.temperature);
    CHECK(wrong_columns(gradient, t, targets[i], chosen[0], chosen[1], want, size) == 0);
  }
  // In place, the same bits.
  on.gradient(logits, logits, targets, pass, a, b, options);
  CHECK(same_bits(logits.elements(), gradient.elements()));
  CHECK(logits.padding_untouched());
}

}  // namespace testing
