// GSPO with advantages by token.
#pragma once

#include <prospect/losses/parts/group_relative.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

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
  static constexpr bool detached_sum = true;
  static constexpr averaging average = averaging::sequence_means;
  static constexpr auto parameters = detail::group_relative_parameters<gspo_token>;

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::problem_of_group_relative(*this);
  }

  /// The penalty is each token's own.
  PROSPECT_INLINE constexpr bool sequence_level() const { return beta == 0; }
  /// A sequence's log-ratio is the sum of its tokens'.
  template <class T>
  PROSPECT_HD constexpr T contribution(const token<T>& t) const {
    return t.log_ratio();
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    using R = scalar_of_t<T>;
    const T own = along(t.log_ratio(), [](const R& /*x*/) {
      return value_and_slope<R>{.value = R(0), .slope = R(1)};
    });
    return group_relative(*this, t, detached(t.mean()) + own, exponentials);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
