// Forward over one row of logits, one pass over memory: exponentials relative to a shift close to a
// logit of the row, which is raised only before a tile that turns out much higher. fp32 inside a
// few tiles, fp64 beyond. A row may keep its exponentials for the gradient that follows.
#pragma once

#include <prospect/cpu/detail/row_terms.hpp>
#include <prospect/cpu/detail/tiles.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {

/// What a row holds in which exponentials were kept: from first[i] on e^(z - shift[i]), in units
/// of 2^-24 in fp32, and nothing that counts before first[0].
struct kept_exponentials {
  static constexpr int most = 200;  ///< enough to come from nothing to 1 in fp64
  int pieces = 0;                   ///< none where the row still holds its logits
  std::int64_t first[most];
  double shift[most];

  PROSPECT_INLINE kept_exponentials() = default;
};

inline namespace PROSPECT_CPU_ISA {

/// A few tiles' worth in the type of arithmetic, everything else in fp64.
template <class R>
struct running_sum {
  tile<R> recent{};
  doubles settled{};

  PROSPECT_INLINE void flush() {
    const numbers<R> sum = sum_of_ways(recent);
    if constexpr (std::same_as<R, double>) {
      settled += sum;
    } else {
      const double_pair wide = widened(sum);
      settled += wide.first + wide.second;
    }
    recent = {};
  }
  PROSPECT_INLINE double total() const {
    return fold<double>(settled, [](double a, double b) { return a + b; });
  }
};

template <class Numbers>
PROSPECT_INLINE double highest_of(Numbers x) {
  using R = std::remove_cvref_t<decltype(x[0])>;
  return static_cast<double>(fold<R>(x, [](R a, R b) { return a > b ? a : b; }));
}

/// No NaN is the highest.
template <storage S>
double highest_logit(const S* x, std::int64_t count) {
  using R = compute_t<S>;
  constexpr R nothing = -std::numeric_limits<R>::infinity();
  auto highest = every_lane<numbers<R>>(nothing);
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    highest = larger(highest_of_ways(load_tile(x + i)), highest);
  }
  if (i < count) highest = larger(highest_of_ways(load_part(x + i, count - i, nothing)), highest);
  return highest_of(highest);
}

/// What the logits of a block add to a row's sums, up to the first tile that is too high.
struct block_sums {
  std::int64_t count;
  double highest, exponentials, squares = 0, weighted = 0, logits = 0;
};

/// The sums of a block in the making, tile by tile.
template <bool statistics, class R, class Terms>
struct running_block {
  static constexpr R infinity = std::numeric_limits<R>::infinity();
  /// Whose square is the smallest normal number, or just above it.
  static constexpr R smallest_root = std::same_as<R, double> ? R(0x1p-511) : R(0x1p-63);
  /// Lest fp32 overflow where many are at its lowest number.
  static constexpr double logits_scale = 0x1p-20;

  numbers<R> highest = every_lane<numbers<R>>(-infinity);
  running_sum<R> exponentials, squares, weighted, logits;

  /// Whether the tile was not too high. `plain` is t with 0 instead of the filler -inf of a partial
  /// tile; the exponentials are left in `values`.
  template <class Map>
  PROSPECT_INLINE bool add(const tile<R>& t, const tile<R>& plain, const Map& map,
                           const Terms& e_to, numbers<R> too_high, tile<R>& values) {
    const numbers<R> top = highest_of_ways(t);
    if (any_above(top, too_high)) return false;
    highest = larger(top, highest);
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      const numbers<R> value = e_to(t.way[w]);
      exponentials.recent.way[w] += value;
      if constexpr (statistics) {
        squares.recent.way[w] +=
            product_unless_below(value, every_lane<numbers<R>>(smallest_root), value, value);
        weighted.recent.way[w] += value * e_to.exponent(t.way[w]);
        logits.recent.way[w] += map.template operator()<R>(plain.way[w]).high * R(logits_scale);
      }
      values.way[w] = value;
    });
    return true;
  }

  PROSPECT_INLINE void flush() {
    exponentials.flush();
    if constexpr (statistics) {
      squares.flush();
      weighted.flush();
      logits.flush();
    }
  }

  PROSPECT_INLINE block_sums total(std::int64_t count) const {
    block_sums sums{.count = count,
                    .highest = highest_of(highest),
                    .exponentials = Terms::unit * exponentials.total()};
    if constexpr (statistics) {
      sums.squares = Terms::unit * Terms::unit * squares.total();
      sums.weighted = Terms::unit * Terms::exponent_unit * weighted.total();
      sums.logits = logits.total() / logits_scale;
    }
    return sums;
  }
};

