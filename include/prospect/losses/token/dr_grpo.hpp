// GRPO done right: no division by a sequence's own length.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/group_relative.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Dr. GRPO (Liu et al. 2025, arXiv:2503.20783, eq. 4).
///
///   loss = (-min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3) /
///   max_completion_length, summed over each sequence's tokens, averaged over sequences
///
/// r = pi / pi_old, and k3 the estimate of the KL divergence from the reference, which is read
/// where `beta` is not 0. `epsilon_high` apart from `epsilon` is DAPO's clip-higher, `delta` TRL's
/// two-sided clipping. Its advantages are not divided by a standard deviation.
struct dr_grpo {
  double max_completion_length = 1;   ///< what every sequence is divided by, TRL's constant
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "dr_grpo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequences;
  static constexpr std::array<parameter<dr_grpo>, 6> parameters{
      {{"max_completion_length", &dr_grpo::max_completion_length},
       {"epsilon", &dr_grpo::epsilon},
       {"epsilon_high", &dr_grpo::epsilon_high},
       {"delta", &dr_grpo::delta},
       {"beta", &dr_grpo::beta},
       {"use_bias_correction_kl", &dr_grpo::use_bias_correction_kl}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(max_completion_length)) {
      return "max_completion_length must be positive (1e-30 to 1e30)";
    }
    return detail::problem_of_group_relative(*this);
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    return group_relative(*this, t, exponentials) / max_completion_length;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
