// The kernels over logits. Each deals tiles of rows out to warps; what a warp does with a tile is
// in token_sums.cuh and token_gradient.cuh. Rows are counted along grid.x alone, in 64 bits.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/detail/resident_rows.cuh>
#include <prospect/cuda/detail/row_end.cuh>
#include <prospect/cuda/detail/token_gradient.cuh>
#include <prospect/cuda/detail/token_sums.cuh>
#include <prospect/layout.hpp>

#include <cooperative_groups.h>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int threads = warps * lanes;

__device__ inline int warp_index() { return static_cast<int>(threadIdx.x) / lanes; }

/// Where the columns lie in the vocabulary.
struct column_range {
  std::int64_t first_token = 0;
  std::int64_t vocabulary = 0;
};

/// A row's target, as one of its columns.
struct row_target {
  static constexpr int elsewhere = 0x7fffffff;  ///< behind every column

  bool ignored = false;
  bool invalid = false;  ///< no token of the vocabulary: the row is NaN, and nothing is read for it
  int column = elsewhere;

  /// Whether logits have anything to say about it.
  __device__ bool scored() const { return !ignored && !invalid; }

  __device__ row_target(std::int64_t token, const column_range& range, std::int64_t columns)
      : ignored{token == ignored_target},
        invalid{!ignored && (token < 0 || token >= range.vocabulary)} {
    const std::int64_t at = token - range.first_token;
    if (!ignored && !invalid && at >= 0 && at < columns) column = static_cast<int>(at);
  }
};

/// What the rows are scored against, as it lies on the device.
struct row_targets {
  prospect::detail::scored_targets tokens;
  prospect::detail::row_maps maps;
  column_range range;

  /// An inverse temperature that is none makes its row invalid, as a target does that is no token.
  __device__ row_target at(std::int64_t t, std::int64_t columns) const {
    row_target target{tokens[t], range, columns};
    if (!maps.inverse_temperatures.empty() && target.scored() &&
        !prospect::detail::moderate(maps[t].inverse_temperature)) {
      target.invalid = true;
      target.column = row_target::elsewhere;
    }
    return target;
  }
};

/// A tile of a row, as words.
template <class Memory, storage S>
__device__ row_words<S, Memory> tile_of(const S* row, std::int64_t columns, std::int64_t tile) {
  // A row has fewer than 2^31 columns.
  const int first = static_cast<int>(tile) * tile_columns<S>;
  const int left = static_cast<int>(columns) - first;
  return {.data = row + first,
          .columns = left < tile_columns<S> ? left : tile_columns<S>,
          .at_start = tile == 0,
          .readable = left};
}
/// The row's target as a column of the tile; nowhere stays nowhere.
template <storage S>
__device__ int column_in_tile(int column, std::int64_t tile) {
  return column == row_target::elsewhere ? column
                                         : column - static_cast<int>(tile) * tile_columns<S>;
}

/// The results of a row from the sums over its tiles, by one warp.
template <bool statistics, class Tile>
__device__ void finish_row(const token_results& results, std::int64_t t, const row_target& target,
                           std::int64_t tiles, const Tile& tile) {
  if (target.scored()) {
    const auto sum = add_tiles<statistics>(tiles, !results.partials.empty(), tile);
    if (lane_of_warp() == 0) results.put_sum<statistics>(t, sum);
  } else if (lane_of_warp() == 0) {
    results.finish_unread<statistics>(t, target.ignored);
  }
}

template <storage S>
struct forward_arguments {
  matrix_view<const S> logits;
  row_targets targets;
  token_results results;
  std::int64_t tiles;        ///< of a row
  vocabulary_partial* sums;  ///< [rows, tiles] where rows are split over blocks, else nullptr
};

/// Warps of a block of the forward pass, and how many of its blocks are to fit on a multiprocessor:
/// small ones, since a block that ends a row holds the registers of all its warps, with enough
/// loads on their way for its memory.
inline constexpr int forward_warps = 4;
template <bool statistics, storage S>
inline constexpr int forward_blocks = statistics       ? 4
                                      : sizeof(S) == 4 ? 5
                                                       : 6;

