// Direct reward optimisation: a quadratic penalty instead of a clip.
#pragma once

#include <prospect/losses/concepts.hpp>

#include <array>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// DRO (Richemond et al. 2024, arXiv:2405.19107), by token, as verl and Tinker have it.
///
///   loss = -A log pi + beta / 2 (log pi - log pi_old)^2
struct dro {
  double beta = 0.05;

  static constexpr std::string_view name = "dro";
  static constexpr bool branch_free = true;
  static constexpr averaging average = averaging::tokens;
  static constexpr std::array<parameter<dro>, 1> parameters{{{"beta", &dro::beta}}};

  PROSPECT_INLINE constexpr const char* problem() const {
    if (!detail::not_negative(beta)) return "beta must not be negative (0 to 1e30)";
    return nullptr;
  }

  template <class T>
  PROSPECT_HD constexpr T operator()(const token<T>& t) const {
    return 0.5 * beta * square(t.log_ratio()) - t.advantage * t.policy;
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