/// Sums `count` logits, or fewer, if there is one above `limit`: the caller will want another shift
/// for it. A block that is not const keeps the exponentials in the logits' place.
template <bool statistics, class X, class Map, class Terms>
block_sums sum_block(X* x, std::int64_t count, const Map& map, const Terms& e_to, double limit) {
  constexpr bool keeps = !std::is_const_v<X>;
  using R = compute_t<std::remove_const_t<X>>;
  constexpr std::int64_t tile_length = tile_size<R>;
  constexpr std::int64_t stretch = 16 * tile_length;

  const auto too_high = every_lane<numbers<R>>(static_cast<R>(limit));
  running_block<statistics, R, Terms> sums;
  std::int64_t i = 0;
  bool going_on = true;
  while (going_on && i + tile_length <= count) {
    const std::int64_t end = count - i < stretch ? count : i + stretch;
    for (; i + tile_length <= end; i += tile_length) {
      prefetch_ahead(x + i);
      const tile<R> t = load_tile(x + i);
      tile<R> values;
      going_on = sums.add(t, t, map, e_to, too_high, values);
      if (!going_on) break;
      if constexpr (keeps) store_tile(x + i, values);
    }
    sums.flush();
  }
  if (going_on && i < count) {
    tile<R> values;
    if (sums.add(load_part(x + i, count - i, -sums.infinity), load_part(x + i, count - i, R(0)),
                 map, e_to, too_high, values)) {
      if constexpr (keeps) store_part(x + i, values, count - i);
      i = count;
      sums.flush();
    }
  }
  return sums.total(i);
}

/// Notes another shift. Each is a good three above the one before: so many back, nothing is left.
PROSPECT_INLINE void note_shift(kept_exponentials& kept, std::int64_t first, double shift) {
  if (kept.pieces > 0 && kept.shift[kept.pieces - 1] == shift) return;
  if (kept.pieces == kept_exponentials::most) {
    for (int i = 1; i < kept.pieces; ++i) {
      kept.first[i - 1] = kept.first[i];
      kept.shift[i - 1] = kept.shift[i];
    }
    --kept.pieces;
  }
  kept.first[kept.pieces] = first;
  kept.shift[kept.pieces] = shift;
  ++kept.pieces;
}

/// A block's sums with the exponentials that fit the shift. A term higher above it than the
/// headroom is not summed.
template <bool statistics, class X, class Map>
block_sums sum_block_at(double shift, X* x, std::int64_t count, const logit_map& scalar_map,
                        const Map& map, bool whole) {
  using S = std::remove_const_t<X>;
  const auto sum = [&](const auto& terms, double headroom) {
    const double limit =
        whole ? std::numeric_limits<double>::infinity() : scalar_map.inverse(shift + headroom);
    return sum_block<statistics>(x, count, map, terms, limit);
  };
  if constexpr (whole_powers<S, Map>) {
    if (std::abs(shift) < whole_power_exponential<S>::limit) {
      return sum(whole_power_terms<S>{shift}, 16);
    }
  }
  // Higher than this above the shift, a term would lose digits to the size of its exponent.
  constexpr double much_higher = 4;
  if constexpr (std::is_const_v<X>) {
    return sum(relative_exponential<compute_t<S>, Map>{map, shift}, much_higher);
  } else {
    return sum(exact_terms<S>{shift}, much_higher);
  }
}

