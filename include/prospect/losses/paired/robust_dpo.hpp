// DPO made unbiased under label noise.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): if labels are flipped with
/// probability e < 1/2, its expectation over the flips is the DPO loss on clean labels.
///
///   m = beta (chosen log-ratio - rejected log-ratio),  sums over tokens
///   loss = ((1-e) softplus(-m) - e softplus(m)) / (1 - 2e) = softplus(-m) - e / (1 - 2e) m
///
/// Unbounded below: as m grows the slope tends to -e / (1 - 2e).
struct robust_dpo {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< flip probability, in [0, 1/2)

  static constexpr std::string_view name = "robust_dpo";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<robust_dpo>, 2> parameters{
      {{"beta", &robust_dpo::beta}, {"label_smoothing", &robust_dpo::label_smoothing}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 0.5)) {
      return "label_smoothing must lie in [0, 1/2)";
    }
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    const T margin = beta * p.log_ratio_margin();
    return softplus(-margin) - term(label_smoothing / (1 - 2 * label_smoothing), margin);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
