// Exact optimisation: the reverse KL divergence of the preference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// EXO for pairs (Ji et al. 2024, arXiv:2402.00856, eq. 16), TRL's `exo_pair`: the KL divergence of
/// the policy's preference from labels that are wrong with probability e = label_smoothing.
///
///   m = beta (chosen log-ratio - rejected log-ratio)
///   loss = sigmoid(m) log(sigmoid(m) / (1-e)) + sigmoid(-m) log(sigmoid(-m) / e)
///
/// 0 at m = logit(1-e), bounded by -log e and -log(1-e), so that the slope vanishes at both ends:
/// in fp32 it has its digits down to 1e-36.
struct exo {
  double beta = 0.1;
  double label_smoothing = 1e-3;  ///< in (0, 1)

  static constexpr std::string_view name = "exo";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<exo>, 2> parameters{
      {{"beta", &exo::beta}, {"label_smoothing", &exo::label_smoothing}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!(label_smoothing >= 1e-30 && label_smoothing < 1)) {
      return "label_smoothing must lie in [1e-30, 1)";
    }
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    using R = scalar_of_t<T>;
    const R log_wrong = log(R(label_smoothing));
    const R log_right = log1p(R(-label_smoothing));
    return along(p.log_ratio_margin() * beta, [&](const R& margin) {
      // Beyond this a probability is 0, and 0 times its infinite logarithm would be NaN.
      const R m = clamp(margin, R(-800), R(800));
      return value_and_slope<R>{.value = sigmoid(m) * (log_sigmoid(m) - log_right) +
                                         sigmoid(-m) * (log_sigmoid(-m) - log_wrong),
                                .slope = sigmoid_slope(m) * (m - (log_right - log_wrong))};
    });
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
