// From tokens to sequences and back, a block for each sequence: sums in fp64 in a fixed order,
// coefficients spread over scored tokens, labels aligned with the rows that predict them.
#pragma once

#include <prospect/core/strided_span.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <cub/block/block_reduce.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

inline constexpr int layout_threads = 256;

/// The rows of this block's sequence. Offsets on a device are believed only inside the batch.
struct row_range {
  std::int64_t begin, end;

  __device__ row_range(const sequence_layout& layout, std::int64_t i, std::int64_t rows)
      : begin{inside(layout.begin(i), rows)}, end{inside(layout.end(i), rows)} {}

 private:
  __device__ static std::int64_t inside(std::int64_t t, std::int64_t rows) {
    return t < 0 ? 0 : t > rows ? rows : t;
  }
};

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
    sequence_sums_kernel(strided_span<const R> log_prob, index_row targets, sequence_layout layout,
                         sequence_outputs out) {
  using reduce = cub::BlockReduce<sum_of_tokens, layout_threads>;
  __shared__ typename reduce::TempStorage memory;
  const std::int64_t i = blockIdx.x;
  const row_range rows{layout, i, targets.size()};
  sum_of_tokens mine{0, 0};
  for (std::int64_t t = rows.begin + threadIdx.x; t < rows.end; t += layout_threads) {
    if (targets[t] == ignored_target) continue;
    mine = {mine.log_prob + static_cast<double>(log_prob[t]), mine.tokens + 1};
  }
  const sum_of_tokens sum = reduce(memory).Reduce(mine, add_tokens{});
  if (threadIdx.x != 0) return;
  if (!out.log_prob.empty()) out.log_prob[i] = sum.log_prob;
  if (!out.tokens.empty()) out.tokens[i] = static_cast<std::int32_t>(sum.tokens);
}

template <class R>
static __global__ void __launch_bounds__(layout_threads)
    spread_kernel(strided_span<const double> d_sequence, index_row targets, sequence_layout layout,
                  strided_span<R> d_token) {
  const std::int64_t i = blockIdx.x;
  const row_range rows{layout, i, targets.size()};
  const R d = static_cast<R>(d_sequence[i]);
  for (std::int64_t t = rows.begin + threadIdx.x; t < rows.end; t += layout_threads) {
    d_token[t] = targets[t] == ignored_target ? R(0) : d;
  }
}

template <class Index>
static __global__ void __launch_bounds__(layout_threads)
    shift_targets_kernel(index_row labels, sequence_layout layout, strided_span<Index> targets) {
  const row_range rows{layout, blockIdx.x, labels.size()};
  for (std::int64_t t = rows.begin + threadIdx.x; t < rows.end; t += layout_threads) {
    targets[t] = static_cast<Index>(t + 1 == rows.end ? ignored_target : labels[t + 1]);
  }
}

}  // namespace prospect::inline v1::cuda::detail
PROSPECT_STRICT_END
