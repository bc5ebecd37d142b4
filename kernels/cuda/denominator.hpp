// What the C API divides by on a device.
#pragma once

#include "../boundary.hpp"

#include <prospect/cuda/batch.hpp>

namespace prospect::kernels {

inline cuda::denominator denominator_of(std::int32_t kind, double count, const double* count_at) {
  switch (kind) {
    case PROSPECT_MEAN:
      return normaliser::mean();
    case PROSPECT_SUM:
      return normaliser::sum();
    case PROSPECT_OVER:
      if (!(count > 0)) fail(PROSPECT_INVALID_ARGUMENT, "count must be positive");
      return normaliser::over(count);
    case PROSPECT_OVER_AT:
      return cuda::denominator::over(&require(count_at, "count_at"));
    default:
      fail(PROSPECT_UNSUPPORTED, "normaliser is unknown");
  }
}

}  // namespace prospect::kernels
