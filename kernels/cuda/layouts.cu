// What depends on no logits: sums over sequences, coefficients spread over tokens, shifted labels
// and combined partials.
#include "launchers.hpp"

#include <prospect/cuda/tokens.cuh>

namespace prospect::kernels {

template <std::floating_point R>
cudaError_t layout_launchers<R>::sums(strided_span<const R> log_prob, index_row targets,
                                      const sequence_layout& layout, const sequence_outputs& out,
                                      cudaStream_t stream) {
  return cuda::sequence_sums<R>(log_prob, targets, layout, out, stream);
}

template <std::floating_point R>
cudaError_t layout_launchers<R>::spread(strided_span<const double> d_sequence, index_row targets,
                                        const sequence_layout& layout, strided_span<R> d_token,
                                        cudaStream_t stream) {
  return cuda::spread<R>(d_sequence, targets, layout, d_token, stream);
}

template struct layout_launchers<float>;
template struct layout_launchers<double>;

cudaError_t launch_combine(matrix_view<const vocabulary_partial> parts, index_row targets,
                           const token_outputs<float>& out, cudaStream_t stream) {
  return cuda::token_log_probs(parts, targets, out, stream);
}

cudaError_t launch_shift_targets(index_row labels, const sequence_layout& layout,
                                 strided_span<std::int32_t> targets, cudaStream_t stream) {
  return cuda::shift_targets(labels, layout, targets, stream);
}

}  // namespace prospect::kernels
