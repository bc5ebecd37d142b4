// Sequence likelihood calibration, without a reference.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// SLiC-HF (Zhao et al. 2023, arXiv:2305.10425, eq. 6) on sums over tokens. `delta` is the margin,
/// which HALOs names beta; the regulariser is, as there, the likelihood of the chosen completion.
///
///   loss = max(0, delta - log pi(chosen) + log pi(rejected)) - lambda log pi(chosen)
///
/// The slope at the kink is 0.
struct slic {
  double delta = 1.0;  ///< nats
  double lambda = 0.1;

  static constexpr std::string_view name = "slic";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<slic>, 2> parameters{
      {{"delta", &slic::delta}, {"lambda", &slic::lambda}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(delta)) return "delta must not be negative (0 to 1e30)";
    if (!detail::not_negative(lambda)) return "lambda must not be negative (0 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return relu(delta - p.policy_margin()) - term(lambda, p.chosen.policy);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
