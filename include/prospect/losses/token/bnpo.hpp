// GRPO's loss with every token of the batch counting the same.
#pragma once

#include <prospect/losses/parts/group_relative.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The clipped surrogate of GRPO averaged over the tokens of the batch: TRL's bnpo.
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,  averaged over tokens
///
/// r = pi / pi_old, and k3 the estimate of the KL divergence from the reference, which is read
/// where `beta` is not 0. `epsilon_high` apart from `epsilon` is DAPO's clip-higher, `delta` TRL's
/// two-sided clipping.
struct bnpo {
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "bnpo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr auto parameters = detail::group_relative_parameters<bnpo>;

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::problem_of_group_relative(*this);
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    return group_relative(*this, t, exponentials);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
