// Direct preference optimisation, with the label smoothing of cDPO.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// DPO (Rafailov et al. 2023, arXiv:2305.18290, eq. 7); a positive `label_smoothing` e is
/// Mitchell's conservative DPO, for labels that are wrong with probability e.
///
///   m = beta (chosen log-ratio - rejected log-ratio),  sums over tokens
///   loss = -(1-e) log sigmoid(m) - e log sigmoid(-m) = softplus(-m) + e m
struct dpo {
  double beta = 0.1;
  double label_smoothing = 0.0;  ///< in [0, 1)

  static constexpr std::string_view name = "dpo";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<dpo>, 2> parameters{
      {{"beta", &dpo::beta}, {"label_smoothing", &dpo::label_smoothing}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.log_ratio_margin(), label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
