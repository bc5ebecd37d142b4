// Identity preference optimisation over summed log-ratios, as printed in the paper.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// IPO (Azar et al. 2023, arXiv:2310.12036, eq. 17) on whole sequences, without length
/// normalisation. For language models `ipo` is usually what is wanted.
///
///   d = chosen log-ratio - rejected log-ratio,  loss = (d - 1 / (2 tau))^2
struct ipo_sum {
  double tau = 0.1;

  static constexpr std::string_view name = "ipo_sum";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<ipo_sum>, 1> parameters{{{"tau", &ipo_sum::tau}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::positive(tau) ? nullptr : "tau must be positive (1e-30 to 1e30)";
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return square(p.log_ratio_margin() - 1 / (2 * tau));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
