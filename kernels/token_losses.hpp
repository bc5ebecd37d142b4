// Batches of tokens as the C API has them, as batches of the library; for the host and for the
// device.
#pragma once

#include "sequences.hpp"
#include "tokens.hpp"

#include <prospect/token_batch.hpp>

namespace prospect::kernels {

inline token_batch batch_of(const prospect_token_batch& b) {
  return {.policy = read_row("policy", b.policy),
          .old = read_row("old_policy", b.old_policy),
          .reference = read_row("reference", b.reference),
          .advantage = read_row("advantage", b.advantage),
          .token_advantage = read_row("token_advantage", b.token_advantage),
          .weight = read_row("weight", b.weight),
          .entropy = read_row("entropy", b.entropy),
          .targets = indices("targets", b.targets),
          .mask = mask("mask", b.mask),
          .layout = layout_of(b.layout),
          .entropy_coef = b.entropy_coef};
}
inline token_batch_outputs outputs_of(const prospect_token_batch& b) {
  return {.loss = write_row("loss", b.loss),
          .d_policy = write_row("d_policy", b.d_policy),
          .d_entropy = write_row("d_entropy", b.d_entropy)};
}

}  // namespace prospect::kernels
