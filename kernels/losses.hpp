// From a prospect_loss of the C API to a loss of the library.
#pragma once

#include "boundary.hpp"

#include <prospect/losses/losses.hpp>

namespace prospect::kernels {

/// Calls `visit(loss)` with the loss at this position of losses.def, at its defaults. False beyond
/// the end.
template <class Visitor>
bool with_loss(std::int32_t id, Visitor&& visit) {
  std::int32_t index = 0;
  bool found = false;
  for_each_loss([&](auto loss) {
    if (index++ != id) return;
    found = true;
    visit(loss);
  });
  return found;
}

/// The same with the caller's hyper-parameters filled in.
template <class Visitor>
void with_loss(const prospect_loss* pointer, Visitor&& visit) {
  const prospect_loss& given = require(pointer, "loss");
  if (given.struct_size != sizeof(prospect_loss)) {
    fail(PROSPECT_INVALID_ARGUMENT, "loss was not made by prospect_loss_init");
  }
  const bool found = with_loss(given.id, [&](auto loss) {
    static_assert(decltype(loss)::parameters.size() <= PROSPECT_MAX_PARAMETERS);
    std::size_t i = 0;
    for (const auto& p : loss.parameters) loss.*p.member = given.value[i++];
    visit(loss);
  });
  if (!found) fail(PROSPECT_INVALID_ARGUMENT, "loss was not made by prospect_loss_init");
}

}  // namespace prospect::kernels
