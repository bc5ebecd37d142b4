// The textbook softmax over one row of logits: probabilities, what can be said about them, and the
// gradient of the target's log-prob.
//
// The row's highest logit is subtracted, exactly but for long double's own rounding. The target's
// own term is kept apart so that 1 - p keeps its bits when p is near 1.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "scalar.hpp"

namespace oracle {

/// z = soft_cap tanh(x / soft_cap) / temperature; what is impossible stays impossible
struct softmax_options {
  real temperature = 1;
  real soft_cap = std::numeric_limits<real>::infinity();

  real z(real x) const {
    const bool capped = !std::isinf(soft_cap) && !(std::isinf(x) && x < 0);
    return (capped ? soft_cap * std::tanh(x / soft_cap) : x) / temperature;
  }
  /// dz/dx, from 1 / cosh^2, which does not cancel.
  real slope(real x) const {
    return (std::isinf(soft_cap) ? 1 : 1 / square(std::cosh(x / soft_cap))) / temperature;
  }
};

struct softmax_row {
  real log_prob, lse;
  std::vector<real> gradient;  // d log_prob / d logit: (onehot - softmax) dz/dx

  std::vector<real> probability, slope;
  real rest;  // 1 - p(target)
  real entropy, sum_squares, mean_logit;
  bool target_is_argmax;  // of equal logits the first counts
};

inline softmax_row softmax(const std::vector<real>& logits, std::int64_t target,
                           const softmax_options& options = {}) {
  const auto y = static_cast<std::size_t>(target);
  const auto n = static_cast<real>(logits.size());
  std::vector<real> z;
  for (const real x : logits) z.push_back(options.z(x));
  const auto first_highest = std::max_element(z.begin(), z.end());
  const real highest = *first_highest;
  real others = 0;
  for (std::size_t v = 0; v < z.size(); ++v) {
    if (v != y) others += std::exp(z[v] - highest);
  }
  const real own = std::exp(z[y] - highest), total = own + others;

  softmax_row row;
  row.lse = highest + std::log(total);
  row.log_prob = others < own ? -std::log1p(others / own) : (z[y] - highest) - std::log(total);
  row.rest = others / total;
  row.entropy = row.sum_squares = row.mean_logit = 0;
  // -p log p = p (log total - (z - highest)); log total itself as log1p where it is small.
  const real log_total = own == 1 ? std::log1p(others) : std::log(total);
  for (std::size_t v = 0; v < z.size(); ++v) {
    const real p = std::exp(z[v] - highest) / total;
    const real slope = options.slope(logits[v]);
    row.probability.push_back(p);
    row.slope.push_back(slope);
    row.gradient.push_back((v == y ? row.rest : -p) * slope);
    if (p > 0) row.entropy += p * (log_total - (z[v] - highest));
    row.sum_squares += p * p;
    row.mean_logit += z[v] / n;
  }
  row.target_is_argmax = first_highest - z.begin() == target;
  return row;
}

}  // namespace oracle
