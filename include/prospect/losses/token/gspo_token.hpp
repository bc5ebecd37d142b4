// GSPO with advantages by token.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/kl.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// GSPO-token (Zheng et al. 2025, arXiv:2507.18071, eq. 13): the value of GSPO, and through each
/// token a gradient of its own.
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,
///   r = sg(exp(mean over the sequence of log pi - log pi_old)) pi / sg(pi)
struct gspo_token {
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "gspo_token";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr std::array<parameter<gspo_token>, 5> parameters{
      {{"epsilon", &gspo_token::epsilon},
       {"epsilon_high", &gspo_token::epsilon_high},
       {"delta", &gspo_token::delta},
       {"beta", &gspo_token::beta},
       {"use_bias_correction_kl", &gspo_token::use_bias_correction_kl}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (const char* why = detail::problem_of_clipping(epsilon, epsilon_high)) return why;
    if (!detail::not_negative(delta)) return "delta must not be negative (0 to 1e30)";
    if (!detail::not_negative(beta)) return "beta must not be negative (0 to 1e30)";
    if (!(use_bias_correction_kl == 0 || use_bias_correction_kl == 1)) {
      return "use_bias_correction_kl must be 0 or 1";
    }
    return nullptr;
  }

  /// A sequence's log-ratio is the sum of its tokens'.
  template <class T>
  PROSPECT_HD constexpr T contribution(const token<T>& t) const {
    return t.log_ratio();
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    const T own = t.log_ratio() - detached(t.log_ratio());
    const T clipped = clipped_surrogate(detached(t.mean()) + own, t.advantage,
                                        two_sided(epsilon, epsilon_high, delta));
    return clipped + kl_penalty(t, beta, use_bias_correction_kl);
  }
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
