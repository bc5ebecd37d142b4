// DPO over the mean log-ratio per token.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Length-normalised DPO (Meng et al. 2024, arXiv:2405.14734, appendix; Tulu 3, Lambert et al.
/// 2024, arXiv:2411.15124), TRL's `sigmoid_norm`.
///
///   m = beta (mean chosen log-ratio - mean rejected log-ratio),  loss = softplus(-m) + e m
struct sigmoid_norm {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< in [0, 1)

  static constexpr std::string_view name = "sigmoid_norm";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_means;
  static constexpr std::array<parameter<sigmoid_norm>, 2> parameters{
      {{"beta", &sigmoid_norm::beta}, {"label_smoothing", &sigmoid_norm::label_smoothing}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.mean_log_ratio_margin(), label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
