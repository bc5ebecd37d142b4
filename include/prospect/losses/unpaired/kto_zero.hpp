// KTO against a reference point fixed at zero: no mismatched rows, no extra forward pass.
#pragma once

#include <prospect/losses/kto.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// KTO-zero (HALOs), also known as APO-zero unpaired (D'Oosterlinck et al. 2024, arXiv:2408.06266,
/// eq. 7, one term per completion): `kto` with z = 0, whatever z is given.
struct kto_zero {
  double beta = 0.1;
  double desirable_weight = 1.0;
  double undesirable_weight = 1.0;

  static constexpr std::string_view name = "kto_zero";
  static constexpr bool branch_free = true;
  static constexpr std::array<parameter<kto_zero>, 3> parameters{
      {{"beta", &kto_zero::beta},
       {"desirable_weight", &kto_zero::desirable_weight},
       {"undesirable_weight", &kto_zero::undesirable_weight}}};

  PROSPECT_INLINE constexpr kto as_kto() const {
    return {.beta = beta,
            .desirable_weight = desirable_weight,
            .undesirable_weight = undesirable_weight};
  }

  PROSPECT_INLINE constexpr const char* problem() const { return as_kto().problem(); }

  template <class T>
  PROSPECT_HD constexpr T operator()(const unpaired<T>& e) const {
    const kto with_z{beta, desirable_weight, undesirable_weight};
    return with_z(unpaired<T>{.answer = e.answer, .z = T(0), .desirable = e.desirable});
  }
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
