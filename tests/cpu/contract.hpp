// The numeric contract on tokens (DESIGN, section 6), as predicates against the oracle.

#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/cpu/detail/exponentials.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "oracle/softmax.hpp"

namespace testing {

using oracle::real;

/// Within the contract on log-probs: absolute error everywhere, relative where p >= 1/2.
template <class R>
bool log_prob_in_contract(R got, real want, real largest_logit) {
  if (got > 0) return false;
  if (std::is_same_v<R, double>) return near(got, want, 1e-13L, 1e-15L * (1 + largest_logit));
  const bool near_enough = near(got, want, 0, 4e-6L + largest_logit / (1 << 23));
  // Below the smallest fp32 number a log-prob is 0, or that number.
  constexpr real last = std::numeric_limits<R>::denorm_min();
  return near_enough && (want < -std::log(2.0L) || near(got, want, 4e-6L, last));
}

/// What rounding to S may cost relatively, and absolutely among subnormals.
template <class S>
inline constexpr real last_place = 8 * std::numeric_limits<S>::epsilon();
template <>
inline constexpr real last_place<double> = 1e-12L;  // the digits that lse has behind its point
template <>
inline constexpr real last_place<prospect::bfloat16> = 0x1p-8L;
template <>
inline constexpr real last_place<prospect::float16> = 0x1p-11L;
template <class S>
inline constexpr real smallest = std::numeric_limits<S>::denorm_min();
template <>
inline constexpr real smallest<prospect::bfloat16> = 0x1p-133L;
template <>
inline constexpr real smallest<prospect::float16> = 0x1p-24L;

/// The lse comes from a sum in the type of arithmetic; its error is one of the gradient's 8 ulp, or
/// of the 4e-6 before it is rounded to 16 bits (where equal logits make equal errors).
template <class S>
inline constexpr real lse_error = 1e-6L;
template <>
inline constexpr real lse_error<float> = 2.4e-7L;
template <>
inline constexpr real lse_error<double> = 1e-13L;

/// What is smaller may be 0, whatever it is stored as (fp16 rounds it to 0 anyway): less than the
/// smallest normal number, and where a power comes from a table a step of it more.
template <class S>
inline constexpr real negligible = std::numeric_limits<prospect::compute_t<S>>::min() *
                                   (std::is_same_v<prospect::compute_t<S>, float> &&
                                            prospect::cpu::detail::best_power::lowest > -126
                                        ? 1.03L
                                        : 1);

/// Within the contract on gradients: 8 ulp in fp32; for 16 bits one rounding of a value that is
/// accurate to 4e-6; for fp64 as many digits as an lse of the size of `largest_logit` has. `terms`
/// is the magnitude of what was subtracted to get `want`.
template <class S>
bool gradient_in_contract(S got, real want, real terms = 0, real largest_logit = 0) {
  const real size = std::max(std::abs(want), std::abs(terms));
  if (prospect::load(got) == 0 && std::abs(want) < negligible<S> * (1 + 1e-6L)) return true;
  if constexpr (std::is_same_v<S, float>) {
    return ulps(got, want, terms) <= 8;
  } else if constexpr (std::is_same_v<S, double>) {
    return near(got, want, 0, (last_place<double> + 4e-16L * largest_logit) * size + 1e-300L);
  } else {
    return stored_near<S>(got, want, 4e-6L * size);
  }
}

/// a p - b at the target, without cancellation where the oracle knows 1 - p better than p.
inline real gradient_at_target(const oracle::softmax_row& want, std::size_t target, real a,
                               real b) {
  const real p = want.probability[target];
  return want.slope[target] * (p < 0.5L ? a * p - b : (a - b) - a * want.rest);
}

/// The largest finite magnitude of a row.
inline real largest(const std::vector<real>& row) {
  real size = 0;
  for (const real x : row) size = std::isfinite(x) ? std::max(size, std::abs(x)) : size;
  return size;
}

}  // namespace testing
