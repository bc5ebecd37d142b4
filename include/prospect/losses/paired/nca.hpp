// Noise contrastive alignment of a pair.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// NCA for pairs (Chen et al. 2024, arXiv:2402.05369, eq. 13), TRL's `nca_pair`: absolute, so that
/// the likelihood of the chosen completion does not fall with that of the rejected one.
///
///   a, b = beta times the log-ratios
///   loss = softplus(-a) + softplus(a) / 2 + softplus(b) / 2,  in the chosen one least at a = log 2
struct nca {
  double beta = 0.1;

  static constexpr std::string_view name = "nca";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<nca>, 1> parameters{{{"beta", &nca::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::positive(beta)) return "beta must be positive (1e-30 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    const T chosen = beta * p.chosen.log_ratio();
    const T rejected = beta * p.rejected.log_ratio();
    return softplus(-chosen) + 0.5 * softplus(chosen) + 0.5 * softplus(rejected);
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
