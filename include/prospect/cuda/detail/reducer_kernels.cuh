// Sums over tokens and the way back by a reducer, a block for each sequence: tile by tile, because
// what weighs a token may be its place among the scored ones. And what couples the two of a pair.
//
// Kernels are templates of their number of threads, so that who launches none compiles none.
#pragma once

#include <prospect/cuda/detail/layout_kernels.cuh>
#include <prospect/cuda/detail/rows.cuh>
#include <prospect/token_reducer.hpp>

#include <cub/block/block_scan.cuh>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// Calls body(t, rank) for this thread's share of the scored rows, with the number of scored ones
/// in front where `by_rank` says that it matters, else 0. For all threads of a block together.
template <int threads, class Body>
__device__ void for_each_scored(const block_rows& rows,
                                const prospect::detail::scored_targets& targets, bool by_rank,
                                const Body& body) {
  using scan = cub::BlockScan<int, threads>;
  __shared__ typename scan::TempStorage memory;
  std::int64_t before = 0;
  for (std::int64_t tile = rows.begin; tile < rows.end; tile += threads) {
    const std::int64_t t = tile + threadIdx.x;
    const bool scored = t < rows.end && targets[t] != ignored_target;
    int rank = 0, in_tile = 0;
    if (by_rank) {
      scan(memory).ExclusiveSum(scored ? 1 : 0, rank, in_tile);
      __syncthreads();
    }
    if (scored) body(t, before + rank);
    before += in_tile;
  }
}

template <int threads>
static __global__ void __launch_bounds__(threads)
    reduced_sums_kernel(token_reducer by, prospect::detail::scored_targets targets,
                        sequence_layout layout, sequence_outputs out) {
  using reduce = cub::BlockReduce<sum_of_tokens, threads>;
  __shared__ typename reduce::TempStorage memory;
  const std::int64_t i = blockIdx.x;
  sum_of_tokens mine{0, 0};
  bool any_scored = false;
  for_each_scored<threads>(block_rows{layout, i, targets.size()}, targets, by.by_rank(),
                           [&](std::int64_t t, std::int64_t rank) {
                             const double x = by.term(t), w = by.weight(i, rank);
                             if (w > 0) mine.log_prob += w * x;
                             if (!by.count_nonzero || x != 0) ++mine.tokens;
                             any_scored = true;
                           });
  const sum_of_tokens sum = reduce(memory).Reduce(mine, add_tokens{});
  any_scored = __syncthreads_or(any_scored) != 0;
  if (threadIdx.x != 0) return;
  // A length that is none, which only shows here, spoils its sequence.
  const bool known = !by.by_rank() || by.public_tokens[i] >= 0;
  if (!out.log_prob.empty()) out.log_prob[i] = known ? sum.log_prob : no_number<double>;
  constexpr std::int64_t most = 0x7fffffff;
  if (!out.tokens.empty()) {
    const std::int64_t tokens = any_scored && sum.tokens == 0 ? 1 : sum.tokens;
    out.tokens[i] = static_cast<std::int32_t>(tokens < most ? tokens : most);
  }
}

template <int threads>
static __global__ void __launch_bounds__(threads)
    reduced_spread_kernel(token_reducer by, const_any_row d_sequence,
                          prospect::detail::scored_targets targets, sequence_layout layout,
                          any_row d_token) {
  const std::int64_t i = blockIdx.x;
  const block_rows rows{layout, i, targets.size()};
  const auto clear = [&](std::int64_t t) { d_token.put(t, 0.0); };
  rows.for_each_outside(clear);
  if (i >= layout.sequences()) return;
  const double d = d_sequence.get<double>(i);
  rows.for_each_inside([&](std::int64_t t) {
    if (targets[t] == ignored_target) clear(t);
  });
  for_each_scored<threads>(rows, targets, by.by_rank(), [&](std::int64_t t, std::int64_t rank) {
    const double w = by.weight(i, rank);
    d_token.put(t, w > 0 && by.passes(t) ? w * d : 0.0);
  });
}

/// A warp for each sequence, which looks through all pairs for its own.
template <int threads>
static __global__ void __launch_bounds__(threads)
    public_tokens_kernel(strided_span<const std::int32_t> tokens, sequence_pairs pairs,
                         strided_span<std::int32_t> out) {
  const std::int64_t n = tokens.size();
  const std::int64_t s = (std::int64_t{blockIdx.x} * threads + threadIdx.x) / 32;
  if (s >= n) return;
  int found = 0, length = 0;
  const auto meet = [&](std::int64_t other) {
    const bool exists = other >= 0 && other < n;
    found += exists ? 1 : 2;  // a partner that is none makes the length none
    if (exists) length = tokens[other];
  };
  const std::int64_t count = pairs.size(n);
  for (std::int64_t i = threadIdx.x % 32; i < count; i += 32) {
    const std::int64_t c = pairs.chosen(i), r = pairs.rejected(i, n);
    if (c == s) meet(r);
    if (r == s) meet(c);
  }
  for (int apart = 16; apart > 0; apart /= 2) {
    found += __shfl_down_sync(0xffffffffU, found, apart);
    length += __shfl_down_sync(0xffffffffU, length, apart);
  }
  if (threadIdx.x % 32 != 0) return;
  const std::int32_t own = tokens[s];
  out[s] = found == 0 ? own : found > 1 ? -1 : length < own ? length : own;
}

template <int threads>
static __global__ void __launch_bounds__(threads)
    wpo_weights_kernel(const_any_row log_prob, const_any_row sum_squares,
                       prospect::detail::scored_targets targets, sequence_layout layout,
                       any_row weight) {
  using reduce = cub::BlockReduce<sum_of_tokens, threads>;
  __shared__ typename reduce::TempStorage memory;
  const std::int64_t i = blockIdx.x;
  sum_of_tokens mine{0, 0};
  block_rows{layout, i, targets.size()}.for_each_inside([&](std::int64_t t) {
    if (targets[t] == ignored_target) return;
    mine.log_prob += log_prob.get<double>(t) - log(sum_squares.get<double>(t));
    ++mine.tokens;
  });
  const sum_of_tokens sum = reduce(memory).Reduce(mine, add_tokens{});
  if (threadIdx.x != 0) return;
  weight.put(i, sum.tokens == 0 ? 1.0 : exp(sum.log_prob / static_cast<double>(sum.tokens)));
}

template <int threads>
static __global__ void __launch_bounds__(threads)
    pair_weights_kernel(const_any_row weight, sequence_pairs pairs, any_row out) {
  const std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x;
  if (i >= out.size()) return;
  const std::int64_t n = weight.size();
  const auto of = [&](std::int64_t s) {
    return s >= 0 && s < n ? weight.get<double>(s) : no_number<double>;
  };
  out.put(i, of(pairs.chosen(i)) * of(pairs.rejected(i, n)));
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
