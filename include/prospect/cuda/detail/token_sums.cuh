// The sums behind a log-probability. A row is cut into tiles of 8 KiB; a warp sums a tile, tiles
// are added in a fixed tree (row_end.cuh). How rows and tiles are dealt out to blocks and clusters
// is the kernels' business (token_kernels.cuh) and shows in no bit of the result.
#pragma once

#include <prospect/cuda/detail/exponentials.cuh>
#include <prospect/cuda/detail/words.cuh>
#include <prospect/cuda/token_checks.hpp>
#include <prospect/vocabulary.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int words_per_tile = tile_bytes / sizeof(word);
template <storage S>
inline constexpr int tile_columns = words_per_tile * per_word<S>;
template <storage S>
PROSPECT_HD constexpr std::int64_t tiles_of(std::int64_t columns) {
  return (columns + tile_columns<S> - 1) / tile_columns<S>;
}

/// NaN only where all lanes have it.
template <class T>
__device__ T warp_max(T x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(all_lanes, x, step);
    if constexpr (std::is_same_v<T, float>) {
      x = fmaxf(x, other);
    } else {
      x = other > x ? other : x;
    }
  }
  return x;
}
/// The same bits in all lanes, because what is added is the same pair in both of two lanes.
__device__ inline double warp_sum(double x) {
#pragma unroll
  for (int step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(all_lanes, x, step);
  return x;
}

/// e^d, d <= 0, exactly enough to rescale a sum with. -inf - -inf is NaN, and there was no sum.
__device__ inline double rescaling(float d) {
  return d == d ? static_cast<double>(exact_exponential(1.0F, fmaxf(d, -200.0F), 0.0F)) : 0.0;
}

/// A lane's running sums, relative to the highest logit that its warp has seen.
template <class Map, bool statistics>
struct lane_sums {
  static constexpr float none = -infinity;

  float before = none;  ///< highest x in front of the target
  float after = none;   ///< and behind it
  double exponentials = 0, squares = 0, weighted = 0, logits = 0;

  __device__ float highest() const { return fmaxf(before, after); }

  /// From one highest logit to another that is not lower. All lanes do or none.
  __device__ void raise(const Map& map, float from, float to) {
    if (from == to) return;
    const float d = from == none ? none : map.below(to)(from);
    const double factor = rescaling(d);
    if constexpr (statistics) {
      // sum (z - to) e^(z - to) from sum (z - from) e^(z - from)
      weighted = from == none ? 0.0 : factor * (weighted + static_cast<double>(d) * exponentials);
      squares *= factor * factor;
    }
    exponentials *= factor;
  }
};

/// The highest numbers of a warp's words, `words[k]` from column `lane_column + 32 k n` of the tile
/// on, in front of the target and behind it. The target's own is taken out.
template <storage S, class Memory, int count>
__device__ void split_at_target(const row_words<S, Memory>& tile, word (&words)[count],
                                int lane_column, int target, float& before, float& after) {
  constexpr int n = per_word<S>;
  highest_number<S> front, back;
#pragma unroll
  for (int k = 0; k < count; ++k) {
    const int at = target - (lane_column + k * lanes * n);
    if (at < 0) {
      back.look_at(words[k]);
    } else if (at >= n) {
      front.look_at(words[k]);
    } else {
      take_out<S>(words[k], at);
    }
  }
  before = fmaxf(before, front.value());
  after = fmaxf(after, back.value());
  // Its neighbours in the word, a lane each.
  const int neighbour = target / n * n + lane_of_warp();
  if (lane_of_warp() < n && neighbour < tile.columns) {
    const float x = prospect::load(Memory::load(tile.data + neighbour));
    if (neighbour < target) before = fmaxf(before, x);
    if (neighbour > target) after = fmaxf(after, x);
  }
  before = warp_max(before);
  after = warp_max(after);
}

/// The sums over one tile, by one warp; the same value in all lanes. `target` is the row's target
/// as a column of the tile: below 0 or beyond its end if it is not here.
///
/// `before` and `after` are relative to the row's target wherever that is, so that those of a row
/// are simply the highest of its tiles'.
template <bool statistics, storage S, class Memory, class Map>
__device__ vocabulary_partial sum_tile(const row_words<S, Memory>& tile, int target,
                                       const Map& map) {
  constexpr int n = per_word<S>;
  constexpr int count = Map::words_summed;
  constexpr int step = count * lanes;
  using sums = lane_sums<Map, statistics>;
  constexpr float none = sums::none;
  // Lest the sum of logits overflow where many are at the lowest number.
  constexpr float logits_scale = 0x1p-20F;

  const int lane = lane_of_warp();
  const int words = tile.words();
  const S impossible = store<S>(none);
  sums mine;
  for (int first = lane; first < words + lane; first += step) {
    word w[count];
    tile.load(w, first, impossible);
    const float highest_before = mine.highest();
    // Whether the target is among the words of the warp, and if not on which side: one answer for
    // all lanes.
    const int at = target - (first - lane) * n;
    if (at >= 0 && at < step * n) {
      split_at_target(tile, w, first * n, target, mine.before, mine.after);
    } else {
      highest_number<S> here;
#pragma unroll
      for (int k = 0; k < count; ++k) here.look_at(w[k]);
      const float highest = warp_max(here.value());
      mine.before = at < 0 ? mine.before : fmaxf(mine.before, highest);
      mine.after = at < 0 ? fmaxf(mine.after, highest) : mine.after;
    }
    const float highest = mine.highest();
    mine.raise(map, highest_before, highest);
    // Where nothing is possible yet, any reference gives e^-inf = 0.
    const float reference = highest == none ? 0.0F : highest;
    const auto difference = map.below(reference);
    float part[4] = {0, 0, 0, 0};
    float squares = 0, weighted = 0, logits = 0;
    const double exact = map.with_powers(reference, [&](const auto& power) {
#pragma unroll
      for (int k = 0; k < count; ++k) {
        float x[n];
        unpack(w[k], x, S{});
#pragma unroll
        for (int i = 0; i < n; ++i) {
          const float e = power(x[i]);
          part[i * 4 / n] += e;
          if constexpr (statistics) {
            squares = fmaf(e, e, squares);
            weighted = fmaf(fmaxf(difference(x[i]), -200.0F), e, weighted);
            const int column = (first + k * lanes) * n + i;
            if (column < tile.columns && column != target) {
              logits += static_cast<float>(map.z(x[i])) * logits_scale;
            }
          }
        }
      }
    });
    mine.exponentials += exact * ((part[0] + part[1]) + (part[2] + part[3]));
    if constexpr (statistics) {
      mine.squares += exact * exact * squares;
      mine.weighted += exact * weighted;
      mine.logits += logits;
    }
  }

  const float highest = mine.highest();
  vocabulary_partial sum{.shift = highest == none ? 0.0 : map.z(highest),
                         .exponentials = warp_sum(mine.exponentials),
                         .squares = not_a_number,
                         .weighted = not_a_number,
                         .logits = not_a_number,
                         .tokens = static_cast<double>(tile.columns),
                         .before = map.z(mine.before),
                         .after = map.z(mine.after)};
  if constexpr (statistics) {
    sum.squares = warp_sum(mine.squares);
    sum.weighted = warp_sum(mine.weighted);
    sum.logits = warp_sum(mine.logits) / logits_scale;
  }
  if (target >= 0 && target < tile.columns) {
    sum.targets = 1;
    sum.target = map.z(prospect::load(Memory::load(tile.data + target)));
  }
  return sum;
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
