// The gradient of any loss, checked against differences of its own value in long double: it needs
// no oracle, so a loss added tomorrow or a user's own is covered too.

#pragma once

#include <prospect/losses/differentiate.hpp>

#include <algorithm>
#include <cmath>

#include "closeness.hpp"

namespace testing {

/// Whether `slope` is the derivative of f at 0; at a kink, whether it lies between the one-sided
/// ones.
template <class F>
bool is_slope_of(double slope, const F& f, long double step) {
  const long double here = f(0.0L), left = (here - f(-step)) / step,
                    right = (f(step) - here) / step;
  const long double central = (left + right) / 2;
  const long double rounding = 1e-17L * std::abs(here) / step;
  const long double tolerance = 1e-8L * std::abs(central) + 1e-10L / step * 1e-6L + rounding;
  if (std::abs(right - left) <= 1e-3L * std::abs(central) + 1e-9L / step) {
    return std::abs(slope - central) <= tolerance;
  }
  return slope >= std::min(left, right) - tolerance && slope <= std::max(left, right) + tolerance;
}

/// A completion whose policy log-probability is `by` higher, the reference unchanged.
inline prospect::completion<long double> raised(const prospect::completion<double>& c,
                                                long double by) {
  return {.policy = c.policy + by, .ratio = c.ratio + by, .tokens = c.tokens};
}

template <class L>
bool gradient_matches_differences(const L& loss, const prospect::pair<double>& p) {
  const auto value = prospect::differentiate(loss, p);
  const long double step = 1e-6L / prospect::reward_scale(loss);
  const auto at = [&](long double chosen, long double rejected) -> long double {
    return loss(prospect::pair<long double>{.chosen = raised(p.chosen, chosen),
                                            .rejected = raised(p.rejected, rejected)});
  };
  return near(value.loss, at(0, 0), 1e-12L, 1e-15L) &&
         is_slope_of(
             value.d_chosen, [&](long double by) { return at(by, 0); }, step) &&
         is_slope_of(
             value.d_rejected, [&](long double by) { return at(0, by); }, step);
}

template <class L>
bool gradient_matches_differences(const L& loss, const prospect::unpaired<double>& a) {
  const auto value = prospect::differentiate(loss, a);
  const long double step = 1e-6L / prospect::reward_scale(loss);
  const auto at = [&](long double policy, long double z) -> long double {
    return loss(prospect::unpaired<long double>{
        .answer = raised(a.answer, policy), .z = a.z + z, .desirable = a.desirable});
  };
  return near(value.loss, at(0, 0), 1e-12L, 1e-15L) &&
         is_slope_of(
             value.d_policy, [&](long double by) { return at(by, 0); }, step) &&
         is_slope_of(
             value.d_z, [&](long double by) { return at(0, by); }, step);
}

template <class L>
bool gradient_matches_differences(const L& loss, const prospect::token<double>& t) {
  const auto value = prospect::differentiate(loss, t);
  const long double step = 1e-6L;
  const auto moved = [&](long double by, long double sum) {
    return prospect::token<long double>{.policy = t.policy + by,
                                        .ratio = t.ratio + by,
                                        .reference_ratio = t.reference_ratio + by,
                                        .advantage = t.advantage,
                                        .sum = t.sum + sum,
                                        .tokens = t.tokens};
  };
  const auto at = [&](long double by, long double sum) -> long double {
    return loss(moved(by, sum));
  };
  bool matches = near(value.loss, at(0, 0), 1e-12L, 1e-15L) &&
                 is_slope_of(
                     value.d_policy, [&](long double by) { return at(by, 0); }, step) &&
                 is_slope_of(
                     value.d_sum, [&](long double by) { return at(0, by); }, step);
  if constexpr (prospect::sums_tokens<L>) {
    const auto part = prospect::contribution(loss, t);
    const auto by = [&](long double x) -> long double { return loss.contribution(moved(x, 0)); };
    matches =
        matches && near(part.value, by(0), 1e-12L, 1e-15L) && is_slope_of(part.slope, by, step);
  }
  return matches;
}

}  // namespace testing
