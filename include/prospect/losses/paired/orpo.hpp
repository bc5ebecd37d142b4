// Odds ratio preference optimisation: the odds term.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/along.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// ORPO's odds ratio (Hong et al. 2024, arXiv:2403.07691, eq. 7) over mean log-probabilities p per
/// token, times its weight beta. The negative log-likelihood that goes with it has a denominator of
/// its own, tokens: it is a term of a mixture.
///
///   logodds(p) = p - log(1 - exp(p)),  o = logodds(chosen) - logodds(rejected)
///   loss = beta softplus(-o)
struct orpo {
  double beta = 0.1;

  static constexpr std::string_view name = "orpo";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<orpo>, 1> parameters{{{"beta", &orpo::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
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

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
