// The engine's pointers as Prospect's rows: the same for memory of the host and of a device.
#pragma once

#include "engine.hpp"

#include <prospect/batch.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/losses/unpaired/kto_zero.hpp>

// glue begin
using preference = prospect::kto_zero;

/// What it takes besides the engine's memory, allocated as the engine does it: coefficients of
/// tokens; log p of each sequence, the same by the weights that training started from,
/// coefficients.
template <template <class> class Array>
struct room {
  engine::shape s;
  Array<float> d_token{s.rows()};
  Array<double> policy{s.B}, reference{s.B}, d_policy{s.B};
};
template <template <class> class Array>
struct views {
  engine::buffers b;
  room<Array>& more;
  prospect::matrix_view<float> logits{b.logits, b.s.rows(), b.s.V, b.s.Vp};
  prospect::strided_span<const int> targets{b.targets, b.s.rows()};
  prospect::strided_span<float> log_prob{b.losses, b.s.rows()};  // the losses, while a step runs
  prospect::strided_span<float> d_token{more.d_token.data(), b.s.rows()};
  prospect::strided_span<double> policy{more.policy.data() + b.first, b.s.B};
  prospect::strided_span<double> d_policy{more.d_policy.data(), b.s.B};
  prospect::sequence_layout layout = prospect::sequence_layout::padded(b.s.B, b.s.T);
  prospect::unpaired_batch<double> batch{
      policy, {more.reference.data() + b.first, b.s.B}, {b.liked, b.s.B}};
};
// glue end
