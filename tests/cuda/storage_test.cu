// CUDA's own 16-bit types as rows and matrices of ours, without a cast, on the host and on the
// device: same bits, same numbers.

#include <prospect/any_row.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "cuda/device.hpp"

namespace {

using prospect::bfloat16;
using prospect::float16;
using prospect::strided_span;
using testing::device_array;

template <class S>
__global__ void twice(strided_span<const S> in, strided_span<S> out, strided_span<float> wide) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= in.size()) return;
  wide[i] = prospect::load(in[i]);
  out[i] = prospect::store<S>(2 * prospect::load(in[i]));
}

/// A kernel that makes rows of ours from CUDA's pointers.
template <class T>
__global__ void views(T* data, int n, float* sum) {
  const prospect::matrix_view<const prospect::storage_of_t<T>> matrix{data, 1, n};
  const prospect::const_any_row row{static_cast<const T*>(data), n};
  if (threadIdx.x > 0) return;
  *sum = 0;
  for (int i = 0; i < n; ++i) *sum += prospect::load(matrix.row(0)[i]) + row.get<float>(i);
}

}  // namespace

TEMPLATE_TEST_CASE("CUDA's 16-bit types are storage", "", __half, __nv_bfloat16) {
  using S = prospect::storage_of_t<TestType>;
  static_assert(std::is_same_v<prospect::storage_of_t<__half>, float16>);
  static_assert(std::is_same_v<prospect::storage_of_t<__nv_bfloat16>, bfloat16>);

  std::vector<TestType> host;
  for (const float x : {1.0F, -2.5F, 0.0F, 96.0F, -0.0078125F}) host.push_back(TestType(x));
  const strided_span<const S> seen = host;
  REQUIRE(seen.size() == 5);
  for (std::size_t i = 0; i < host.size(); ++i) {
    CHECK(prospect::load(seen[static_cast<std::int64_t>(i)]) == static_cast<float>(host[i]));
  }
  strided_span<S>{host}[2] = prospect::store<S>(7.0F);
  CHECK(static_cast<float>(host[2]) == 7);
  CHECK(prospect::const_any_row{host}.get<double>(1) == -2.5);

  const device_array<TestType> in(host);
  const device_array<TestType> out(host.size());
  const device_array<float> wide(host.size());
  twice<S><<<1, 32>>>(in.row(), out.row(), wide.row());
  testing::synchronise();
  const auto results = out.host();
  const auto widened = wide.host();
  float sum = 0;
  for (std::size_t i = 0; i < host.size(); ++i) {
    CHECK(widened[i] == static_cast<float>(host[i]));
    CHECK(static_cast<float>(results[i]) == 2 * static_cast<float>(host[i]));
    sum += 2 * static_cast<float>(host[i]);
  }
  const device_array<float> total(1);
  views<<<1, 32>>>(in.data(), static_cast<int>(host.size()), total.data());
  testing::synchronise();
  CHECK(total.host()[0] == sum);
}
