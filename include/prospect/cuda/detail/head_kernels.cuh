// What the head path does around its products and rows of logits: scored tokens are packed to the
// front, what belongs to them is gathered, and results go back to where their tokens stand.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/detail/token_kernels.cuh>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int packing_threads = 1024;

/// Numbers that the device finds out.
struct head_numbers {
  std::int64_t begin, end;  ///< tokens that this is about
  float one, zero;
  float raised;  ///< a power of 2 that brings the largest coefficient to [1/2, 1)
  float back;    ///< its inverse: NaN where too many tokens are scored
  float spoilt;  ///< 0, or NaN where too many tokens are scored: added to what has no other factor
};

/// Where tokens went. A packed row without a token is -1, and so is the place of a token that is
/// not scored.
struct packed_tokens {
  std::int32_t* order;   ///< [capacity], ascending
  std::int32_t* places;  ///< [tokens]
  std::int64_t capacity;
  std::int64_t scored_at_most;
  head_numbers* numbers;
};

/// Sequences [first, last); or all tokens, where there is no last one.
struct packed_sequences {
  sequence_layout layout{};
  std::int64_t first = 0, last = -1;
};

/// Packs the scored tokens of some sequences. `most` becomes how many they are if that is more. By
/// one block.
template <int block>
static __global__ void __launch_bounds__(block)
    pack_kernel(prospect::detail::scored_targets targets, std::int64_t tokens,
                packed_sequences sequences, packed_tokens packed, std::int64_t* most) {
  __shared__ int of_warp[block / lanes];
  const bool all = sequences.last < 0;
  // Offsets on a device are believed only inside the batch.
  const auto begin_of = [&](std::int64_t s) {
    const std::int64_t begin = all ? 0 : sequences.layout.begin(s);
    return begin < 0 ? 0 : begin;
  };
  const auto end_of = [&](std::int64_t s) { return all ? tokens : sequences.layout.end(s); };
  const std::int64_t last = all ? 1 : sequences.last;
  std::int64_t before = 0;
  for (std::int64_t s = sequences.first; s < last; ++s) {
    const std::int64_t end = end_of(s) < tokens ? end_of(s) : tokens;
    for (std::int64_t first = begin_of(s); first < end; first += block) {
      const std::int64_t t = first + threadIdx.x;
      const bool scored = t < end && targets[t] != ignored_target;
      const unsigned votes = __ballot_sync(all_lanes, scored);
      if (lane_of_warp() == 0) of_warp[warp_index()] = __popc(votes);
      __syncthreads();
      int in_front = __popc(votes & ((1U << lane_of_warp()) - 1));
      int in_all = 0;
      for (int w = 0; w < block / lanes; ++w) {
        in_front += w < warp_index() ? of_warp[w] : 0;
        in_all += of_warp[w];
      }
      const std::int64_t place = before + in_front;
      const bool fits = scored && place < packed.scored_at_most;
      if (fits) packed.order[place] = static_cast<std::int32_t>(t);
      if (t < end) packed.places[t] = fits ? static_cast<std::int32_t>(place) : -1;
      before += in_all;
      __syncthreads();
    }
  }
  const bool too_many = before > packed.scored_at_most;
  const std::int64_t filled = too_many ? packed.scored_at_most : before;
  for (std::int64_t i = filled + threadIdx.x; i < packed.capacity; i += block) packed.order[i] = -1;
  if (threadIdx.x == 0) {
    const float spoilt = too_many ? not_a_number : 0.0F;
    *packed.numbers = {.begin = last > sequences.first ? begin_of(sequences.first) : 0,
                       .end = last > sequences.first ? end_of(last - 1) : 0,
                       .one = 1,
                       .zero = 0,
                       .raised = 1,
                       .back = 1 + spoilt,
                       .spoilt = spoilt};
    if (most != nullptr && *most < before) *most = before;
  }
}

/// Tokens of no sequence are nowhere.
static __global__ void __launch_bounds__(threads)
    forget_kernel(packed_tokens packed, std::int64_t tokens) {
  const std::int64_t t = blockIdx.x * std::int64_t{threads} + threadIdx.x;
  if (t < tokens) packed.places[t] = -1;
  if (t == 0) {
    *packed.numbers = {
        .begin = 0, .end = tokens, .one = 1, .zero = 0, .raised = 1, .back = 1, .spoilt = 0};
  }
}

