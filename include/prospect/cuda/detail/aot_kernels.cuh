// The kernels in front of and behind the sorts of AOT. Keys are differences in fp64; one that takes
// no part is NaN, which a radix sort puts behind all numbers.
#pragma once

#include <prospect/cuda/detail/samples.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int aot_threads = 256;

/// What both sorts are given: differences side by side, and where they came from.
struct aot_keys {
  double* left;
  double* right;
  std::int32_t* at;

  __device__ void set(std::int64_t i, bool counted, double a, double b) const {
    const bool part = counted && is_finite(a) && is_finite(b);
    left[i] = part ? a : no_number<double>;
    right[i] = part ? b : no_number<double>;
    at[i] = static_cast<std::int32_t>(i);
  }
};

__device__ inline std::int64_t aot_row() {
  return std::int64_t{blockIdx.x} * aot_threads + threadIdx.x;
}
__device__ inline double aot_difference(const const_any_row& a, const const_any_row& b,
                                        std::int64_t i, std::int64_t k) {
  return read_as<double>(a, i) - read_as<double>(b, k);
}

static __global__ void __launch_bounds__(aot_threads)
    aot_differences_kernel(paired_batch<> in, aot_keys keys) {
  const std::int64_t i = aot_row();
  if (i >= in.policy_chosen.size()) return;
  const bool counted = read_or(in.chosen_tokens, i, 1) > 0 && read_or(in.rejected_tokens, i, 1) > 0;
  keys.set(i, counted, aot_difference(in.policy_chosen, in.policy_rejected, i, i),
           aot_difference(in.reference_chosen, in.reference_rejected, i, i));
}

/// Of sorted differences of the policy, which stood `at`, and of the reference.
static __global__ void __launch_bounds__(aot_threads)
    aot_margins_kernel(paired_batch<> in, const double* left, const double* right,
                       const std::int32_t* at, any_row margin) {
  const std::int64_t k = aot_row();
  if (k >= in.policy_chosen.size()) return;
  const std::int64_t i = at[k];
  const double own = aot_difference(in.reference_chosen, in.reference_rejected, i, i);
  put(margin, i, is_finite(left[k]) ? right[k] - own : 0.0);
}

static __global__ void __launch_bounds__(aot_threads)
    aot_log_ratios_kernel(indexed_pairs in, aot_keys keys) {
  const std::int64_t i = aot_row();
  if (i >= in.chosen.size()) return;
  const std::int64_t up = in.chosen[i], down = in.rejected[i], sequences = in.policy.size();
  const bool inside = up >= 0 && up < sequences && down >= 0 && down < sequences;
  const bool counted = inside && read_or(in.tokens, up, 1) > 0 && read_or(in.tokens, down, 1) > 0;
  keys.set(i, counted, inside ? aot_difference(in.policy, in.reference, up, up) : 0,
           inside ? aot_difference(in.policy, in.reference, down, down) : 0);
}

template <class Index>
static __global__ void __launch_bounds__(aot_threads)
    aot_pairs_kernel(indexed_pairs in, const std::int32_t* left_at, const std::int32_t* right_at,
                     strided_span<Index> chosen, strided_span<Index> rejected) {
  const std::int64_t k = aot_row();
  if (k >= in.chosen.size()) return;
  chosen[k] = static_cast<Index>(in.chosen[left_at[k]]);
  rejected[k] = static_cast<Index>(in.rejected[right_at[k]]);
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
