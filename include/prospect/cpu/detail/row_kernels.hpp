// One row of logits at a time: the sums behind a log-probability, and the gradient. One source for
// every instruction set (lanes.hpp); nothing here checks arguments or knows of batches.
//
// Forward, one pass over memory: exponentials relative to a shift close to a logit of the row,
// which is raised only before a tile that turns out much higher. fp32 inside a few tiles, fp64
// beyond. Backward: softmax as e^(z - lse), with every digit of the difference, so that even e^-80
// keeps its relative accuracy; or from the forward pass's own exponentials, where the row has kept
// them.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

/// What a row holds in which exponentials were kept: from first[i] on e^(z - shift[i]), in units
/// of 2^-24 in fp32, and nothing that counts before first[0].
struct kept_exponentials {
  static constexpr int most = 200;  ///< enough to come from nothing to 1 in fp64
  int pieces = 0;                   ///< none where the row still holds its logits
  std::int64_t first[most];
  double shift[most];

  PROSPECT_INLINE kept_exponentials() = default;
};

/// The kernels for one storage type. The archive fills it with those of the instruction set it
/// finds, header-only users have those of the one they compile for.
template <storage S>
struct row_kernels {
  vocabulary_partial (*sum)(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                            const logit_map& map);
  void (*gradient)(const S* x, S* out, std::int64_t count, std::int64_t target, double log_prob,
                   double lse, compute_t<S> a, compute_t<S> b, const logit_map& map);
  /// The same two for a gradient that follows its sum at once, in place.
  vocabulary_partial (*sum_keeping)(S* x, std::int64_t count, std::int64_t target, bool statistics,
                                    const logit_map& map, kept_exponentials& kept);
  void (*gradient_of_kept)(S* x, std::int64_t count, std::int64_t target, double log_prob,
                           double lse, compute_t<S> a, compute_t<S> b, const logit_map& map,
                           const kept_exponentials& kept);
};

