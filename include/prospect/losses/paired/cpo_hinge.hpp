// The hinge on CPO's margin.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// CPO (Xu et al. 2024, arXiv:2401.08417) with the hinge of TRL's `loss_type="hinge"`; its
/// negative log-likelihood as in `cpo`.
///
///   loss = max(0, 1 - beta (log pi(chosen) - log pi(rejected))),  slope 0 at the kink
struct cpo_hinge {
  double beta = 0.1;
  double cpo_alpha = 1.0;  ///< weight of the next-token term

  static constexpr std::string_view name = "cpo_hinge";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<cpo_hinge>, 2> parameters{
      {{"beta", &cpo_hinge::beta}, {"cpo_alpha", &cpo_hinge::cpo_alpha}}};

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
    return relu(1 - beta * p.policy_margin());
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
