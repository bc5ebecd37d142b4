// A batch of tokens as the C surface takes it.
#pragma once

#include <prospect/token_batch.hpp>

#include "c/surface.hpp"

namespace testing {

template <class Row>
prospect_row c_row_of(const Row& row) {
  prospect_row r = prospect_row_of(row.data(), row.size(), static_cast<prospect_dtype>(row.type()));
  r.stride = row.stride();
  return r;
}

/// The ranges of a case, or of its twin on a device.
template <class Case>
prospect_layout c_layout(Case& c) {
  auto layout = sized<prospect_layout>();
  layout.begins = c_row(c.begins);
  layout.ends = c_row(c.ends);
  return layout;
}
template <class Case>
prospect_token_batch c_token_batch(Case& c, const prospect_layout& layout) {
  const prospect::token_batch in = c.in();
  const prospect::token_batch_outputs out = c.out();
  auto b = sized<prospect_token_batch>();
  b.layout = &layout;
  if (c.targets.size() > 0) b.targets = c_row(c.targets);
  if (c.mask.size() > 0) b.mask = c_row(c.mask);
  b.entropy_coef = in.entropy_coef;
  b.policy = c_row_of(in.policy);
  b.old_policy = c_row_of(in.old);
  b.reference = c_row_of(in.reference);
  b.advantage = c_row_of(in.advantage);
  b.token_advantage = c_row_of(in.token_advantage);
  b.weight = c_row_of(in.weight);
  b.entropy = c_row_of(in.entropy);
  b.loss = c_row_of(out.loss);
  b.d_policy = c_row_of(out.d_policy);
  b.d_entropy = c_row_of(out.d_entropy);
  return b;
}

}  // namespace testing
