// Anchored preference optimisation, for chosen completions worse than the model.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// APO-down (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8): the chosen completion down, and
/// the rejected one further.
///
///   loss = sigmoid(beta chosen log-ratio) + sigmoid(-beta (chosen log-ratio - rejected log-ratio))
struct apo_down {
  double beta = 0.1;

  static constexpr std::string_view name = "apo_down";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<apo_down>, 1> parameters{{{"beta", &apo_down::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return sigmoid(beta * p.chosen.log_ratio()) + sigmoid(-beta * p.log_ratio_margin());
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
