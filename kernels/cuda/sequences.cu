// The sequence kernel for every loss of losses.def and rows of the storage type that this file is
// compiled for; PROSPECT_STORAGE names it.
#include "launchers.hpp"

#include "../losses.hpp"

#include <prospect/cuda/sequences.cuh>

namespace prospect::kernels {

template <storage S>
cudaError_t sequence_launchers<S>::pairs(const prospect_loss& loss, const paired_batch<S>& in,
                                         const paired_outputs<S>& out, const cuda::denominator& by,
                                         paired_metrics* metrics, cuda::scratch space,
                                         cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  with_loss(&loss, [&](const auto& l) {
    if constexpr (paired_loss<std::remove_cvref_t<decltype(l)>>) {
      status = cuda::evaluate(l, in, out, by, metrics, space, stream);
    }
  });
  return status;
}

template <storage S>
cudaError_t sequence_launchers<S>::completions(const prospect_loss& loss,
                                               const unpaired_batch<S>& in,
                                               const cuda::detail::point_source<S>& point,
                                               const unpaired_outputs<S>& out,
                                               const cuda::denominator& by,
                                               unpaired_metrics* metrics, cuda::scratch space,
                                               cudaStream_t stream) {
  cudaError_t status = cudaErrorInvalidValue;
  with_loss(&loss, [&](const auto& l) {
    if constexpr (unpaired_loss<std::remove_cvref_t<decltype(l)>>) {
      status = cuda::evaluate(l, in, point, out, by, metrics, space, stream);
    }
  });
  return status;
}

template struct sequence_launchers<PROSPECT_STORAGE>;

}  // namespace prospect::kernels