/// What the power of 2 for a batch's coefficients is. By one block.
template <int block>
static __global__ void __launch_bounds__(block)
    raise_kernel(prospect::detail::coefficient_rows<float> coefficients, packed_tokens packed) {
  __shared__ float of_warp[block / lanes];
  float largest = 0;
  for (std::int64_t i = threadIdx.x; i < packed.capacity; i += block) {
    if (packed.order[i] < 0) continue;
    const auto c = coefficients[packed.order[i]];
    // fmaxf leaves NaN out: such a coefficient is the business of its row.
    largest = fmaxf(largest, fmaxf(fabsf(c.d_entropy), fmaxf(fabsf(c.softmax), fabsf(c.onehot))));
  }
  largest = warp_max(largest);
  if (lane_of_warp() == 0) of_warp[warp_index()] = largest;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (const float x : of_warp) largest = fmaxf(largest, x);
  if (!(largest > 0) || !(largest < infinity)) return;
  // Below 1, so that no hidden state grows out of 16 bits; no further than that both powers are
  // normal numbers.
  const int exponent = (max)(-120, (min)(120, ilogbf(largest) + 1));
  packed.numbers->raised = ldexpf(1.0F, -exponent);
  packed.numbers->back = ldexpf(1.0F, exponent) + packed.numbers->spoilt;
}

/// What rows of logits are computed with, packed.
struct packed_rows {
  std::int64_t* targets;
  float* inverse_temperatures;  ///< nullptr: none
  float *softmax, *onehot;      ///< nullptr: no coefficients; raised
  float* factors;               ///< of gradients that are log-probs', raised
  float *d_entropy, *entropy;   ///< nullptr: none
  float* log_prob;              ///< of a backward pass
  double* lse;
};

static __global__ void __launch_bounds__(threads)
    pack_rows_kernel(packed_tokens packed, prospect::detail::scored_targets targets,
                     strided_span<const float> inverse_temperatures,
                     prospect::detail::coefficient_rows<float> coefficients,
                     strided_span<const float> log_prob, strided_span<const double> lse,
                     packed_rows rows) {
  const std::int64_t i = blockIdx.x * std::int64_t{threads} + threadIdx.x;
  if (i >= packed.capacity) return;
  const std::int64_t t = packed.order[i];
  rows.targets[i] = t < 0 ? ignored_target : targets[t];
  if (rows.inverse_temperatures != nullptr) {
    rows.inverse_temperatures[i] = t < 0 ? 1.0F : inverse_temperatures[t];
  }
  if (rows.softmax == nullptr) return;
  const float raised = packed.numbers->raised;
  const auto c = t < 0 ? prospect::detail::row_coefficients<float>{0, 0} : coefficients[t];
  if (t >= 0 && c.none()) {
    // Takes no part, whatever its hidden state.
    packed.order[i] = -1;
    packed.places[t] = -1;
    rows.targets[i] = ignored_target;
  }
  rows.softmax[i] = raised * c.softmax;
  rows.onehot[i] = raised * c.onehot;
  rows.factors[i] = -rows.softmax[i];
  if (rows.d_entropy != nullptr) {
    rows.d_entropy[i] = raised * c.d_entropy;
    rows.entropy[i] = c.entropy;
  }
  rows.log_prob[i] = t < 0 ? 0.0F : log_prob[t];
  rows.lse[i] = t < 0 ? 0.0 : lse[t];
}

struct as_it_is {
  static constexpr int words_in_flight = 4;

  __device__ float operator()(float x) const { return x; }
};

/// Row i becomes that of the token which was packed to first + i, times its factor if there are
/// any; 0 where there is none. A warp for each tile.
template <storage S>
static __global__ void __launch_bounds__(threads)
    gather_kernel(matrix_view<const S> from, const std::int32_t* order, const float* factors,
                  matrix_view<S> to, std::int64_t tiles) {
  const std::int64_t unit = blockIdx.x * std::int64_t{warps} + warp_index();
  const std::int64_t i = unit / tiles;
  if (i >= to.rows) return;
  const std::int64_t t = order[i];
  const float factor = factors == nullptr ? 1.0F : factors[i];
  S* const out = to.row(i) + unit % tiles * tile_columns<S>;
  const auto tile = tile_of<constant_memory>(from.row(t < 0 ? 0 : t), from.columns, unit % tiles);
  if (t < 0 || factor == 0) {
    write_constant(out, tile.columns, 0);
  } else if (factors == nullptr) {
    transform(tile, out, as_it_is{});
  } else {
    transform(tile, out, scaled_by{factor});
  }
}

/// Rows without a token become 0.
template <storage S>
static __global__ void __launch_bounds__(threads)
    drop_kernel(matrix_view<S> rows, const std::int32_t* order) {
  const std::int64_t i = blockIdx.x * std::int64_t{warps} + warp_index();
  if (i >= rows.rows || order[i] >= 0) return;
  write_constant(rows.row(i), static_cast<int>(rows.columns), 0);
}

/// The way back: the token's row from row i, times its factor. Rows whose factor is 0 become 0.
template <storage S>
static __global__ void __launch_bounds__(threads)
    scatter_kernel(matrix_view<const float> from, const std::int32_t* order, const float* factors,
                   const head_numbers* numbers, matrix_view<S> to, std::int64_t tiles) {
  const std::int64_t unit = blockIdx.x * std::int64_t{warps} + warp_index();
  const std::int64_t i = unit / tiles;
  if (i >= from.rows || order[i] < 0) return;
  S* const out = to.row(order[i]) + unit % tiles * tile_columns<float>;
  const float factor = (factors == nullptr ? 1.0F : factors[i]) * numbers->back;
  const auto tile = tile_of<constant_memory>(from.row(i), from.columns, unit % tiles);
  if (factor == 0) {
    write_constant(out, tile.columns, 0);
  } else {
    transform(tile, out, scaled_by{factor});
  }
}

