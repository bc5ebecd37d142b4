// Divergence PPO: a trust region of probabilities, not of ratios.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// DPPO with the binary total variation (arXiv:2602.04879), as verl has it; averaged over tokens.
///
///   loss = -M sg(min(r, clip_ratio_c)) A log pi,  r = pi / pi_old,
///   M = 0 where pi - pi_old > epsilon_high and A > 0, or pi - pi_old < -epsilon and A <= 0; else 1
struct dppo {
  double epsilon = 0.2;
  double epsilon_high = 0.2;
  double clip_ratio_c = 20;  ///< the largest weight

  static constexpr std::string_view name = "dppo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<dppo>, 3> parameters{
      {{"epsilon", &dppo::epsilon},
       {"epsilon_high", &dppo::epsilon_high},
       {"clip_ratio_c", &dppo::clip_ratio_c}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!(epsilon >= 0 && epsilon <= 1)) return "epsilon must lie in [0, 1]";
    if (!(epsilon_high >= 0 && epsilon_high <= 1)) return "epsilon_high must lie in [0, 1]";
    if (!detail::positive(clip_ratio_c)) return "clip_ratio_c must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    using R = scalar_of_t<T>;
    const R log_ratio = value_of(t.log_ratio());
    const R ratio = exponentials.ratio(log_ratio);
    // pi - pi_old as pi (1 - pi_old / pi), which keeps its digits near the old policy.
    const R moved = -exp(value_of(t.policy)) * expm1(-log_ratio);
    const auto outside =
        select(t.advantage > R(0), moved - R(epsilon_high), R(-epsilon) - moved) > R(0);
    const R weight = select(ratio > R(clip_ratio_c), R(clip_ratio_c), ratio);
    return -select(outside, R(0), weight * t.advantage) * t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