/// A row in the hands of a block; or, where rows are few and long,
/// every tile in those of a warp of any block, and `finish_kernel` to follow.
template <bool statistics, storage S, class Map>
static __global__ void __launch_bounds__(forward_warps* lanes, forward_blocks<statistics, S>)
    forward_kernel(const forward_arguments<S> a, const Map map) {
  extern __shared__ word block_memory[];
  const int warps_here = static_cast<int>(blockDim.x) / lanes;
  const bool split = a.sums != nullptr;
  const std::int64_t unit = blockIdx.x * std::int64_t{forward_warps} + warp_index();
  const std::int64_t t = split ? unit / a.tiles : blockIdx.x;
  if (t >= a.logits.rows) return;
  const row_target target = a.targets.at(t, a.logits.columns);
  auto* const sums =
      split ? a.sums + t * a.tiles : reinterpret_cast<vocabulary_partial*>(block_memory);
  const int first = split ? static_cast<int>(unit % a.tiles) : warp_index();
  const int end = split ? first + 1 : static_cast<int>(a.tiles);
  if (target.scored()) {
    for (int i = first; i < end; i += warps_here) {
      const auto tile = tile_of<constant_memory>(a.logits.row(t), a.logits.columns, i);
      const vocabulary_partial sum = map.of_row(t, [&](const auto& own) {
        return sum_tile<statistics>(tile, column_in_tile<S>(target.column, i), own);
      });
      if (lane_of_warp() == 0) sums[i] = sum;
    }
  }
  if (split) return;
  __syncthreads();
  if (warp_index() != 0) return;
  finish_row<statistics>(a.results, t, target, a.tiles, [&](std::int64_t i) { return sums[i]; });
}

/// The rows of a split forward pass, a warp each.
template <int block>
static __global__ void __launch_bounds__(block)
    finish_kernel(const vocabulary_partial* sums, std::int64_t rows, std::int64_t columns,
                  std::int64_t row_tiles, row_targets targets, token_results results) {
  const std::int64_t t = blockIdx.x * std::int64_t{block / lanes} + warp_index();
  if (t >= rows) return;
  const row_target target = targets.at(t, columns);
  finish_row<true>(results, t, target, row_tiles,
                   [&](std::int64_t i) { return sums[t * row_tiles + i]; });
}

/// Gathered partials, a thread for each token; in the library's order, from the first part to the
/// last.
template <int block>
static __global__ void __launch_bounds__(block)
    combine_kernel(matrix_view<const vocabulary_partial> parts,
                   prospect::detail::scored_targets targets, token_results results) {
  const std::int64_t t = blockIdx.x * std::int64_t{block} + threadIdx.x;
  if (t >= parts.columns) return;
  const bool ignored = targets[t] == ignored_target;
  vocabulary_partial whole = parts.row(0)[t];
  for (std::int64_t i = 1; i < parts.rows; ++i) whole = combine(whole, parts.row(i)[t]);
  results.put<true>(t, ignored ? token_scores{} : finish_scores<true>(whole));
}

template <storage S, storage Out>
struct gradient_arguments {
  matrix_view<const S> logits;
  matrix_view<Out> gradient;  ///< may be the logits where the types are one
  row_targets targets;
  strided_span<const float> log_prob;
  strided_span<const double> lse;
  prospect::detail::coefficient_rows<float> coefficients;
  std::int64_t tiles;  ///< of a row
};

/// How many of its blocks are to fit on a multiprocessor.
template <bool tilted, class Map>
inline constexpr int gradient_blocks = !tilted && std::is_same_v<Map, unmapped> ? 4 : 2;

