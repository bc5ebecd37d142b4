// The preference probability itself, where DPO takes its logarithm.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The negated probability of the preference (HALOs' former `dpo-sigmoid`): bounded on both sides,
/// so that a pair that is far off is given up.
///
///   loss = -sigmoid(beta (chosen log-ratio - rejected log-ratio))
struct neg_sigmoid {
  double beta = 0.1;

  static constexpr std::string_view name = "neg_sigmoid";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<neg_sigmoid>, 1> parameters{{{"beta", &neg_sigmoid::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return -sigmoid(beta * p.log_ratio_margin());
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
