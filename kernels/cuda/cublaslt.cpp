// cuBLASLt's product for the head path in C: a library beside the archive.
#include "context.hpp"

#include <prospect/c/cublaslt.h>
#include <prospect/cuda/gemm_cublaslt.hpp>

#include <cublasLt.h>

#include <cstddef>
#include <memory>

namespace pk = prospect::kernels;
namespace gpu = prospect::cuda;

namespace {

struct handle_destroyer {
  void operator()(cublasLtHandle_t handle) const noexcept { cublasLtDestroy(handle); }
};
using owned_handle = std::unique_ptr<cublasLtContext, handle_destroyer>;

}  // namespace

struct prospect_cublaslt {
  owned_handle own;  ///< if none was given
  gpu::gemm_cublaslt multiply;
};

namespace {

template <class S>
gpu::gemm_operand<S> operand(const char* name, const prospect_gemm_operand& o) {
  return {.matrix = pk::matrix<const S>(name, o.matrix), .transposed = o.transposed != 0};
}

prospect_status multiply(void* context, const prospect_gemm_product* product, CUstream_st* stream) {
  return pk::guard(nullptr, [&] {
    const prospect_gemm_product p = pk::versioned(product, "product");
    pk::with_device_storage("a", p.a.matrix.dtype, [&]<class S>(S) {
      pk::launched(static_cast<const prospect_cublaslt*>(context)->multiply(
          gpu::gemm_product<S>{.a = operand<S>("a", p.a),
                               .b = operand<S>("b", p.b),
                               .c = pk::matrix<float>("c", p.c),
                               .alpha = p.alpha,
                               .beta = p.beta,
                               .bias = p.bias,
                               .tokens = p.tokens == PROSPECT_GEMM_INNER ? gpu::gemm_tokens::inner
                                                                         : gpu::gemm_tokens::rows},
          stream));
    });
  });
}

}  // namespace

prospect_status prospect_cublaslt_create(cublasLtContext* handle, void* workspace, size_t bytes,
                                         int32_t tf32, prospect_cublaslt** created,
                                         prospect_error* error) {
  return pk::guard(error, [&] {
    auto& place = pk::require(created, "created");
    if (bytes > 0) pk::require(static_cast<std::byte*>(workspace), "workspace");
    owned_handle own;
    if (handle == nullptr) {
      pk::launched(gpu::detail::error_of(cublasLtCreate(&handle)));
      own.reset(handle);
    }
    const cublasComputeType_t fp32 = tf32 != 0 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    place = new prospect_cublaslt{std::move(own), {handle, workspace, bytes, fp32}};
  });
}

void prospect_cublaslt_destroy(prospect_cublaslt* cublaslt) { delete cublaslt; }

prospect_gemm prospect_cublaslt_gemm(prospect_cublaslt* cublaslt) { return {cublaslt, multiply}; }
