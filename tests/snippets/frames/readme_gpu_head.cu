// frame of README.md, with gpu::head_log_probs<bfloat16>(rows
#include <cstdint>
#include <vector>

#include "gpu_frame.hpp"

namespace gpu = prospect::cuda;
using prospect::bfloat16;

/// A product of one thread for each element of c, in no hurry.
template <class S>
__global__ void multiply_kernel(gpu::gemm_product<S> p) {
  const std::int64_t i = blockIdx.x, j = threadIdx.x;
  const auto at = [](const gpu::gemm_operand<S>& m, std::int64_t row, std::int64_t column) {
    return prospect::load(m.transposed ? m.matrix.row(column)[row] : m.matrix.row(row)[column]);
  };
  const std::int64_t inner = p.a.transposed ? p.a.matrix.rows : p.a.matrix.columns;
  float sum = 0;
  for (std::int64_t k = 0; k < inner; ++k) sum += at(p.a, i, k) * at(p.b, k, j);
  float& c = p.c.row(i)[j];
  c = *p.alpha * sum + (*p.beta == 0 ? 0.0F : c) + (p.bias != nullptr ? p.bias[j] : 0.0F);
}
struct plain_gemm {
  template <class S>
  cudaError_t operator()(const gpu::gemm_product<S>& p, cudaStream_t stream) const {
    multiply_kernel<S>
        <<<static_cast<unsigned>(p.c.rows), static_cast<unsigned>(p.c.columns), 0, stream>>>(p);
    return cudaGetLastError();
  }
};

int main() {
  // Two tokens, hidden states of two numbers, and a vocabulary of four that all weigh the same.
  const auto ones = on_device(std::vector<bfloat16>(4, prospect::store<bfloat16>(1.0F)));
  const auto zeros = on_device(std::vector<bfloat16>(8));
  const prospect::matrix_view<const bfloat16> hidden{ones.data(), 2, 2}, weight{zeros.data(), 4, 2};
  const auto token_ids = on_device(std::vector<std::int32_t>{1, 2});
  const prospect::index_row targets{prospect::strided_span<const std::int32_t>{token_ids}};
  const std::int64_t scored_at_most = 2;
  const auto log_prob = on_device(std::vector<float>(2)),
             d_token = on_device(std::vector<float>{1, -0.5F});
  const auto lse = on_device(std::vector<double>(2));
  const prospect::matrix_view<bfloat16> d_hidden{on_device(std::vector<bfloat16>(4)).data(), 2, 2};
  const prospect::matrix_view<float> d_weight{on_device(std::vector<float>(8)).data(), 4, 2};
  const auto memory = on_device(std::vector<char>(1 << 20));
  const gpu::scratch space{memory.data(), static_cast<std::size_t>(memory.size())};
  const cudaStream_t stream = nullptr;
  const plain_gemm multiply;
  // here
  REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
  REQUIRE(frame::near(first_of(log_prob.data()), -std::log(4.0)));
  REQUIRE(kept.kept > 0);
  // The word that is nobody's target: -1/4 of both coefficients.
  REQUIRE(frame::near(first_of(d_weight.data), -0.25 * (1 - 0.5)));
}
