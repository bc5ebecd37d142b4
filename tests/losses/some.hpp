// A few built-in losses for what does not depend on the formula: one for each way through the loops
// of phase 2. What does is asked of every loss at a single example, or by name through the C API.
#pragma once

#include <prospect/losses/losses.hpp>

namespace testing {

/// Calls `visit(loss)` with a loss of sums, one of means per token, one with a kink and one of the
/// unpaired kind.
template <class Visitor>
void for_some_losses(Visitor&& visit) {
  visit(prospect::dpo{});
  visit(prospect::ipo{});
  visit(prospect::hinge{});
  visit(prospect::kto{});
}

}  // namespace testing
