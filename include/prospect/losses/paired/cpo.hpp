// Contrastive preference optimisation, without a reference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// CPO (Xu et al. 2024, arXiv:2401.08417, eq. 5): DPO with a uniform reference, and cpo_alpha times
/// the negative log-likelihood per token of the chosen completion.
///
///   m = beta (log pi(chosen) - log pi(rejected))
///   loss = softplus(-m) + e m - cpo_alpha log pi(chosen) / tokens
struct cpo {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double cpo_alpha = 1.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "cpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<cpo>, 3> parameters{
      {{"beta", &cpo::beta},
       {"label_smoothing", &cpo::label_smoothing},
       {"cpo_alpha", &cpo::cpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(cpo_alpha)) return "cpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = cpo_alpha, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.policy_margin(), label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
