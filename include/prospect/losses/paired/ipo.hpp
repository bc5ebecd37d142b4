// Identity preference optimisation over the mean log-ratio per token, as its authors intend.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// IPO (Azar et al. 2023, arXiv:2310.12036, eq. 17), averaged over tokens: the length
/// normalisation its authors confirmed for language models.
///
///   d = mean chosen log-ratio - mean rejected log-ratio,  loss = (d - 1 / (2 tau))^2
///
/// Where others name tau "beta", the value is the same.
struct ipo {
  double tau = 0.1;

  static constexpr std::string_view name = "ipo";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_means;
  static constexpr std::array<parameter<ipo>, 1> parameters{{{"tau", &ipo::tau}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::positive(tau) ? nullptr : "tau must be positive (1e-30 to 1e30)";
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return square(p.mean_log_ratio_margin() - 1 / (2 * tau));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
