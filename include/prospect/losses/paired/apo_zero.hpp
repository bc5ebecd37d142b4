// Anchored preference optimisation, for chosen completions better than the model.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7): the chosen completion up, the
/// rejected one down.
///
///   loss = sigmoid(-beta chosen log-ratio) + sigmoid(beta rejected log-ratio)
struct apo_zero {
  double beta = 0.1;

  static constexpr std::string_view name = "apo_zero";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<apo_zero>, 1> parameters{{{"beta", &apo_zero::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return sigmoid(-beta * p.chosen.log_ratio()) + sigmoid(beta * p.rejected.log_ratio());
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
