// KTO's class weights from the class counts, by the rule of the paper.
#pragma once

#include <prospect/core/error.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/core/strict.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

struct class_weights {
  double desirable = 1;
  double undesirable = 1;
};

/// The published upper bounds on desirable_weight n_desirable / (undesirable_weight n_undesirable),
/// whose lower bound is 1.
enum class weight_bound {
  four_thirds,   ///< first version of arXiv:2402.01306, TRL's warning
  three_halves,  ///< later versions
};

PROSPECT_INLINE constexpr double bound_ratio(weight_bound bound) noexcept {
  return bound == weight_bound::four_thirds ? 4.0 / 3.0 : 3.0 / 2.0;
}

/// The ends of the recommended interval, and where in it the counts stand without weights.
struct weight_proposal {
  class_weights low;            ///< both classes weigh the same
  class_weights high;           ///< desirable completions weigh as much more as the bound allows
  double unweighted_ratio = 1;  ///< n_desirable / n_undesirable
  double bound = 1.5;
  /// Whether weights of 1 already satisfy the rule.
  PROSPECT_INLINE constexpr bool balanced() const noexcept {
    return unweighted_ratio >= 1 && unweighted_ratio <= bound;
  }
};

/// Proposes weights for KTO (Ethayarajh et al. 2024, arXiv:2402.01306): the larger class keeps
/// weight 1, the smaller one is raised.
/// @throws std::invalid_argument if a count is not positive, because a class that is absent cannot
///         be weighted back, or if one is more than 1e30 times the other.
PROSPECT_INLINE weight_proposal propose_class_weights(
    double n_desirable, double n_undesirable, weight_bound bound = weight_bound::three_halves) {
  if (!(n_desirable > 0) || !detail::is_finite(n_desirable)) {
    detail::refuse("prospect: propose_class_weights: n_desirable must be positive");
  }
  if (!(n_undesirable > 0) || !detail::is_finite(n_undesirable)) {
    detail::refuse("prospect: propose_class_weights: n_undesirable must be positive");
  }
  const detail::default_float_mode mode;
  detail::settle(n_desirable);
  detail::settle(n_undesirable);
  const double ratio = n_desirable / n_undesirable;
  if (!(ratio >= 1e-30 && ratio <= 1e30)) {
    detail::refuse(
        "prospect: propose_class_weights: n_desirable and n_undesirable are too far apart");
  }
  // For a target r the two weights must satisfy desirable / undesirable = r / ratio; neither falls
  // below 1.
  const auto weights_for = [ratio](double target) {
    const double quotient = target / ratio;
    return quotient >= 1 ? class_weights{.desirable = quotient, .undesirable = 1}
                         : class_weights{.desirable = 1, .undesirable = 1 / quotient};
  };
  weight_proposal proposal{.low = weights_for(1.0),
                           .high = weights_for(bound_ratio(bound)),
                           .unweighted_ratio = ratio,
                           .bound = bound_ratio(bound)};
  detail::settle(proposal);
  return proposal;
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
