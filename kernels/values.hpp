// Value estimates as the C API has them, for the host and for the device.
#pragma once

#include "sequences.hpp"

#include <prospect/losses/value/clipped_value.hpp>

namespace prospect::kernels {

inline clipped_value loss_of(const prospect_values& v) {
  check_reserved("values", v.reserved);
  return v.cliprange_value == 0 ? clipped_value{} : clipped_value{v.cliprange_value};
}
inline value_batch batch_of(const prospect_values& v) {
  return {.value = read_row("value", v.value),
          .old_value = read_row("old_value", v.old_value),
          .returns = read_row("returns", v.returns),
          .mask = mask("mask", v.mask)};
}
inline value_outputs outputs_of(const prospect_values& v) {
  return {.loss = write_row("loss", v.loss), .d_value = write_row("d_value", v.d_value)};
}

}  // namespace prospect::kernels
