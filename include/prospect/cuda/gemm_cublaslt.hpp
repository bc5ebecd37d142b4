// cuBLASLt's matrix product for the head path. Whoever includes this links CUDA::cublasLt.
#pragma once

#include <prospect/cuda/gemm.hpp>

#include <cublasLt.h>

#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

template <storage S>
inline constexpr cudaDataType_t cublas_type = std::is_same_v<S, bfloat16>  ? CUDA_R_16BF
                                              : std::is_same_v<S, float16> ? CUDA_R_16F
                                                                           : CUDA_R_32F;

static inline cudaError_t error_of(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return cudaSuccess;
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return cudaErrorInitializationError;
    case CUBLAS_STATUS_ALLOC_FAILED:
      return cudaErrorMemoryAllocation;
    case CUBLAS_STATUS_INVALID_VALUE:
      return cudaErrorInvalidValue;
    case CUBLAS_STATUS_ARCH_MISMATCH:
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return cudaErrorNotSupported;
    default:
      return cudaErrorUnknown;
  }
}

/// A description that cuBLASLt makes and unmakes.
template <class Handle, auto destroy>
struct cublas_destroyer {
  using pointer = Handle;
  void operator()(Handle handle) const noexcept { destroy(handle); }
};
using matmul_description =
    std::unique_ptr<cublasLtMatmulDescOpaque_t,
                    cublas_destroyer<cublasLtMatmulDesc_t, &cublasLtMatmulDescDestroy>>;
using matrix_description =
    std::unique_ptr<cublasLtMatrixLayoutOpaque_t,
                    cublas_destroyer<cublasLtMatrixLayout_t, &cublasLtMatrixLayoutDestroy>>;
using matmul_preference =
    std::unique_ptr<cublasLtMatmulPreferenceOpaque_t,
                    cublas_destroyer<cublasLtMatmulPreference_t, &cublasLtMatmulPreferenceDestroy>>;

}  // namespace detail

/// Keeps the algorithms it was told of, one for each kind of product: the first call of a kind asks
/// cuBLASLt, on the host. One call at a time.
///
/// Algorithms are those for `usual_tokens` tokens, whatever their number is, and none that sums
/// over several blocks, so that a row of a product is the same bits in every chunk, on one kind of
/// device and one version of cuBLASLt.
class gemm_cublaslt {
 public:
  /// @param workspace device memory of `bytes` bytes, 256-byte aligned, for one stream at a time;
  /// 32
  ///        MiB suit Hopper. May be none.
  /// @param fp32 how products of fp32 operands are computed: CUBLAS_COMPUTE_32F_FAST_TF32 is
  /// faster,
  ///        to 10 bits.
  gemm_cublaslt(cublasLtHandle_t handle, void* workspace, std::size_t bytes,
                cublasComputeType_t fp32 = CUBLAS_COMPUTE_32F)
      : handle_{handle}, workspace_{workspace}, bytes_{bytes}, fp32_{fp32} {}

  static constexpr std::int64_t usual_tokens = 4096;

  template <storage S>
  cudaError_t operator()(const gemm_product<S>& p, cudaStream_t stream) const {
    const key wanted = key_of(p);
    description d;
    if (const cublasStatus_t e = describe(p, p.c.rows, p.a.columns(), d)) {
      return detail::error_of(e);
    }
    const cublasLtMatmulAlgo_t* algorithm = nullptr;
    for (const auto& [kind, found] : known_) {
      if (kind == wanted) algorithm = &found;
    }
    if (algorithm == nullptr) {
      cublasLtMatmulAlgo_t found;
      if (const cublasStatus_t e = ask(p, found)) return detail::error_of(e);
      algorithm = &known_.emplace_back(wanted, found).second;
    }
    // Row-major matrices are cuBLAS's transposed: c^T = b^T a^T.
    return detail::error_of(cublasLtMatmul(handle_, d.product.get(), p.alpha, p.b.matrix.data,
                                           d.left.get(), p.a.matrix.data, d.right.get(), p.beta,
                                           p.c.data, d.sum.get(), p.c.data, d.sum.get(), algorithm,
                                           workspace_, bytes_, stream));
  }

 private:
  /// What an algorithm depends on: everything but the number of tokens and where the matrices lie.
  struct key {
    cudaDataType_t type;
    bool a_transposed, b_transposed, has_bias;
    gemm_tokens tokens;
    std::int64_t rows, columns, inner;
    std::int64_t a_alignment, b_alignment, c_alignment;

    bool operator==(const key&) const = default;
  };
  struct description {
    detail::matmul_description product;
    detail::matrix_description left, right, sum;
  };

  /// Bytes, up to 16, that all rows of a matrix begin at a multiple of.
  template <class T>
  static std::int64_t alignment(const matrix_view<T>& m) {
    const auto bits = reinterpret_cast<std::uintptr_t>(m.data) |
                      static_cast<std::uintptr_t>(m.pitch) * sizeof(T) | 16U;
    return static_cast<std::int64_t>(bits & (~bits + 1));
  }

  template <storage S>
  static key key_of(const gemm_product<S>& p) {
    const bool inner = p.tokens == gemm_tokens::inner;
    return {.type = detail::cublas_type<S>,
            .a_transposed = p.a.transposed,
            .b_transposed = p.b.transposed,
            .has_bias = p.bias != nullptr,
            .tokens = p.tokens,
            .rows = inner ? p.c.rows : usual_tokens,
            .columns = p.c.columns,
            .inner = inner ? usual_tokens : p.a.columns(),
            .a_alignment = alignment(p.a.matrix),
            .b_alignment = alignment(p.b.matrix),
            .c_alignment = alignment(p.c)};
  }