/// Every tile of every row, a warp each. `tilted`: entropies have coefficients as well, which is a
/// kernel of its own, so that the other keeps its registers.
template <bool tilted, storage S, class Map, storage Out = S>
static __global__ void __launch_bounds__(threads, gradient_blocks<tilted, Map>)
    gradient_kernel(const gradient_arguments<S, Out> a, const Map map) {
  const std::int64_t unit = blockIdx.x * std::int64_t{warps} + warp_index();
  const std::int64_t t = unit / a.tiles;
  const std::int64_t i = unit % a.tiles;
  if (t >= a.logits.rows) return;
  const row_target target = a.targets.at(t, a.logits.columns);
  const auto& rows = a.coefficients.rows;
  std::conditional_t<tilted, tilted_row_terms, row_terms> terms;
  terms.log_prob = a.log_prob[t];
  terms.lse = a.lse[t];
  terms.a = a.coefficients.sign * rows.softmax[t];
  terms.b = a.coefficients.sign * rows.onehot[t];
  if constexpr (tilted) {
    terms.c = rows.d_entropy[t];
    terms.entropy = terms.c == 0 ? 0.0F : rows.entropy[t];
  }
  if (target.invalid) terms.lse = not_a_number;
  const auto tile = tile_of<changing_memory>(a.logits.row(t), a.logits.columns, i);
  Out* const out = a.gradient.row(t) + i * tile_columns<S>;
  if (target.ignored || (terms.zero() && !target.invalid)) {
    write_constant(out, tile.columns, 0);
  } else {
    map.of_row(t, [&](const auto& own) {
      write_gradient(tile, out, column_in_tile<S>(target.column, i), terms, own);
    });
  }
}

/// What lies between the columns of a gradient and its pitch becomes 0, a warp for each row. A
/// kernel of its own, so that those above keep their registers.
template <storage S>
static __global__ void __launch_bounds__(threads) padding_kernel(matrix_view<S> gradient) {
  const std::int64_t t = blockIdx.x * std::int64_t{warps} + warp_index();
  if (t >= gradient.rows) return;
  write_constant(gradient.row(t) + gradient.columns,
                 static_cast<int>(gradient.pitch - gradient.columns), 0);
}

/// Every tile of every row, a warp each: row t times factors[t].
template <storage S>
static __global__ void __launch_bounds__(threads)
    scale_kernel(matrix_view<S> matrix, strided_span<const float> factors, std::int64_t tiles) {
  const std::int64_t unit = blockIdx.x * std::int64_t{warps} + warp_index();
  const std::int64_t t = unit / tiles;
  if (t >= matrix.rows) return;
  const float factor = factors[t];
  const auto tile =
      tile_of<changing_memory>(static_cast<const S*>(matrix.row(t)), matrix.columns, unit % tiles);
  S* const out = matrix.row(t) + unit % tiles * tile_columns<S>;
  if (factor == 0) {
    write_constant(out, tile.columns, 0);
  } else {
    transform(tile, out, scaled_by{factor});
  }
}

template <storage S, storage Out>
struct deferred_arguments {
  matrix_view<const S> logits;
  matrix_view<Out> gradient;  ///< may be the logits where the types are one
  row_targets targets;
  token_results results;
  std::int64_t tiles;  ///< of a row
  int tiles_per_block;
};

/// The most warps of a block, and how many of the largest are to fit on a multiprocessor. What most
/// ask for makes do with registers for two of twelve.
template <bool resident, bool statistics, class Map>
inline constexpr int deferred_warps =
    resident && !statistics && std::is_same_v<Map, unmapped> ? 12 : warps;
template <bool statistics, class Map>
inline constexpr int deferred_blocks = statistics && !std::is_same_v<Map, unmapped> ? 1 : 2;

