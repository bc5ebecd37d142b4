// Self-play preference optimisation with hard labels.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// SPPO with hard probabilities (Wu et al. 2024, arXiv:2405.00675, eq. 4.7), TRL's `sppo_hard`.
///
///   loss = (chosen log-ratio - 1 / (2 beta))^2 + (rejected log-ratio + 1 / (2 beta))^2
struct sppo_hard {
  double beta = 0.1;

  static constexpr std::string_view name = "sppo_hard";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<sppo_hard>, 1> parameters{{{"beta", &sppo_hard::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    const double goal = 1 / (2 * beta);
    return square(p.chosen.log_ratio() - goal) + square(p.rejected.log_ratio() + goal);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
