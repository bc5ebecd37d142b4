// Decoupled clip: GRPO's loss over the tokens of the whole step.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// DAPO (Yu et al. 2025, arXiv:2503.14476, eq. 8). TRL's default.
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,  averaged over tokens
///
/// Of bnpo it differs by what is divided by: the tokens of all ranks and micro-batches of a step,
/// so give it `normaliser::over(that number)`. The paper's `epsilon_high` is 0.28.
///
/// r = pi / pi_old, and k3 the estimate of the KL divergence from the reference, which is read
/// where `beta` is not 0. `epsilon_high` apart from `epsilon` is DAPO's clip-higher, `delta` TRL's
/// two-sided clipping.
struct dapo {
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "dapo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<dapo>, 5> parameters{
      {{"epsilon", &dapo::epsilon},
       {"epsilon_high", &dapo::epsilon_high},
       {"delta", &dapo::delta},
       {"beta", &dapo::beta},
       {"use_bias_correction_kl", &dapo::use_bias_correction_kl}}};

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
