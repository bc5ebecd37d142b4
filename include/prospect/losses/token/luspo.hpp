// GSPO by the length of a sequence, so that none is favoured.
#pragma once

#include <prospect/losses/parts/group_relative.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// LUSPO (arXiv:2602.05261): GSPO's loss of a sequence times its number of tokens.
///
///   loss = -min(A r, A clip(r, 1 - epsilon, 1 + epsilon_high)) + beta k3,
///   r = exp(mean over the sequence of log pi - log pi_old), attached,
///   summed over each sequence's tokens, averaged over sequences
struct luspo {
  double epsilon = 0.2;               ///< r is not led below 1 - epsilon
  double epsilon_high = 0.2;          ///< nor above 1 + epsilon_high
  double delta = 0;                   ///< the largest r unclipped; 0: none
  double beta = 0;                    ///< of the KL estimate
  double use_bias_correction_kl = 0;  ///< not 0: r k3 instead of k3

  static constexpr std::string_view name = "luspo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::sequences;
  static constexpr auto parameters = detail::group_relative_parameters<luspo>;

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
    return group_relative(*this, t, t.mean(), exponentials);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
