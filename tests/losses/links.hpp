// Losses of one number in double: what fp32 is held against on the whole line. Those of the
// textbook (oracle/losses.hpp), and more, as their papers state them, with the gradient
// differentiated by hand. The chosen completion's log-ratio is x, the rejected one's 0; in unpaired
// losses z is 0.

#pragma once

#include <algorithm>
#include <cmath>

#include "oracle/losses.hpp"
#include "oracle/scalar.hpp"

namespace testing {

/// Loss, slope along x, and along the rejected completion or z. `terms` are the magnitudes of what
/// the formula subtracts, where its value or slope crosses zero. Below `least`, slopes have lost
/// their digits.
struct link {
  double loss, slope, other;
  double loss_terms = 0, slope_terms = 0, least = 0;
};

namespace links {

using oracle::sigmoid;
using oracle::sigmoid_slope;
using oracle::softplus;
using oracle::square;

/// A textbook loss of pairs, or of thumbs.
inline link of(const oracle::paired_values<double>& v, double loss_terms = 0,
               double slope_terms = 0) {
  return {v.loss, v.d_chosen, v.d_rejected, loss_terms, slope_terms};
}
inline link of(const oracle::unpaired_values<double>& v) { return {v.loss, v.d_policy, v.d_z}; }

inline link dpo(double x, double beta, double e) {
  return of(oracle::dpo<double>(x, 0, beta, e), 0, e);
}
inline link robust_dpo(double x, double e) {
  return of(oracle::robust_dpo<double>(x, 0, 1, e), std::abs(x) / 2);
}

// p log(p / (1-e)) + (1-p) log((1-p) / e) with p = sigmoid(x).
inline link exo(double x, double e) {
  const double p = sigmoid(x), q = sigmoid(-x);
  const double log_p = -softplus(-x), log_q = -softplus(x);
  const double right = std::log1p(-e), wrong = std::log(e);
  const double slope = p * q * (x - (right - wrong));
  return {p * (log_p - right) + q * (log_q - wrong),
          slope,
          -slope,
          p * std::abs(log_p) - p * right + q * std::abs(log_q) - q * wrong,
          p * q * (std::abs(x) + std::abs(right - wrong)),
          1e-36};
}

// (1-w) softplus(-x) + w exp(-x) with w = sigmoid(x / tau), and w' = w (1-w) / tau.
inline link discopop(double x, double tau) {
  const double y = x / tau;
  const double w = sigmoid(y), not_w = sigmoid(-y);
  // w exp(-x): where w vanishes it is exp(y - x) / (1 + exp(y)).
  const double modulated = x < 0 ? std::exp(y - x) / (1 + std::exp(y)) : std::exp(-x) * w;
  const double ranked = not_w * softplus(-x);
  const double down = not_w * sigmoid(-x) + modulated + ranked * w / tau;
  const double up = modulated * not_w / tau;
  return {ranked + modulated, up - down, down - up, 0, std::max(up, down)};
}

inline link neg_sigmoid(double x) { return {-sigmoid(x), -sigmoid_slope(x), sigmoid_slope(x)}; }

inline link nca(double x) {
  const double down = sigmoid(-x), up = sigmoid(x) / 2;
  return {softplus(-x) + (softplus(x) + softplus(0.0)) / 2, up - down, 0.25, 0, std::max(up, down)};
}

inline link apo_zero(double x) { return {sigmoid(-x) + 0.5, -sigmoid_slope(x), 0.25}; }

// beta = 1/2: the goals are 1 and -1.
inline link sppo_hard(double x) { return {(x - 1) * (x - 1) + 1, 2 * (x - 1), 2}; }

// softplus(-m) with m = (1 - exp(-alpha x)) / alpha, which fp32 holds from an exponent of 80 on.
inline link alphapo(double x, double alpha) {
  const double exponent = -alpha * x, held = std::min(exponent, 80.0);
  const double m = -std::expm1(held) / alpha;
  return {softplus(-m), exponent > 80 ? 0 : -sigmoid(-m) * std::exp(exponent), sigmoid(-m)};
}

// softplus(-s) with s = (exp((alpha-1) x) - 1) / (alpha-1), held likewise.
inline link power_score(double x, double alpha) {
  const double c = alpha - 1, exponent = c * x;
  const double s = std::expm1(std::min(exponent, 80.0)) / c;
  return {softplus(-s), exponent > 80 ? 0 : -sigmoid(-s) * std::exp(exponent), sigmoid(-s)};
}

// softplus(-s) with s = log 2 - softplus(-x).
inline link jensen_shannon(double x) {
  const double s = std::min(x, 0.0) - std::log1p(std::expm1(-std::abs(x)) / 2);
  return {softplus(-s), -sigmoid(-s) * sigmoid(-x), sigmoid(-s) / 2};
}

inline link kto_logsigmoid(double x, double beta) {
  const double slope = beta * sigmoid(-beta * x);
  return {softplus(-beta * x), -slope, slope};
}

// Its target is 0; it reads no z.
inline link a2po(double x, double beta) { return {square(beta * x), 2 * beta * beta * x, 0}; }

}  // namespace links
}  // namespace testing
