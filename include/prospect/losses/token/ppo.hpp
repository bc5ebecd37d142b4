// Proximal policy optimisation: the policy's term.
#pragma once

#include <prospect/losses/concepts.hpp>
#include <prospect/losses/parts/ratio_clip.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// PPO (Schulman et al. 2017, arXiv:1707.06347, eq. 7), averaged over tokens.
///
///   loss = -min(A r, A clip(r, 1 - cliprange, 1 + cliprange)),  r = pi / pi_old
///
/// A positive `dual_clip` c bounds the loss by -c A where A < 0 (Ye et al. 2020, arXiv:1912.09729,
/// eq. 5). The value's term is `clipped_value`.
struct ppo {
  double cliprange = 0.2;
  double dual_clip = 0;  ///< above 1, or 0: none

  static constexpr std::string_view name = "ppo";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<ppo>, 2> parameters{
      {{"cliprange", &ppo::cliprange}, {"dual_clip", &ppo::dual_clip}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!(cliprange >= 0 && cliprange <= 1)) return "cliprange must lie in [0, 1]";
    if (!(dual_clip == 0 || (dual_clip > 1 && dual_clip <= 1e30))) {
      return "dual_clip must be above 1 (to 1e30), or 0 for none";
    }
    return nullptr;
  }

  template <class T, class E = token_exponentials>
  PROSPECT_HD constexpr T operator()(const token<T>& t, const E& exponentials = {}) const {
    return clipped_surrogate(t.log_ratio(), exponentials.ratio(value_of(t.log_ratio())),
                             t.advantage,
                             {.low = 1 - cliprange, .high = 1 + cliprange, .most = dual_clip});
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