inline namespace PROSPECT_CPU_ISA {

/// What a map makes of one vector of logits: z = high + low, and dz/dx as a share of its largest
/// value, the inverse temperature.
template <class R>
struct mapped {
  numbers<R> high{}, low{}, slope{};
};

/// Most models' map: nothing to do.
struct unmapped {
  static constexpr bool identity = true;
  static constexpr double steepest() { return 1; }
  template <class R>
  PROSPECT_INLINE mapped<R> operator()(numbers<R> x) const {
    return {.high = x};
  }
};

/// Through fp64, because a rounded z would cost the gradient its digits.
struct mapped_logits {
  static constexpr bool identity = false;
  double inverse_temperature, soft_cap;
  bool caps;

  double steepest() const { return inverse_temperature; }

  explicit mapped_logits(const logit_map& m)
      : inverse_temperature{m.inverse_temperature}, soft_cap{m.soft_cap}, caps{m.caps()} {}

  struct parts {
    doubles z, slope;
  };
  PROSPECT_INLINE parts in_double(doubles x) const {
    if (!caps) return {inverse_temperature * x, every_lane<doubles>(1.0)};
    // tanh u = (1 - e) / (1 + e), 1 - tanh^2 u = 4 e / (1 + e)^2, with e = e^(-2 |u|)
    const doubles u = x / soft_cap;
    const doubles magnitude = u < 0.0 ? -u : u;
    const auto e = exponential<double>{1.0}(-2.0 * magnitude);
    const doubles t = (1.0 - e) / (1.0 + e);
    const doubles z = inverse_temperature * soft_cap * (u < 0.0 ? -t : t);
    const doubles slope = 4.0 * e / ((1.0 + e) * (1.0 + e));
    const auto impossible = every_lane<doubles>(-std::numeric_limits<double>::infinity());
    return {x == impossible ? impossible : z, slope};
  }
  /// What rounding to fp32 left over; nothing of an infinity.
  PROSPECT_INLINE static doubles rest(doubles z, doubles rounded) {
    const doubles r = z - rounded;
    return r * r < 1e300 ? r : doubles{};
  }
  template <class R>
  PROSPECT_INLINE mapped<R> operator()(numbers<R> x) const {
    if constexpr (std::same_as<R, double>) {
      const parts p = in_double(x);
      return {.high = p.z, .slope = p.slope};
    } else {
      const double_pair wide = widened(x);
      const parts a = in_double(wide.first);
      const parts b = in_double(wide.second);
      const floats high = narrowed({a.z, b.z});
      const double_pair rounded = widened(high);
      return {.high = high,
              .low = narrowed({rest(a.z, rounded.first), rest(b.z, rounded.second)}),
              .slope = narrowed({a.slope, b.slope})};
    }
  }
};

/// Close to x, with so few digits that what z - it loses to rounding is little, and can be had
/// exactly: z - ((z - it) + it). Beyond 2^16 logits in fp32 have no more digits than that
/// by themselves.
template <class R>
double few_digits(double x) {
  if (std::same_as<R, double>) return x;
  return std::abs(x) < 65536 ? std::nearbyint(256 * x) / 256 : x;
}

/// The same as a number of type R, and from 2^16 on not above x.
template <class R>
R few_digits_below(double x) {
  const R nearest = static_cast<R>(few_digits<R>(x));
  const bool above = std::abs(x) >= 65536 && nearest > x;
  return above ? std::nextafter(nearest, -std::numeric_limits<R>::infinity()) : nearest;
}

/// For sums over any logits, e^(z - shift): fast, and accurate where terms count.
template <class R, class Map>
class relative_exponential {
 public:
  static constexpr double unit = 1;        ///< what a value of 1 stands for
  static constexpr double exponent_unit =  ///< how many nats an exponent of 1 stands for
      std::same_as<R, double> ? 1.0 : 0.693147180559945309;

  /// `shift` is one that `few_digits` gave.
  relative_exponential(const Map& map, double shift)
      : map_{map},
        shift_{every_lane<numbers<R>>(static_cast<R>(shift))},
        shift_low_{every_lane<numbers<R>>(static_cast<R>(shift - static_cast<R>(shift)))} {}

  PROSPECT_INLINE numbers<R> operator()(numbers<R> x) const {
    if constexpr (std::same_as<R, double>) {
      return exponential<R>{1.0}(exponent(x));
    } else {
      return power(exponent(x));
    }
  }
  /// z - shift; not below where the value is 0.
  PROSPECT_INLINE numbers<R> exponent(numbers<R> x) const {
    if constexpr (std::same_as<R, double>) {
      return larger(every_lane<numbers<R>>(exp_constants<R>::lowest),
                    map_.template operator()<R>(x).high - shift_);
    } else {
      numbers<R> d;
      if constexpr (Map::identity) {
        d = x - shift_;
      } else {
        const mapped<R> z = map_.template operator()<R>(x);
        d = (z.high - shift_) + (z.low - shift_low_);
      }
      return larger(every_lane<numbers<R>>(exp_constants<R>::lowest_power),
                    d * R(log2_e));  // keeps NaN
    }
  }

 private:
  Map map_;
  numbers<R> shift_, shift_low_;
};

/// Whether exponentials of a row can be had with a shift that is a whole power of two.
template <storage S, class Map>
inline constexpr bool whole_powers = whole_power_exponential<S>::exists && Map::identity;

/// The same for sums and for rows that keep their exponentials, with such a shift.
template <storage S>
class whole_power_terms {
  using e = whole_power_exponential<S>;

 public:
  static constexpr double unit = exp_constants<float>::underneath;
  static constexpr double exponent_unit = 1 / e::log2_e;

  /// `shift` is one that `usable_shift` gave.
  explicit whole_power_terms(double shift)
      : shift_{every_lane<floats>(static_cast<float>(-e::power_near(shift)))},
        e_to_{static_cast<float>(1 / unit), e::power_near(shift)} {}

  PROSPECT_INLINE floats operator()(floats x) const { return e_to_(x); }
  PROSPECT_INLINE floats exponent(floats x) const {
    return e::product_plus(e_to_.clamped(x), shift_);
  }

 private:
  floats shift_;
  e e_to_;
};

/// factor e^(z - anchor - rest). 16-bit results do not show what the difference loses, fp64 has
/// digits to spare.
template <storage S>
class exact_exponential {
  using R = compute_t<S>;

 public:
  exact_exponential(R factor, R anchor, R rest)
      : exponential_{factor},
        anchor_{every_lane<numbers<R>>(anchor)},
        rest_{every_lane<numbers<R>>(rest)},
        // So far below that nothing is left, and anchor - lowest is exact.
        lowest_{every_lane<numbers<R>>(
            anchor - std::ldexp(R(1), anchor == 0 ? 7 : (std::max)(7, std::ilogb(anchor) - 20)))} {}

  /// Of a plain logit, where nothing rests.
  PROSPECT_INLINE numbers<R> operator()(numbers<R> z) const {
    if constexpr (std::same_as<S, float>) {
      z = larger(lowest_, z);
      const numbers<R> d = z - anchor_;
      return exponential_(d, z - (d + anchor_));
    } else {
      return exponential_(z - anchor_);
    }
  }
  PROSPECT_INLINE numbers<R> operator()(const mapped<R>& z) const {
    const numbers<R> high = z.high - anchor_;
    const numbers<R> low = z.low - rest_;
    const numbers<R> d = high + low;
    const numbers<R> lost = (z.high - (high + anchor_)) + (low - (d - high));
    // Nothing is left down there, and what was lost may be anything.
    return normal_product(z.slope, exponential_(d, d < exponential_.least ? numbers<R>{} : lost));
  }

 private:
  exponential<R> exponential_;
  numbers<R> anchor_, rest_, lowest_;
};

/// For rows that keep their exponentials, where no whole power will do.
template <storage S>
class exact_terms {
  using R = compute_t<S>;

 public:
  static constexpr double unit = exp_constants<R>::underneath;
  static constexpr double exponent_unit = 1;

  /// `shift` is one that `few_digits` gave.
  explicit exact_terms(double shift)
      : shift_{every_lane<numbers<R>>(static_cast<R>(shift))},
        e_to_{static_cast<R>(1 / unit), static_cast<R>(shift), R(0)} {}

  PROSPECT_INLINE numbers<R> operator()(numbers<R> x) const { return e_to_(x); }
  PROSPECT_INLINE numbers<R> exponent(numbers<R> x) const {
    return larger(every_lane<numbers<R>>(exp_constants<R>::lowest), x - shift_);
  }

 private:
  numbers<R> shift_;
  exact_exponential<S> e_to_;
};

/// A shift close to x that the arithmetic represents exactly.
template <storage S, class Map>
double usable_shift(double x) {
  if constexpr (whole_powers<S, Map>) {
    using e = whole_power_exponential<S>;
    if (std::abs(x) < e::limit) {
      const double inside = std::abs(x) < e::limit - 1 ? x : std::copysign(e::limit - 1, x);
      return e::power_near(inside) / e::log2_e;
    }
  }
  return few_digits<compute_t<S>>(x);
}

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

/// out = f(x), tile by tile; `out` is x, or another row.
template <storage S, class F>
PROSPECT_INLINE void transform_row(const S* x, S* out, std::int64_t count, const F& f) {
  using R = compute_t<S>;
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    prefetch_ahead(x + i);
    store_tile(out + i, f(load_tile(x + i)));
  }
  if (i < count) store_part(out + i, f(load_part(x + i, count - i, R(0))), count - i);
}

