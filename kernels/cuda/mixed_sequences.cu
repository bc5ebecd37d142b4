// The sequence kernel for any loss of losses.def and rows of any storage types, with arithmetic in
// the type that this file is compiled for; PROSPECT_ARITHMETIC names it.
#include "launchers.hpp"

#include <prospect/cuda/sequences.cuh>

namespace prospect::kernels {

template <std::floating_point R>
cudaError_t mixed_launchers<R>::pairs(const any_paired& loss, const paired_batch<>& in,
                                      const paired_outputs<>& out, const cuda::denominator& by,
                                      paired_metrics* metrics, cuda::scratch space,
                                      cudaStream_t stream) {
  return cuda::detail::evaluate_in<R>(loss, in, out, by, metrics, space, stream);
}

template <std::floating_point R>
cudaError_t mixed_launchers<R>::pairs(const any_paired& loss, const indexed_pairs& in,
                                      const indexed_outputs& out, const cuda::denominator& by,
                                      paired_metrics* metrics, cuda::scratch space,
                                      cudaStream_t stream) {
  return cuda::detail::evaluate_in<R>(loss, in, out, by, metrics, space, stream);
}

template <std::floating_point R>
cudaError_t mixed_launchers<R>::completions(const any_unpaired& loss, const unpaired_batch<>& in,
                                            const cuda::detail::point_source<mixed>& point,
                                            const unpaired_outputs<>& out,
                                            const cuda::denominator& by, unpaired_metrics* metrics,
                                            cuda::scratch space, cudaStream_t stream) {
  return cuda::detail::evaluate_in<R>(loss, in, point, out, by, metrics, space, stream);
}

template <std::floating_point R>
cudaError_t mixed_launchers<R>::mismatched_kl(const cuda::mismatched_batch<>& batch,
                                              cuda::scratch space, cudaStream_t stream) {
  return cuda::detail::mismatched_kl_in<R>(batch, space, stream);
}

template struct mixed_launchers<PROSPECT_ARITHMETIC>;

}  // namespace prospect::kernels
