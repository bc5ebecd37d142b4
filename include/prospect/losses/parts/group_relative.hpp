// What GRPO and its relatives have in common: the clipped surrogate of a ratio, held to the
// reference, and the hyper-parameters of both. They differ in whose ratio it is, and in how tokens
// are averaged.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,  r = exp(log_ratio)
///
/// k3 estimates the KL divergence from the reference, which is read where `beta` is not 0.
template <class L, class T, class E>
PROSPECT_HD constexpr T group_relative(const L& loss, const token<T>& t, const T& log_ratio,
                                       const scalar_of_t<T>& r, const E& exponentials) {
  using R = scalar_of_t<T>;
  const T clipped = detail::clipped(
      log_ratio, r, t.advantage, detail::two_sided<R>(loss.epsilon, loss.epsilon_high, loss.delta));
  if constexpr (!E::has_reference) {
    return clipped;
  } else {
    return clipped + kl_penalty(t, loss.beta, loss.use_bias_correction_kl, exponentials);
  }
}
/// The same of a ratio that is not the token's own.
template <class L, class T, class E>
PROSPECT_HD constexpr T group_relative(const L& loss, const token<T>& t, const T& log_ratio,
                                       const E& exponentials) {
  return group_relative(loss, t, log_ratio, exp(value_of(log_ratio)), exponentials);
}
/// The same of the token's.
template <class L, class T, class E>
PROSPECT_HD constexpr T group_relative(const L& loss, const token<T>& t, const E& exponentials) {
  const T log_ratio = t.log_ratio();
  return group_relative(loss, t, log_ratio, exponentials.ratio(value_of(log_ratio)), exponentials);
}

namespace detail {

template <class L>
inline constexpr std::array<parameter<L>, 5> group_relative_parameters{
    {{"epsilon", &L::epsilon},
     {"epsilon_high", &L::epsilon_high},
     {"delta", &L::delta},
     {"beta", &L::beta},
     {"use_bias_correction_kl", &L::use_bias_correction_kl}}};

/// Why such hyper-parameters make no sense, or nullptr.
template <class L>
PROSPECT_INLINE constexpr const char* problem_of_group_relative(const L& loss) {
  if (const char* why = problem_of_clipping(loss.epsilon, loss.epsilon_high)) return why;
  if (!not_negative(loss.delta)) return "delta must not be negative (0 to 1e30)";
  if (!not_negative(loss.beta)) return "beta must not be negative (0 to 1e30)";
  if (!(loss.use_bias_correction_kl == 0 || loss.use_bias_correction_kl == 1)) {
    return "use_bias_correction_kl must be 0 or 1";
  }
  return nullptr;
}

}  // namespace detail

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