  template <class T>
  static cublasStatus_t set(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t what,
                            const T& value) {
    return cublasLtMatmulDescSetAttribute(d, what, &value, sizeof value);
  }
  template <class T>
  static cublasStatus_t set(cublasLtMatmulPreference_t d, cublasLtMatmulPreferenceAttributes_t what,
                            const T& value) {
    return cublasLtMatmulPreferenceSetAttribute(d, what, &value, sizeof value);
  }
  /// Runs steps until one fails.
  template <class... Steps>
  static cublasStatus_t in_turn(const Steps&... steps) {
    cublasStatus_t e = CUBLAS_STATUS_SUCCESS;
    static_cast<void>((((e = steps()) == CUBLAS_STATUS_SUCCESS) && ...));
    return e;
  }
  static cublasStatus_t describe_matrix(detail::matrix_description& d, cudaDataType_t type,
                                        std::int64_t rows, std::int64_t columns,
                                        std::int64_t pitch) {
    cublasLtMatrixLayout_t made = nullptr;
    const cublasStatus_t e = cublasLtMatrixLayoutCreate(
        &made, type, static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns), pitch);
    d.reset(made);
    return e;
  }

  /// As if the product had so many rows, and so many terms in each sum.
  template <storage S>
  cublasStatus_t describe(const gemm_product<S>& p, std::int64_t rows, std::int64_t inner,
                          description& d) const {
    constexpr cudaDataType_t type = detail::cublas_type<S>;
    const auto matrix = [&](detail::matrix_description& m, const gemm_operand<S>& o,
                            std::int64_t outer, bool inner_is_row) {
      // Of the operand as it lies: which of its sizes is the inner one.
      const bool inner_columns = inner_is_row == o.transposed;
      const std::int64_t fast = inner_columns ? inner : outer;
      const std::int64_t slow = inner_columns ? outer : inner;
      return describe_matrix(m, type, fast, slow, o.matrix.pitch);
    };
    const auto operation = [](const gemm_operand<S>& o) {
      return o.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    };
    return in_turn(
        [&] {
          cublasLtMatmulDesc_t made = nullptr;
          const cublasStatus_t e = cublasLtMatmulDescCreate(
              &made, std::is_same_v<S, float> ? fp32_ : CUBLAS_COMPUTE_32F, CUDA_R_32F);
          d.product.reset(made);
          return e;
        },
        [&] { return set(d.product.get(), CUBLASLT_MATMUL_DESC_TRANSA, operation(p.b)); },
        [&] { return set(d.product.get(), CUBLASLT_MATMUL_DESC_TRANSB, operation(p.a)); },
        [&] {
          return set(d.product.get(), CUBLASLT_MATMUL_DESC_POINTER_MODE,
                     CUBLASLT_POINTER_MODE_DEVICE);
        },
        [&] {
          if (p.bias == nullptr) return CUBLAS_STATUS_SUCCESS;
          return in_turn(
              [&] {
                return set(d.product.get(), CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
              },
              [&] { return set(d.product.get(), CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, CUDA_R_32F); },
              [&] { return set(d.product.get(), CUBLASLT_MATMUL_DESC_BIAS_POINTER, p.bias); });
        },
        [&] { return matrix(d.left, p.b, p.c.columns, true); },
        [&] { return matrix(d.right, p.a, rows, false); },
        [&] { return describe_matrix(d.sum, CUDA_R_32F, p.c.columns, rows, p.c.pitch); });
  }

  template <storage S>
  cublasStatus_t ask(const gemm_product<S>& p, cublasLtMatmulAlgo_t& algorithm) const {
    const key k = key_of(p);
    description d;
    detail::matmul_preference preference;
    const auto at_least = [&](cublasLtMatmulPreferenceAttributes_t what, std::int64_t bytes) {
      return set(preference.get(), what, static_cast<std::uint32_t>(bytes));
    };
    return in_turn(
        [&] { return describe(p, k.rows, k.inner, d); },
        [&] {
          cublasLtMatmulPreference_t made = nullptr;
          const cublasStatus_t e = cublasLtMatmulPreferenceCreate(&made);
          preference.reset(made);
          return e;
        },
        [&] {
          return set(preference.get(), CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                     static_cast<std::uint64_t>(bytes_));
        },
        [&] {
          return set(preference.get(), CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                     static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE));
        },
        [&] { return at_least(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, k.b_alignment); },
        [&] { return at_least(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, k.a_alignment); },
        [&] { return at_least(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, k.c_alignment); },
        [&] { return at_least(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, k.c_alignment); },
        [&] {
          cublasLtMatmulHeuristicResult_t found{};
          int count = 0;
          const cublasStatus_t e = cublasLtMatmulAlgoGetHeuristic(
              handle_, d.product.get(), d.left.get(), d.right.get(), d.sum.get(), d.sum.get(),
              preference.get(), 1, &found, &count);
          algorithm = found.algo;
          return e == CUBLAS_STATUS_SUCCESS && count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : e;
        });
  }

  cublasLtHandle_t handle_;
  void* workspace_;
  std::size_t bytes_;
  cublasComputeType_t fp32_;
  mutable std::vector<std::pair<key, cublasLtMatmulAlgo_t>> known_;
};

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
