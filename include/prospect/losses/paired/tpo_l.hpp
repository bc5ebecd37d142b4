// TPO over means per token, with a margin.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// TPO-L (Saeidi et al. 2024, arXiv:2405.16681), TRL's `loss_type="tpo-l"`: SimPO's preference term
/// with an absolute gamma (TRL's `tpo_l_gamma`); the third completion as in `tpo`.
///
///   m = beta (mean log pi(chosen) - mean log pi(rejected)) - gamma
///   loss = softplus(-m) + e m - tpo_alpha log pi(gold) / tokens
struct tpo_l {
  double beta = 0.01;
  double gamma = 0.5;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double tpo_alpha = 1.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "tpo_l";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<tpo_l>, 4> parameters{
      {{"beta", &tpo_l::beta},
       {"gamma", &tpo_l::gamma},
       {"label_smoothing", &tpo_l::label_smoothing},
       {"tpo_alpha", &tpo_l::tpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(gamma)) return "gamma must not be negative (0 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(tpo_alpha)) return "tpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = tpo_alpha, .third = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.mean_policy_margin() - gamma, label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
