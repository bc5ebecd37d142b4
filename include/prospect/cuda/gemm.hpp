// The matrix product that the head path on CUDA is built on: cuBLASLt's (gemm_cublaslt.hpp), or
// whatever else is callable in the same way.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>

#include <cuda_runtime_api.h>

#include <concepts>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// One side of a product on the device: a row-major matrix, or its transpose.
template <storage S>
struct gemm_operand {
  matrix_view<const S> matrix;
  bool transposed = false;

  constexpr std::int64_t rows() const { return transposed ? matrix.columns : matrix.rows; }
  constexpr std::int64_t columns() const { return transposed ? matrix.rows : matrix.columns; }
};

/// Which size of a product is a number of tokens, and may differ from call to call.
enum class gemm_tokens { rows, inner };

/// c = alpha a b + beta c + bias, all on the device, in fp32 sums whatever the operands are stored
/// in.
template <storage S>
struct gemm_product {
  gemm_operand<S> a, b;
  matrix_view<float> c;
  const float* alpha;           ///< one number on the device
  const float* beta;            ///< the same, 0 or 1; c is not read where it is 0
  const float* bias = nullptr;  ///< [columns of c], added to every row; nullptr: none
  gemm_tokens tokens = gemm_tokens::rows;
};

/// `multiply(product, stream)` puts a product on a stream and returns without waiting: nothing is
/// allocated on the device, and the call can be captured in a graph.
///
/// An element of c must be the same bits whatever the other rows of the product are and however
/// many there are, where the number of tokens is the rows': what makes log-probs independent of the
/// memory they are computed in. So an algorithm is chosen from all other sizes and types, and does
/// not divide the inner size over blocks.
template <class G, class S>
concept gemm = requires(const G& multiply, const gemm_product<S>& product, cudaStream_t stream) {
  { multiply(product, stream) } -> std::same_as<cudaError_t>;
};

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
