// The kernel for value estimates.
#include "launchers.hpp"

#include <prospect/cuda/values.cuh>

namespace prospect::kernels {

cudaError_t launch_values(const clipped_value& loss, const value_batch& in,
                          const value_outputs& out, const cuda::denominator& by,
                          value_metrics* metrics, cuda::scratch space, cudaStream_t stream) {
  return cuda::evaluate(loss, in, out, by, metrics, space, stream);
}

}  // namespace prospect::kernels
