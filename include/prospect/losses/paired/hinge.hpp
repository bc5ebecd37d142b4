// The hinge on DPO's margin.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Hinge loss on the normalised log-ratio (RSO, Liu et al. 2023, arXiv:2309.06657; after
/// SLiC, arXiv:2305.10425).
///
///   loss = max(0, 1 - beta (chosen log-ratio - rejected log-ratio)),  slope 0 at the kink
struct hinge {
  double beta = 0.1;

  static constexpr std::string_view name = "hinge";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<hinge>, 1> parameters{{{"beta", &hinge::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::positive(beta) ? nullptr : "beta must be positive (1e-30 to 1e30)";
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return relu(1 - beta * p.log_ratio_margin());
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
