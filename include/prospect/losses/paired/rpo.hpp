// DPO that also imitates the chosen completion.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/paired/dpo.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Iterative reasoning preference optimisation (Pang et al. 2024, arXiv:2404.19733, eq. 1): DPO and
/// rpo_alpha times the negative log-likelihood per token of the chosen completion. TRL writes it
/// `loss_type=["sigmoid", "sft"]`.
///
///   m = beta (chosen log-ratio - rejected log-ratio)
///   loss = softplus(-m) + e m - rpo_alpha log pi(chosen) / tokens
struct rpo {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double rpo_alpha = 1.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "rpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<rpo>, 3> parameters{
      {{"beta", &rpo::beta},
       {"label_smoothing", &rpo::label_smoothing},
       {"rpo_alpha", &rpo::rpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(rpo_alpha)) return "rpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = rpo_alpha, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return dpo{.beta = beta, .label_smoothing = label_smoothing}(p);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
