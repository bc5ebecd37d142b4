// The kernels over logits for the storage type that this file is compiled for; PROSPECT_STORAGE
// names it.
#include "launchers.hpp"

#include <prospect/cuda/tokens.cuh>

namespace prospect::kernels {

template <storage S>
cudaError_t token_launchers<S>::log_probs(matrix_view<const S> logits, index_row targets,
                                          const token_outputs<float>& out,
                                          const token_options& options, cuda::scratch space,
                                          cudaStream_t stream) {
  return cuda::token_log_probs<S>(logits, targets, out, options, space, stream);
}

template <storage S>
cudaError_t token_launchers<S>::log_probs_and_gradient(matrix_view<const S> logits,
                                                       matrix_view<S> gradient, index_row targets,
                                                       const token_outputs<float>& out,
                                                       const token_options& options,
                                                       cudaStream_t stream) {
  return cuda::detail::deferred_rows<S, S>(logits, gradient, targets, out, options, stream);
}

template <storage S>
cudaError_t token_launchers<S>::gradient(matrix_view<const S> logits, matrix_view<S> gradient,
                                         index_row targets, strided_span<const float> log_prob,
                                         strided_span<const double> lse,
                                         strided_span<const float> d_token,
                                         const token_options& options, cudaStream_t stream) {
  return cuda::logits_gradient<S>(logits, gradient, targets, log_prob, lse, d_token, options,
                                  stream);
}

template <storage S>
cudaError_t token_launchers<S>::gradient_of_two(matrix_view<const S> logits,
                                                matrix_view<S> gradient, index_row targets,
                                                strided_span<const float> log_prob,
                                                strided_span<const double> lse,
                                                const token_coefficients<float>& coefficients,
                                                const token_options& options, cudaStream_t stream) {
  return cuda::logits_gradient<S>(logits, gradient, targets, log_prob, lse, coefficients, options,
                                  stream);
}

template <storage S>
cudaError_t token_launchers<S>::scale_rows(matrix_view<S> matrix, strided_span<const float> factors,
                                           cudaStream_t stream) {
  return cuda::scale_rows<S>(matrix, factors, stream);
}

template <storage S>
cudaError_t token_launchers<S>::partials(matrix_view<const S> logits, index_row targets,
                                         strided_span<vocabulary_partial> out,
                                         const token_options& options, bool statistics,
                                         cuda::scratch space, cudaStream_t stream) {
  return cuda::vocabulary_partials<S>(logits, targets, out, options, statistics, space, stream);
}

template struct token_launchers<PROSPECT_STORAGE>;

}  // namespace prospect::kernels
