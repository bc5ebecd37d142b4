// Metrics of the library in the caller's array.
#pragma once

#include "boundary.hpp"

#include <prospect/batch.hpp>

namespace prospect::kernels {

/// Refuses, before any work, what metrics could not be written to.
inline void check_metrics(const prospect_metrics* metrics) {
  if (metrics == nullptr) return;
  const prospect_metrics given = versioned(metrics, "metrics");
  if (given.capacity < 0) fail(PROSPECT_INVALID_ARGUMENT, "metrics.capacity is negative");
  if (given.capacity > 0) require(given.metric, "metrics.metric");
}

/// Writes as many as there is room for; `check_metrics` has had its say.
template <class Metrics>
void fill(prospect_metrics* metrics, const Metrics& source) {
  if (metrics == nullptr) return;
  const auto named = source.named();
  metrics->size = 0;
  for (const named_metric& m : named) {
    if (metrics->size < metrics->capacity) {
      metrics->metric[metrics->size] = {
          .name = m.name.data(), .sum = m.value.sum, .count = m.value.count};
    }
    ++metrics->size;
  }
  metrics->total = source.total;
  metrics->first_nonfinite = source.first_nonfinite;
}

}  // namespace prospect::kernels
