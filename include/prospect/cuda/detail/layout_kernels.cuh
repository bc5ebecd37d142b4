// From tokens to sequences and back, a block for each sequence: sums in fp64 in a fixed order,
// coefficients spread over scored tokens, labels aligned with the rows that predict them.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/strided_span.hpp>
#include <prospect/cuda/detail/block_rows.cuh>
#include <prospect/tokens.hpp>

#include <cub/block/block_reduce.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int layout_threads = 256;

struct sum_of_tokens {
  double log_prob;
  std::int64_t tokens;
};
struct add_tokens {
  __device__ sum_of_tokens operator()(const sum_of_tokens& a, const sum_of_tokens& b) const {
    return {a.log_prob + b.log_prob, a.tokens + b.tokens};
  }
};

template <class R>
static __global__ void __launch_bounds__(layout_threads)
    sequence_sums_kernel(strided_span<const R> log_prob, prospect::detail::scored_targets targets,
                         sequence_layout layout, sequence_outputs out) {
  using reduce = cub::BlockReduce<sum_of_tokens, layout_threads>;
  __shared__ typename reduce::TempStorage memory;
  const std::int64_t i = blockIdx.x;
  sum_of_tokens mine{0, 0};
  block_rows{layout, i, targets.size()}.for_each_inside([&](std::int64_t t) {
    if (targets[t] == ignored_target) return;
    mine = {mine.log_prob + static_cast<double>(log_prob[t]), mine.tokens + 1};
  });
  const sum_of_tokens sum = reduce(memory).Reduce(mine, add_tokens{});
  if (threadIdx.x != 0) return;
  if (!out.log_prob.empty()) out.log_prob[i] = sum.log_prob;
  constexpr std::int64_t most = 0x7fffffff;
  if (!out.tokens.empty()) {
    out.tokens[i] = static_cast<std::int32_t>(sum.tokens < most ? sum.tokens : most);
  }
}

template <class R>
static __global__ void __launch_bounds__(layout_threads)
    spread_kernel(const_any_row d_sequence, prospect::detail::scored_targets targets,
                  sequence_layout layout, strided_span<R> d_token) {
  const std::int64_t i = blockIdx.x;
  const block_rows rows{layout, i, targets.size()};
  const R d = i < layout.sequences() ? d_sequence.get<R>(i) : R(0);
  rows.for_each_outside([&](std::int64_t t) { d_token[t] = R(0); });
  rows.for_each_inside(
      [&](std::int64_t t) { d_token[t] = targets[t] == ignored_target ? R(0) : d; });
}

/// A label as an int32; what is no token becomes one that no vocabulary has.
template <class Index>
__device__ Index target_of(std::int64_t label) {
  constexpr std::int64_t end = std::int64_t{1} << 31;
  const bool known = label == ignored_target || (label >= 0 && label < end);
  return static_cast<Index>(known ? label : -1);
}

template <class Index>
static __global__ void __launch_bounds__(layout_threads)
    shift_targets_kernel(index_row labels, sequence_layout layout, strided_span<Index> targets) {
  const block_rows rows{layout, blockIdx.x, labels.size()};
  rows.for_each_outside([&](std::int64_t t) { targets[t] = static_cast<Index>(ignored_target); });
  rows.for_each_inside([&](std::int64_t t) {
    targets[t] = target_of<Index>(t + 1 == rows.end ? ignored_target : labels[t + 1]);
  });
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
