// A loss of the C API by name, with its hyper-parameters.
#pragma once

#include "call.hpp"

namespace prospect::python {

/// One of the built-in losses: what `prospect.Loss` holds.
struct loss {
  prospect_loss value{};
  prospect_kind kind = 0;
};

void add_losses(nb::module_& m);
void add_sequences(nb::module_& m);
void add_tokens(nb::module_& m);
void add_head(nb::module_& m);

}  // namespace prospect::python