/// Forward pass and unscaled gradient in one: a row in the hands of a cluster of blocks, a block
/// without one. `resident`: the row waits for its gradient in shared memory, so that the logits are
/// read once; otherwise they are read again, from the L2 cache if they are still there.
template <bool resident, bool statistics, storage S, class Map, storage Out = S>
static __global__ void __launch_bounds__(deferred_warps<resident, statistics, Map>* lanes,
                                         deferred_blocks<statistics, Map>)
    deferred_kernel(const deferred_arguments<S, Out> a, const Map map, const int blocks_per_row) {
  extern __shared__ word block_memory[];
  auto* const sums = reinterpret_cast<vocabulary_partial*>(block_memory);
  __shared__ log_prob_and_lse shared_scores;
  const int warps_here = static_cast<int>(blockDim.x) / lanes;
  const int rank = static_cast<int>(blockIdx.x % static_cast<unsigned>(blocks_per_row));
  const std::int64_t t = blockIdx.x / static_cast<unsigned>(blocks_per_row);
  const int first = rank * a.tiles_per_block;  // a row has fewer than 2^31 columns
  const int left = static_cast<int>(a.tiles) - first;
  const int mine = left < a.tiles_per_block ? left : a.tiles_per_block;
  const row_target target = a.targets.at(t, a.logits.columns);
  std::byte* const memory =
      reinterpret_cast<std::byte*>(block_memory) + a.tiles_per_block * sizeof(vocabulary_partial);
  const auto tile_at = [&](int i) {
    return tile_of<changing_memory>(a.logits.row(t), a.logits.columns, first + i);
  };
  const auto out_at = [&](int i) {
    return a.gradient.row(t) + std::int64_t{first + i} * tile_columns<S>;
  };
  const auto resident_at = [&](int i) { return memory + i * resident_bytes<S>; };
  const auto here = [&](int i) {
    if constexpr (resident) {
      return resident_tile(tile_at(i), resident_at(i));
    } else {
      return tile_at(i);
    }
  };
  // Of a cluster's blocks, in two steps: whoever has arrived may go on until he waits.
  const auto arrive = [&] {
#if __CUDA_ARCH__ >= 900
    if (blocks_per_row > 1) cooperative_groups::this_cluster().barrier_arrive();
#endif
  };
  const auto wait = [&] {
#if __CUDA_ARCH__ >= 900
    if (blocks_per_row > 1) cooperative_groups::this_cluster().barrier_wait();
#endif
  };

  // The same for all blocks of a row.
  if (!target.scored()) {
    const float fill = target.ignored ? 0.0F : not_a_number;
    for (int i = warp_index(); i < mine; i += warps_here) {
      write_constant(out_at(i), tile_at(i).columns, fill);
    }
    if (rank == 0 && threadIdx.x == 0) {
      a.results.template finish_unread<statistics>(t, target.ignored);
    }
    return;
  }

  if constexpr (resident) {
    for (int i = warp_index(); i < mine; i += warps_here) make_resident(tile_at(i), resident_at(i));
    __pipeline_commit();
    __pipeline_wait_prior(0);
    __syncwarp();
  }
  for (int i = warp_index(); i < mine; i += warps_here) {
    const vocabulary_partial sum = map.of_row(t, [&](const auto& own) {
      return sum_tile<statistics>(here(i), column_in_tile<S>(target.column, first + i), own);
    });
    if (lane_of_warp() == 0) sums[i] = sum;
  }
  __syncthreads();
  arrive();
  wait();
  if (warp_index() == 0) {
    const auto sum = add_tiles<statistics>(a.tiles, false, [&](std::int64_t i) {
#if __CUDA_ARCH__ >= 900
      if (blocks_per_row > 1) {
        const auto owner = static_cast<unsigned>(i / a.tiles_per_block);
        const auto* const theirs = cooperative_groups::this_cluster().map_shared_rank(sums, owner);
        return theirs[i % a.tiles_per_block];
      }
#endif
      return sums[i];
    });
    if (lane_of_warp() == 0) {
      const token_scores scores = finish_scores<statistics>(sum);
      shared_scores = {scores.log_prob, scores.lse};
      if (statistics && rank == 0) a.results.template put<statistics>(t, scores);
    }
  }
  __syncthreads();
  arrive();
  if (!resident) wait();  // nobody overwrites logits that a neighbour has still to read
  if (!statistics && rank == 0 && threadIdx.x == 0) {
    a.results.put_log_prob(t, shared_scores);  // while the others go on
  }
  const row_terms terms{.log_prob = static_cast<float>(shared_scores.log_prob),
                        .lse = shared_scores.lse,
                        .a = -1,
                        .b = -1};
  for (int i = warp_index(); i < mine; i += warps_here) {
    map.of_row(t, [&](const auto& own) {
      write_gradient(here(i), out_at(i), column_in_tile<S>(target.column, first + i), terms, own);
    });
  }
  if (resident) wait();  // nobody leaves while a neighbour may read his sums
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
