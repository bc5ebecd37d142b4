// Alignment by optimal transport on CUDA: the twins of cpu/aot.hpp. What they write is a margin, or
// which sequences are pairs, for `evaluate` on the same stream.
#pragma once

#include <prospect/cuda/aot_checks.hpp>
#include <prospect/cuda/detail/aot_kernels.cuh>
#include <prospect/cuda/scratch.hpp>

#include <cub/device/device_radix_sort.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

/// n differences of either side and where they came from, before and after they are sorted.
struct aot_space {
  aot_keys keys;
  double* left;
  double* right;
  std::int32_t* left_at;
  std::int32_t* right_at;
  std::byte* sorting;
  std::size_t sorting_size = 0;
  int n;

  static cudaError_t carve(aot_space& s, scratch& space, std::int64_t pairs) {
    const auto count = static_cast<std::size_t>(pairs);
    s.n = static_cast<int>(pairs);
    s.keys = {space.carve<double>(count), space.carve<double>(count),
              space.carve<std::int32_t>(count)};
    s.left = space.carve<double>(count);
    s.right = space.carve<double>(count);
    s.left_at = space.carve<std::int32_t>(count);
    s.right_at = space.carve<std::int32_t>(count);
    if (const cudaError_t e = s.sort(nullptr, s.keys.left, s.left, s.left_at, cudaStream_t{}))
      return e;
    s.sorting = space.carve<std::byte>(s.sorting_size);
    return space.suffices() && space.aligned() ? cudaSuccess : cudaErrorInvalidValue;
  }
  /// A radix sort keeps the order of equal keys, and takes -0 for 0.
  cudaError_t sort(std::byte* memory, const double* from, double* to, std::int32_t* to_at,
                   cudaStream_t stream) {
    return cub::DeviceRadixSort::SortPairs(memory, sorting_size, from, to, keys.at, to_at, n, 0, 64,
                                           stream);
  }
  cudaError_t sort_both(cudaStream_t stream) {
    if (const cudaError_t e = sort(sorting, keys.left, left, left_at, stream)) return e;
    return sort(sorting, keys.right, right, right_at, stream);
  }
  template <class... Parameters, class... Arguments>
  cudaError_t launch(void (*kernel)(Parameters...), cudaStream_t stream,
                     const Arguments&... arguments) const {
    return detail::launch(kernel, (std::int64_t{n} + aot_threads - 1) / aot_threads, aot_threads, 0,
                          1, stream, arguments...);
  }
};

/// With arguments that were checked.
static inline cudaError_t checked_aot_margins(const paired_batch<>& in, const any_row& margin,
                                              scratch space, cudaStream_t stream) {
  aot_space s{};
  if (const cudaError_t e = aot_space::carve(s, space, in.policy_chosen.size())) return e;
  if (space.counting() || s.n == 0) return cudaSuccess;
  if (const cudaError_t e = s.launch(&aot_differences_kernel, stream, in, s.keys)) return e;
  if (const cudaError_t e = s.sort_both(stream)) return e;
  return s.launch(&aot_margins_kernel, stream, in, s.left, s.right, s.left_at, margin);
}

}  // namespace detail

/// AOT for pairs: writes `margin`, as cpu::aot_margins does. Whatever rows point to lies on the
/// device; the call allocates nothing, waits for nothing, and can be captured in a graph.
/// @returns cudaErrorInvalidValue where `aot_problem` says why, or what a launch returned.
template <class Loss>
static cudaError_t aot_margins(const Loss& loss, const paired_batch<>& in, const any_row& margin,
                               scratch space, cudaStream_t stream) {
  if (aot_problem(loss, in, margin) != nullptr) return cudaErrorInvalidValue;
  return detail::checked_aot_margins(in, margin, space, stream);
}

/// AOT for unpaired completions: writes which sequences meet each other, as cpu::aot_pairs does.
/// The host cannot look at indices: a pair that names no sequence takes no part.
template <class Index>
static cudaError_t aot_pairs(const indexed_pairs& in, strided_span<Index> chosen,
                             strided_span<Index> rejected, scratch space, cudaStream_t stream) {
  if (aot_problem(in, chosen, rejected) != nullptr) return cudaErrorInvalidValue;
  detail::aot_space s{};
  if (const cudaError_t e = detail::aot_space::carve(s, space, in.chosen.size())) return e;
  if (space.counting() || s.n == 0) return cudaSuccess;
  if (const cudaError_t e = s.launch(&detail::aot_log_ratios_kernel, stream, in, s.keys)) return e;
  if (const cudaError_t e = s.sort_both(stream)) return e;
  return s.launch(&detail::aot_pairs_kernel<Index>, stream, in, s.left_at, s.right_at, chosen,
                  rejected);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
