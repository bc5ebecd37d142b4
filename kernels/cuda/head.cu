// The head path for the storage type of hidden states that this file is compiled for;
// PROSPECT_STORAGE names it.
#include "head_launchers.hpp"

#include <prospect/cuda/head.cuh>

namespace prospect::kernels {

template <storage S>
cudaError_t head_launchers<S>::log_probs(const cuda::head_rows<S>& rows,
                                         const token_outputs<float>& out,
                                         const callers_gemm& multiply, cuda::scratch space,
                                         cudaStream_t stream, cuda::head_ticket* keep) {
  return cuda::head_log_probs<S>(rows, out, multiply, space, stream, keep);
}

template <storage S>
cudaError_t head_launchers<S>::log_probs_and_gradient(const cuda::head_rows<S>& rows,
                                                      const token_outputs<float>& out,
                                                      const matrix_view<S>& d_hidden,
                                                      const callers_gemm& multiply,
                                                      cuda::scratch space, cudaStream_t stream) {
  return cuda::head_log_probs_and_gradient<S>(rows, out, d_hidden, multiply, space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::partials(const cuda::head_rows<S>& rows,
                                        strided_span<vocabulary_partial> out, bool statistics,
                                        const callers_gemm& multiply, cuda::scratch space,
                                        cudaStream_t stream) {
  return cuda::head_vocabulary_partials<S>(rows, out, statistics, multiply, space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::gradient(const cuda::head_rows<S>& rows,
                                        const coefficients_of<float>& by,
                                        const head_gradients<S>& gradients,
                                        cuda::head_ticket ticket, const callers_gemm& multiply,
                                        cuda::scratch space, cudaStream_t stream) {
  return by.one ? cuda::head_gradient<S>(rows, by.log_prob, by.lse, by.d_token, gradients, ticket,
                                         multiply, space, stream)
                : cuda::head_gradient<S>(rows, by.log_prob, by.lse, by.rows, gradients, multiply,
                                         space, stream);
}

template <storage S>
cudaError_t head_launchers<S>::step(const cuda::head_rows<S>& rows, const sequence_layout& layout,
                                    std::int64_t at_a_time, const token_outputs<float>& out,
                                    const callers_ready& ready, const coefficients_of<float>& by,
                                    const head_gradients<S>& gradients,
                                    const callers_gemm& multiply, cuda::scratch space,
                                    cudaStream_t stream) {
  return by.one ? cuda::head_step<S>(rows, layout, at_a_time, out, ready, by.d_token, gradients,
                                     multiply, space, stream)
                : cuda::head_step<S>(rows, layout, at_a_time, out, ready, by.rows, gradients,
                                     multiply, space, stream);
}

template struct head_launchers<PROSPECT_STORAGE>;

}  // namespace prospect::kernels
