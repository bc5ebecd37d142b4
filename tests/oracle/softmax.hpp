// The textbook softmax over one row of logits: probabilities, the target's log-prob and its
// gradient.
//
// No maximum is subtracted: e^-11000 and e^11000 are ordinary long doubles, so |logits| up to 1e4
// need no care. The target's own term is kept apart so that 1 - p keeps its bits when p is near 1.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "scalar.hpp"

namespace oracle {

struct softmax_row {
  real log_prob, lse;
  std::vector<real> gradient;  // d log_prob / d logit: onehot - softmax
};

inline softmax_row softmax(const std::vector<real>& logits, std::int64_t target) {
  const auto y = static_cast<std::size_t>(target);
  real others = 0;
  for (std::size_t v = 0; v < logits.size(); ++v) {
    if (v != y) others += std::exp(logits[v]);
  }
  const real own = std::exp(logits[y]), total = own + others;

  softmax_row row;
  row.lse = std::log(total);
  row.log_prob = others < own ? -std::log1p(others / own) : std::log(own / total);
  row.gradient.resize(logits.size());
  for (std::size_t v = 0; v < logits.size(); ++v) {
    row.gradient[v] = v == y ? others / total : -std::exp(logits[v]) / total;
  }
  return row;
}

}  // namespace oracle
