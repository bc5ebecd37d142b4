// Odds ratio preference optimisation.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>
#include <prospect/losses/parts/next_token.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// ORPO (Hong et al. 2024, arXiv:2403.07691, eq. 6 and 7): the odds ratio over mean
/// log-probabilities p per token, times its weight beta, and sft_weight times the negative
/// log-likelihood per token of the chosen completion. TRL counts the prompt in: give it as the
/// third completion of each pair. The paper and HALOs do not; HALOs' default is `halos()`.
///
///   logodds(p) = p - log(1 - exp(p)),  o = logodds(chosen) - logodds(rejected)
///   loss = beta softplus(-o) - sft_weight log pi(chosen) / tokens
struct orpo {
  double beta = 0.1;
  double sft_weight = 1.0;  ///< weight of the next-token term

  static constexpr std::string_view name = "orpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<orpo>, 2> parameters{
      {{"beta", &orpo::beta}, {"sft_weight", &orpo::sft_weight}}};

  static constexpr orpo halos() { return {.beta = 0.25}; }

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    if (!detail::not_negative(sft_weight)) return "sft_weight must not be negative (0 to 1e30)";
    return nullptr;
  }
  PROSPECT_HD constexpr next_token_term next_token() const {
    return {.weight = sft_weight, .chosen = true, .third = true};
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    // At p = 0 the odds are infinite, and of two that are there is no ratio. So near to it that
    // slope and weight of the odds, which cancel, are still numbers of their type.
    constexpr double almost = detail::in_fp32<scalar_of_t<T>> ? -1e-20 : -1e-30;
    const auto log_odds = [](const T& mean) {
      const T below = at_most(mean, almost);
      return below - log1mexp(below);
    };
    return beta * softplus(log_odds(p.rejected.mean_policy()) - log_odds(p.chosen.mean_policy()));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
