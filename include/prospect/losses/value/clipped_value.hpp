// PPO's loss of a value head.
#pragma once

#include <prospect/losses/concepts.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The clipped value loss of PPO (Schulman et al. 2017, arXiv:1707.06347, as their code and TRL
/// have it): the value may move by `cliprange_value` from what it was before moving further is of
/// use.
///
///   v' = clamp(v, v_old - cliprange_value, v_old + cliprange_value)
///   loss = max((v - return)^2, (v' - return)^2) / 2
///
/// The clamp passes gradient 1 at its bounds; where the two squares are equal, the slope is that of
/// the first. A coefficient such as TRL's `vf_coef` is the host's: `normaliser::over(n / vf_coef)`.
struct clipped_value {
  double cliprange_value = 0.2;

  static constexpr std::string_view name = "clipped_value";
  static constexpr bool branch_free = true;

  PROSPECT_INLINE constexpr const char* problem() const {
    return detail::positive(cliprange_value) ? nullptr
                                             : "cliprange_value must be positive (1e-30 to 1e30)";
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const value_estimate<T>& e) const {
    using R = scalar_of_t<T>;
    const R range = R(cliprange_value);
    const T off = e.value - e.returns;
    const T held_off = clamp(e.value, e.old_value - range, e.old_value + range) - e.returns;
    return 0.5 * square(select(abs(off) < abs(held_off), held_off, off));
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