/// Adds the logits from `first` to `end` of a row to the sums of `p`, which holds the highest of
/// them in `before`. A row that is not const keeps the exponentials in their place.
template <bool statistics, class X, class Map>
void add_logits(X* x, std::int64_t first, std::int64_t end, const logit_map& scalar_map,
                const Map& map, vocabulary_partial& p, kept_exponentials& kept) {
  using S = std::remove_const_t<X>;
  constexpr std::int64_t block = 64 * tile_size<compute_t<S>>;
  constexpr double infinity = std::numeric_limits<double>::infinity();

  bool too_high = false;
  while (first < end) {
    const std::int64_t size = end - first < block ? end - first : block;
    X* const from = x + first;
    // Of a block whose highest logit was looked up, or that has lost the row, all may be summed.
    const bool whole = too_high || p.exponentials == 0;
    if (whole) {
      const double highest = scalar_map(highest_logit<S>(from, size));
      if (highest > -infinity && highest < infinity) p.shift_to(usable_shift<S, Map>(highest));
    }
    const block_sums sums = sum_block_at<statistics>(p.shift, from, size, scalar_map, map, whole);
    if constexpr (!std::is_const_v<X>) note_shift(kept, first, p.shift);
    const double highest = scalar_map(sums.highest);
    if (highest > p.before) p.before = highest;
    p.exponentials += sums.exponentials;
    p.squares += sums.squares;
    p.weighted += sums.weighted;
    p.logits += sums.logits;
    first += sums.count;
    too_high = sums.count < size;
  }
}

template <bool statistics, class X, class Map>
vocabulary_partial sum_row_mapped(X* x, std::int64_t count, std::int64_t target,
                                  const logit_map& scalar_map, const Map& map,
                                  kept_exponentials& kept) {
  vocabulary_partial p;
  if (target < 0) {
    add_logits<statistics>(x, 0, count, scalar_map, map, p, kept);
  } else {
    add_logits<statistics>(x, 0, target, scalar_map, map, p, kept);
    const double before = p.before;
    p.before = vocabulary_partial::none;
    add_logits<statistics>(x, target + 1, count, scalar_map, map, p, kept);
    p.after = p.before;
    p.before = before;
    p.target = scalar_map(static_cast<double>(load(x[target])));
    p.targets = 1;
  }
  p.tokens = static_cast<double>(count);
  if (!statistics) {  // what was not computed must not look like a number
    p.squares = p.weighted = p.logits = std::numeric_limits<double>::quiet_NaN();
  }
  return p;
}

template <class X, class Map>
vocabulary_partial sum_row_mapped(X* x, std::int64_t count, std::int64_t target, bool statistics,
                                  const logit_map& scalar_map, const Map& map,
                                  kept_exponentials& kept) {
  return statistics ? sum_row_mapped<true>(x, count, target, scalar_map, map, kept)
                    : sum_row_mapped<false>(x, count, target, scalar_map, map, kept);
}

/// The sums over a row. `target` is a column, or negative where the target is not in this part.
template <storage S>
vocabulary_partial sum_row(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                           const logit_map& map) {
  kept_exponentials none;
  return map.identity()
             ? sum_row_mapped(x, count, target, statistics, map, unmapped{}, none)
             : sum_row_mapped(x, count, target, statistics, map, mapped_logits{map}, none);
}

/// The same, and every logit but the target's may become its exponential, where a logit's place
/// can hold one.
template <storage S>
vocabulary_partial sum_row_keeping(S* x, std::int64_t count, std::int64_t target, bool statistics,
                                   const logit_map& map, kept_exponentials& kept) {
  if constexpr (std::same_as<S, double> || (std::same_as<S, float> && whole_powers<S, unmapped>)) {
    if (map.identity()) {
      return sum_row_mapped(x, count, target, statistics, map, unmapped{}, kept);
    }
  }
  return sum_row<S>(x, count, target, statistics, map);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
