// The logistic loss of a margin, for labels that may be wrong.
#pragma once

#include <prospect/core/dual.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// -(1-e) log sigmoid(m) - e log sigmoid(-m): Mitchell's conservative form, where a label is wrong
/// with probability e.
template <class T>
PROSPECT_HD constexpr T smoothed(const T& margin, double label_smoothing) {
  return softplus(-margin) + term(label_smoothing, margin);
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
