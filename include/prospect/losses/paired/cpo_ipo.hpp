// IPO without a reference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// CPO (Xu et al. 2024, arXiv:2401.08417) with the square of TRL's `loss_type="ipo"`, over means
/// per token; its negative log-likelihood as in `cpo`.
///
///   loss = (mean log pi(chosen) - mean log pi(rejected) - 1 / (2 beta))^2
struct cpo_ipo {
  double beta = 0.1;
  double cpo_alpha = 1.0;  ///< weight of the next-token term

  static constexpr std::string_view name = "cpo_ipo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<cpo_ipo>, 2> parameters{
      {{"beta", &cpo_ipo::beta}, {"cpo_alpha", &cpo_ipo::cpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(cpo_alpha)) return "cpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = cpo_alpha, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return square(p.mean_policy_margin() - 1 / (2 * beta));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