/// What a sum over no tokens is.
static __global__ void __launch_bounds__(threads) zero_kernel(matrix_view<float> sums) {
  const std::int64_t i = blockIdx.x * std::int64_t{warps} + warp_index();
  if (i < sums.rows) write_constant(sums.row(i), static_cast<int>(sums.columns), 0);
}

/// Tokens that are not scored leave rows of 0; all are NaN where too many are scored.
template <storage S>
static __global__ void __launch_bounds__(threads)
    clear_kernel(matrix_view<S> rows, packed_tokens packed) {
  const std::int64_t t = blockIdx.x * std::int64_t{warps} + warp_index();
  if (t < packed.numbers->begin || t >= packed.numbers->end || t >= rows.rows) return;
  const bool spoilt = packed.numbers->spoilt != 0;
  if (packed.places[t] >= 0 && !spoilt) return;
  write_constant(rows.row(t), static_cast<int>(rows.columns), spoilt ? not_a_number : 0.0F);
}

/// Results of packed rows, at their tokens; 0 for the others.
static __global__ void __launch_bounds__(threads)
    scatter_results_kernel(packed_tokens packed, std::int64_t tokens, token_outputs<float> from,
                           strided_span<const vocabulary_partial> partials, token_results to) {
  const std::int64_t t = blockIdx.x * std::int64_t{threads} + threadIdx.x;
  if (t < packed.numbers->begin || t >= packed.numbers->end || t >= tokens) return;
  const std::int64_t i = packed.places[t];
  const float spoilt = packed.numbers->spoilt;
  const auto move = [&](const auto& source, const auto& target) {
    using value = std::remove_cvref_t<decltype(target[0])>;
    if (target.empty()) return;
    if constexpr (std::is_floating_point_v<value>) {
      target[t] = (i < 0 ? value{} : source[i]) + static_cast<value>(spoilt);
    } else {
      target[t] = i < 0 ? value{} : source[i];
    }
  };
  if (!to.partials.empty()) {
    vocabulary_partial sum{};
    if (i >= 0) sum = partials[i];
    if (spoilt != 0) sum.exponentials = not_a_number;
    to.partials[t] = sum;
    return;
  }
  move(from.log_prob, to.out.log_prob);
  move(from.lse, to.out.lse);
  move(from.entropy, to.out.entropy);
  move(from.sum_squares, to.out.sum_squares);
  move(from.mean_logit, to.out.mean_logit);
  move(from.target_is_argmax, to.out.target_is_argmax);
}

/// A row of any storage as fp32.
template <storage S>
static __global__ void __launch_bounds__(threads)
    widen_kernel(strided_span<const S> from, float* to) {
  const std::int64_t i = blockIdx.x * std::int64_t{threads} + threadIdx.x;
  if (i < from.size()) to[i] = prospect::load(from[i]);
}

/// A matrix of fp32 in another storage, times a factor.
template <storage S>
static __global__ void __launch_bounds__(threads)
    narrow_kernel(matrix_view<const float> from, float factor, matrix_view<S> to,
                  std::int64_t tiles) {
  const std::int64_t unit = blockIdx.x * std::int64_t{warps} + warp_index();
  const std::int64_t i = unit / tiles;
  if (i >= from.rows) return;
  transform(tile_of<constant_memory>(from.row(i), from.columns, unit % tiles),
            to.row(i) + unit % tiles * tile_columns<float>, scaled_by{factor});
}

/// sums[j] = beta sums[j] + back (sum of column j, each row times its factor if there are any), in
/// the order of rows. A thread for each column and every `warps`-th row.
template <storage S>
static __global__ void __launch_bounds__(threads)
    column_sums_kernel(matrix_view<const S> matrix, const float* factors,
                       const head_numbers* numbers, bool accumulate, strided_span<float> sums) {
  __shared__ double parts[warps][lanes];
  const std::int64_t j = blockIdx.x * std::int64_t{lanes} + lane_of_warp();
  double sum = 0;
  if (j < matrix.columns) {
    for (std::int64_t i = warp_index(); i < matrix.rows; i += warps) {
      const float x = prospect::load(matrix.row(i)[j]);
      sum += static_cast<double>(factors == nullptr ? x : factors[i] * x);
    }
  }
  parts[warp_index()][lane_of_warp()] = sum;
  __syncthreads();
  if (warp_index() != 0 || j >= matrix.columns) return;
  for (int w = 1; w < warps; ++w) sum += parts[w][lane_of_warp()];
  sums[j] = (accumulate ? sums[j] : 0.0F) + numbers->back * static_cast<float>(sum);
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