/// Writes factor softmax(z) dz/dx over a row, or into another one.
template <storage S, class Map>
void write_softmax(const S* x, S* out, std::int64_t count, double lse, compute_t<S> factor,
                   const Map& map) {
  using R = compute_t<S>;
  const auto write = [&](const auto& e) __attribute__((always_inline)) {
    transform_row(
        x, out, count, [&](tile<R> t) __attribute__((always_inline)) {
          unrolled<ways>([&](int w) __attribute__((always_inline)) {
            if constexpr (Map::identity) {
              t.way[w] = e(t.way[w]);
            } else {
              t.way[w] = e(map.template operator()<R>(t.way[w]));
            }
          });
          return t;
        });
  };
  if constexpr (whole_powers<S, Map>) {
    using e = whole_power_exponential<S>;
    if (std::abs(lse) < e::limit) {
      const double power = e::power_near(lse);
      return write(e{static_cast<R>(factor * std::exp(power / e::log2_e - lse)), power});
    }
  }
  // e^(z - lse) = e^(z - anchor) e^(anchor - lse)
  const R anchor = few_digits_below<R>(lse);
  write(Map::identity
            ? exact_exponential<S>{static_cast<R>(factor * std::exp(anchor - lse)), anchor, R(0)}
            : exact_exponential<S>{static_cast<R>(factor * map.steepest()), anchor,
                                   static_cast<R>(lse - anchor)});
}

