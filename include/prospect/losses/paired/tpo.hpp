// Triple preference optimisation: a third, gold completion to imitate.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// TPO (Saeidi et al. 2024, arXiv:2405.16681): CPO's preference term, and tpo_alpha times the
/// negative log-likelihood per token of the gold completion, which is the third of each pair. TRL's
/// `loss_type="sigmoid"`.
///
///   m = beta (log pi(chosen) - log pi(rejected))
///   loss = softplus(-m) + e m - tpo_alpha log pi(gold) / tokens
struct tpo {
  double beta = 0.01;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double tpo_alpha = 1.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "tpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<tpo>, 3> parameters{
      {{"beta", &tpo::beta},
       {"label_smoothing", &tpo::label_smoothing},
       {"tpo_alpha", &tpo::tpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(tpo_alpha)) return "tpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = tpo_alpha, .third = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.policy_margin(), label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
