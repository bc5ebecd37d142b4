// The engine's pointers as Prospect's rows: the same for memory of the host and of a device.
#pragma once

#include "engine.hpp"

#include <prospect/batch.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/losses/unpaired/kto_zero.hpp>

// glue begin
struct views {
  engine::shape s;
  engine::buffers b;
  prospect::matrix_view<float> logits{b.logits, s.rows(), s.V, s.Vp};
  prospect::strided_span<const int> targets{b.targets, s.rows()};
  prospect::strided_span<float> log_prob{b.losses, s.rows()};  // the losses, while a step runs
  prospect::strided_span<float> d_token{b.d_token, s.rows()};
  prospect::strided_span<double> policy{b.policy, s.B};
  prospect::strided_span<double> d_policy{b.d_policy, s.B};
  prospect::sequence_layout layout = prospect::sequence_layout::padded(s.B, s.T);
  prospect::unpaired_batch<double> batch{
      .policy = policy, .reference = {b.reference, s.B}, .desirable = {b.liked, s.B}};
};
// glue end
