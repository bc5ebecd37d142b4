// The sequence kernel for the losses that have one of their own, and rows of the storage type that
// this file is compiled for; PROSPECT_STORAGE names it.
#include "launchers.hpp"

#include <prospect/cuda/sequences.cuh>

namespace prospect::kernels {

template <storage S>
cudaError_t sequence_launchers<S>::pairs(const dpo& loss, const paired_batch<S>& in,
                                         const paired_outputs<S>& out, const cuda::denominator& by,
                                         paired_metrics* metrics, cuda::scratch space,
                                         cudaStream_t stream) {
  return cuda::evaluate(loss, in, out, by, metrics, space, stream);
}

template <storage S>
cudaError_t sequence_launchers<S>::completions(const kto& loss, const unpaired_batch<S>& in,
                                               const cuda::detail::point_source<S>& point,
                                               const unpaired_outputs<S>& out,
                                               const cuda::denominator& by,
                                               unpaired_metrics* metrics, cuda::scratch space,
                                               cudaStream_t stream) {
  return cuda::evaluate(loss, in, point, out, by, metrics, space, stream);
}

template struct sequence_launchers<PROSPECT_STORAGE>;

}  // namespace prospect::kernels
