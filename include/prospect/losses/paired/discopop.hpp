// DiscoPOP: the loss that a language model found.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The log-ratio modulated loss (Lu et al. 2024, arXiv:2406.08414, eq. 5): DPO's where the pair is
/// ranked wrongly, exponential where rightly.
///
///   m = beta (chosen log-ratio - rejected log-ratio),  w = sigmoid(m / tau)
///   loss = (1-w) softplus(-m) + w exp(-m)
///
/// Neither convex nor monotone: at tau = 0.05 the slope is positive for m in (-0.1186, 0.0720), and
/// so at the start of a training run.
struct discopop {
  double beta = 0.1;
  double tau = 0.05;

  static constexpr std::string_view name = "discopop";
  static constexpr bool branch_free = true;
  static constexpr auto takes_scores = score_difference::of_sums;
  static constexpr std::array<parameter<discopop>, 2> parameters{
      {{"beta", &discopop::beta}, {"tau", &discopop::tau}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::positive(tau)) return "tau must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    using R = scalar_of_t<T>;
    return along(p.log_ratio_margin() * beta, [&](const R& m) {
      const R zero = 0;
      // From here on w is 0 or 1 as far as digits reach, whatever tau divides by: subnormal numbers
      // would take many times as long.
      const R most = detail::in_fp32<R> ? 87 : 700;
      const auto over_tau = [&](const R& x) { return detail::precise::divide(x, R(tau)); };
      const R y = over_tau(m);
      const R size = select(abs(y) > most, most, abs(y));
      // sigmoid(|y|) and sigmoid(-|y|)
      const R e = exp(-size);
      const R high = detail::reciprocal(R(1) + e);
      const R low = select(abs(y) > most, zero, e * high);
      const R wrong = select(y > zero, low, high);
      const R switched = high * low;
      const R loss = softplus(-m);
      // w exp(-m), of which the parts overflow: where m < 0 it is exp(m (1 / tau - 1)) (1-w).
      const R below = term(1 / tau - 1, m);
      const auto gone = m < zero && below < -most;
      const R exponent = select(gone, -most, select(m < zero, below, -m));
      const R modulated = select(gone, zero, exp(exponent) * high);
      const R from_w = wrong * modulated - select(switched == zero, zero, switched * loss);
      return value_and_slope<R>{.value = wrong * loss + modulated,
                                .slope = over_tau(from_w) - modulated - wrong * sigmoid(-m)};
    });
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
