// Group relative policy optimisation: the clipped surrogate, each sequence by its mean.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// GRPO (Shao et al. 2024, arXiv:2402.03300, eq. 3).
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,
///   averaged over each sequence's tokens, then over sequences
///
/// r = pi / pi_old, and k3 the estimate of the KL divergence from the reference, which is read
/// where `beta` is not 0. `epsilon_high` apart from `epsilon` is DAPO's clip-higher, `delta` TRL's
/// two-sided clipping. Advantages: `advantages.hpp`.
struct grpo {
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "grpo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr std::array<parameter<grpo>, 5> parameters{
      {{"epsilon", &grpo::epsilon},
       {"epsilon_high", &grpo::epsilon_high},
       {"delta", &grpo::delta},
       {"beta", &grpo::beta},
       {"use_bias_correction_kl", &grpo::use_bias_correction_kl}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (const char* why = detail::problem_of_clipping(epsilon, epsilon_high)) return why;
    if (!detail::not_negative(delta)) return "delta must not be negative (0 to 1e30)";
    if (!detail::not_negative(beta)) return "beta must not be negative (0 to 1e30)";
    if (!(use_bias_correction_kl == 0 || use_bias_correction_kl == 1)) {
      return "use_bias_correction_kl must be 0 or 1";
    }
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    const T clipped =
        clipped_surrogate(t.log_ratio(), t.advantage, two_sided(epsilon, epsilon_high, delta));
    return clipped + kl_penalty(t, beta, use_bias_correction_kl);
  }
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
