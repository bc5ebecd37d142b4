// Clipped importance sampling weights, and a gradient for every token.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// CISPO (MiniMax 2025, arXiv:2506.13585, eq. 4), averaged over tokens.
///
///   loss = -sg(min(r, epsilon_high)) A log pi,  r = pi / pi_old
///
/// `epsilon_high` is the bound itself and not its distance from 1: TRL's default of 0.2 clips
/// nearly everything, and values in use are about 5.
struct cispo {
  double epsilon_high = 0.2;  ///< the largest weight

  static constexpr std::string_view name = "cispo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<cispo>, 1> parameters{
      {{"epsilon_high", &cispo::epsilon_high}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(epsilon_high)) return "epsilon_high must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    using R = scalar_of_t<T>;
    const R ratio = exponentials.ratio(value_of(t.log_ratio()));
    const R weight = select(ratio > R(epsilon_high), R(epsilon_high), ratio);
    return -(weight * t.advantage) * t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
