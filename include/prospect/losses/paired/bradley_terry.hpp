// The reward model: two scores, of which the first is to be higher.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// Bradley-Terry (Bradley and Terry 1952; Ouyang et al. 2022, arXiv:2203.02155, eq. 1), with the
/// centring of Eisenstein et al. (2023, arXiv:2312.09244). The rows of the policy hold the two
/// scores, and margins are in their units.
///
///   loss = softplus(-(chosen - rejected - margin)) + center (chosen + rejected)^2
struct bradley_terry {
  double center = 0.0;

  static constexpr std::string_view name = "bradley_terry";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<bradley_terry>, 1> parameters{
      {{"center", &bradley_terry::center}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(center)) return "center must not be negative (0 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const pair<T>& p) const {
    return softplus(-p.policy_margin()) + term(center, square(p.chosen.policy + p.rejected.policy));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
