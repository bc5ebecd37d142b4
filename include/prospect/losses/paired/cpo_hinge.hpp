// The hinge on CPO's margin.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// CPO (Xu et al. 2024, arXiv:2401.08417) with the hinge of TRL's `loss_type="hinge"`.
///
///   loss = max(0, 1 - beta (log pi(chosen) - log pi(rejected))),  slope 0 at the kink
struct cpo_hinge {
  double beta = 0.1;

  static constexpr std::string_view name = "cpo_hinge";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<cpo_hinge>, 1> parameters{{{"beta", &cpo_hinge::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return relu(1 - beta * p.policy_margin());
  }
};

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
