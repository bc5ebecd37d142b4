// Simple preference optimisation: mean log-probabilities, a margin, no reference.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/parts/smoothed.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// SimPO (Meng et al. 2024, arXiv:2405.14734, eq. 6). `gamma` is absolute, as in TRL; the paper and
/// HALOs give it as a multiple of beta, and HALOs' defaults are `halos()`. A positive
/// `cpo_alpha` is CPO-SimPO: times the negative log-likelihood per token of the chosen completion.
///
///   m = beta (mean log pi(chosen) - mean log pi(rejected)) - gamma,  loss = softplus(-m) + e m
struct simpo {
  double beta = 2.0;
  double gamma = 0.5;
  double label_smoothing = 0.0;  ///< in [0, 1)
  double cpo_alpha = 0.0;        ///< weight of the next-token term

  static constexpr std::string_view name = "simpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<simpo>, 4> parameters{
      {{"beta", &simpo::beta},
       {"gamma", &simpo::gamma},
       {"label_smoothing", &simpo::label_smoothing},
       {"cpo_alpha", &simpo::cpo_alpha}}};

  static constexpr simpo halos() { return {.beta = 10, .gamma = 3}; }

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(gamma)) return "gamma must not be negative (0 to 1e30)";
    if (!(label_smoothing >= 0 && label_smoothing < 1)) return "label_smoothing must lie in [0, 1)";
    if (!detail::not_negative(cpo_alpha)) return "cpo_alpha must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = cpo_alpha, .chosen = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return smoothed(beta * p.mean_policy_margin() - gamma, label_smoothing);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
