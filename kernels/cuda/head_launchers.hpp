// What the archive's device code offers for the head path: launchers.hpp for the functions of
// prospect/cuda/head.cuh, whose products and callback are a caller's in C.
#pragma once

#include "../boundary.hpp"
#include "../tokens.hpp"

#include <prospect/cuda/gemm.hpp>
#include <prospect/cuda/head_checks.hpp>
#include <prospect/cuda/scratch.hpp>

#include <cuda_runtime_api.h>

namespace prospect::kernels {

/// A caller's matrix product.
struct callers_gemm {
  prospect_gemm theirs;

  template <storage S>
  cudaError_t operator()(const cuda::gemm_product<S>& p, cudaStream_t stream) const {
    prospect_gemm_product given{};
    given.struct_size = sizeof given;
    given.a = operand(p.a);
    given.b = operand(p.b);
    given.c = matrix_of(p.c);
    given.alpha = p.alpha;
    given.beta = p.beta;
    given.bias = p.bias;
    given.tokens = p.tokens == cuda::gemm_tokens::rows ? PROSPECT_GEMM_ROWS : PROSPECT_GEMM_INNER;
    const prospect_status status = theirs.multiply(theirs.context, &given, stream);
    if (status != PROSPECT_OK) {
      fail(status, "gemm.multiply answered " + std::to_string(status));
    }
    return cudaSuccess;
  }

 private:
  template <class T>
  static prospect_matrix matrix_of(const matrix_view<T>& m) {
    prospect_matrix c = prospect_matrix_of(
        m.data, m.rows, m.columns, static_cast<prospect_dtype>(dtype_of<std::remove_const_t<T>>));
    c.pitch = m.pitch;
    return c;
  }
  template <storage S>
  static prospect_gemm_operand operand(const cuda::gemm_operand<S>& o) {
    return {.matrix = matrix_of(o.matrix), .transposed = o.transposed ? 1 : 0, .reserved = 0};
  }
};

/// Who is told when the log-probs of a few sequences are on their way.
struct callers_ready {
  prospect_device_head_ready theirs;

  cudaError_t operator()(std::int64_t first, std::int64_t last, cudaStream_t stream) const {
    const prospect_status status = theirs.ready(theirs.context, first, last, stream);
    if (status == PROSPECT_OK) return cudaSuccess;
    fail(status, "ready answered " + std::to_string(status) + " for sequences " +
                     std::to_string(first) + " to " + std::to_string(last - 1));
  }
};

/// The head path for hidden states of one storage type. What a caller's function answers comes out
/// as a failure.
template <storage S>
struct head_launchers {
  static cudaError_t log_probs(const cuda::head_rows<S>& rows, const token_outputs<float>& out,
                               const callers_gemm& multiply, cuda::scratch space,
                               cudaStream_t stream, cuda::head_ticket* keep);
  static cudaError_t log_probs_and_gradient(const cuda::head_rows<S>& rows,
                                            const token_outputs<float>& out,
                                            const matrix_view<S>& d_hidden,
                                            const callers_gemm& multiply, cuda::scratch space,
                                            cudaStream_t stream);
  static cudaError_t partials(const cuda::head_rows<S>& rows, strided_span<vocabulary_partial> out,
                              bool statistics, const callers_gemm& multiply, cuda::scratch space,
                              cudaStream_t stream);
  static cudaError_t gradient(const cuda::head_rows<S>& rows, const coefficients_of<float>& by,
                              const head_gradients<S>& gradients, cuda::head_ticket ticket,
                              const callers_gemm& multiply, cuda::scratch space,
                              cudaStream_t stream);
  static cudaError_t step(const cuda::head_rows<S>& rows, const sequence_layout& layout,
                          std::int64_t at_a_time, const token_outputs<float>& out,
                          const callers_ready& ready, const coefficients_of<float>& by,
                          const head_gradients<S>& gradients, const callers_gemm& multiply,
                          cuda::scratch space, cudaStream_t stream);
};

}  // namespace prospect::kernels
