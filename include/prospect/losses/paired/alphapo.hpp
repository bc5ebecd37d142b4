// SimPO with a reward whose shape is a parameter.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// AlphaPO (Gupta et al. 2025, arXiv:2501.03884, eq. 8): SimPO over r(p) = (1 - exp(-alpha p)) /
/// alpha, p the mean log-probability per token. alpha = 0 is SimPO itself. Where alpha p is so far
/// below 0 that r leaves its type, r stays at what it has reached, with slope 0. `cpo_alpha` as in
/// `simpo`.
///
///   m = beta (r(chosen) - r(rejected)) - gamma,  loss = softplus(-m) + e m
struct alphapo {
  double beta = 2.0;
  double gamma = 0.5;
  double alpha = 0.25;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double cpo_alpha = 0.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "alphapo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<alphapo>, 5> parameters{
      {{"beta", &alphapo::beta},
       {"gamma", &alphapo::gamma},
       {"alpha", &alphapo::alpha},
       {"label_smoothing", &alphapo::label_smoothing},
       {"cpo_alpha", &alphapo::cpo_alpha}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(gamma)) return "gamma must not be negative (0 to 1e30)";
    if (!detail::of_either_sign(alpha)) return "alpha must lie in [-1e30, 1e30]";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(cpo_alpha)) return "cpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = cpo_alpha, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    const auto reward = [&](const T& mean) {
      return alpha == 0 ? mean : -expm1(held(-alpha * mean)) / alpha;
    };
    const T margin =
        beta * (reward(p.chosen.mean_policy()) - reward(p.rejected.mean_policy()) - p.margin) -
        gamma;
    return smoothed(margin, label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
