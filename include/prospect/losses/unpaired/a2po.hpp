// Regression of log-ratios on optimal advantages.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A*PO (Brantley et al. 2025, arXiv:2505.20686), TRL's A2PO. The target of a completion is its
/// reward less the optimal value of its prompt, r - V*, which `cpu::optimal_value` gives from the
/// rewards of completions of the reference policy. Thumbs change nothing but which metrics a row
/// adds to.
///
///   loss = (beta2 r_theta - target)^2,  r_theta the summed log-ratio
struct a2po {
  double beta2 = 1e-3;

  static constexpr std::string_view name = "a2po";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<a2po>, 1> parameters{{{"beta2", &a2po::beta2}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::positive(beta2) ? nullptr : "beta2 must be positive (1e-30 to 1e30)";
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    return square(beta2 * e.log_ratio() - e.target);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