/// a p - b at the target itself: from 1 - p where the model is confident, because as a difference
/// it would lose its digits; from its logit z where it is not, because log p in fp32 has too few.
inline double gradient_at_target(double z, double log_prob, double lse, double a, double b) {
  return log_prob < -0.5 ? a * std::exp(z - lse) - b : (a - b) + a * std::expm1(log_prob);
}

/// Writes (a softmax(z) - b onehot(target)) dz/dx over a row or into another one.
template <storage S>
void gradient_row(const S* x, S* out, std::int64_t count, std::int64_t target, double log_prob,
                  double lse, compute_t<S> a, compute_t<S> b, const logit_map& map) {
  using R = compute_t<S>;
  if (is_nan(lse) || is_nan(a) || is_nan(b)) {
    for (std::int64_t j = 0; j < count; ++j) out[j] = store<S>(std::numeric_limits<R>::quiet_NaN());
    return;
  }
  const double logit = target < 0 ? 0.0 : static_cast<double>(load(x[target]));
  if (map.identity()) {
    write_softmax(x, out, count, lse, a, unmapped{});
  } else {
    write_softmax(x, out, count, lse, a, mapped_logits{map});
  }
  if (target >= 0) {
    const double z = map(logit);
    out[target] =
        store<S>(static_cast<R>(map.slope(logit) * gradient_at_target(z, log_prob, lse, a, b)));
  }
}

/// Multiplies a row by a number. What is smaller than the smallest normal number becomes 0.
template <storage S>
void scale_row(S* x, std::int64_t count, compute_t<S> factor) {
  using R = compute_t<S>;
  if (is_nan(factor)) factor = std::numeric_limits<R>::quiet_NaN();  // whatever its payload
  const auto by = every_lane<numbers<R>>(factor);
  const auto least =
      every_lane<numbers<R>>(is_nan(factor) ? R(0) : smallest_normal<R> / std::abs(factor));
  transform_row(
      x, x, count, [&](tile<R> t) __attribute__((always_inline)) {
        unrolled<ways>([&](int w) __attribute__((always_inline)) {
          t.way[w] = product_unless_below(without_sign(t.way[w]), least, t.way[w], by);
        });
        return t;
      });
}

/// Makes a piece of a row that keeps its exponentials what it is times `factor`, which may be too
/// small for R where a product is not.
template <storage S>
void scale_kept(S* x, std::int64_t count, double factor) {
  using R = compute_t<S>;
  constexpr double raised = 0x1p64;
  if (std::abs(factor) >= smallest_normal<R>) {
    scale_row<S>(x, count, static_cast<R>(factor));
  } else if (std::abs(factor) * raised >= smallest_normal<R>) {
    scale_row<S>(x, count, static_cast<R>(factor * raised));
    scale_row<S>(x, count, static_cast<R>(1 / raised));
  } else {
    std::fill(x, x + count, store<S>(R(0)));
  }
}

/// What `gradient_row` writes, from the row that `sum_row_keeping` left.
template <storage S>
void gradient_of_kept_row(S* x, std::int64_t count, std::int64_t target, double log_prob,
                          double lse, compute_t<S> a, compute_t<S> b, const logit_map& map,
                          const kept_exponentials& kept) {
  using R = compute_t<S>;
  if (kept.pieces == 0 || is_nan(lse) || is_nan(a) || is_nan(b)) {
    return gradient_row<S>(x, x, count, target, log_prob, lse, a, b, map);
  }
  const double z = target < 0 ? 0.0 : static_cast<double>(load(x[target]));
  for (int i = 0; i < kept.pieces; ++i) {
    const std::int64_t size = (i + 1 < kept.pieces ? kept.first[i + 1] : count) - kept.first[i];
    scale_kept(x + kept.first[i], size,
               exp_constants<R>::underneath * a * std::exp(kept.shift[i] - lse));
  }
  for (std::int64_t j = 0; j < kept.first[0]; ++j) x[j] = store<S>(R(0));
  if (target >= 0) {
    x[target] = store<S>(static_cast<R>(gradient_at_target(z, log_prob, lse, a, b)));
  }
}

/// Those of the instruction set this is compiled for.
template <storage S>
constexpr row_kernels<S> compiled_kernels() noexcept {
  return {.sum = sum_row<S>,
          .gradient = gradient_row<S>,
          .sum_keeping = sum_row_keeping<S>,
          .gradient_of_kept = gradient_of_kept_row<S>};
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
