// One row of logits at a time: the sums behind a log-probability, and the gradient. One source for
// every instruction set (lanes.hpp); nothing here checks arguments or knows of batches.
//
// Forward, one pass over memory: exponentials relative to a shift that is a logit of the row, and
// is raised only where a block turns out higher; that block, still in cache, is then taken again.
// fp32 inside a few tiles, fp64 beyond. Backward: softmax as e^(z - lse), with what the subtraction
// loses carried along, so that even e^-80 keeps its relative accuracy.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

namespace prospect::inline v0::cpu::detail {

/// The kernels for one storage type. The archive fills it with those of the instruction set it
/// finds, header-only users have those of the one they compile for.
template <storage S>
struct row_kernels {
  vocabulary_partial (*sum)(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                            const logit_map& map, reuse again);
  void (*gradient)(const S* x, S* out, std::int64_t count, std::int64_t target, double log_prob,
                   double lse, compute_t<S> a, compute_t<S> b, const logit_map& map);
};

inline namespace PROSPECT_CPU_ISA {

/// What a map makes of one vector of logits. z = high + low.
template <class R>
struct mapped {
  numbers<R> high{}, low{}, slope{};
};

/// Most models' map: nothing to do.
struct unmapped {
  static constexpr bool identity = true;
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

  explicit mapped_logits(const logit_map& m)
      : inverse_temperature{m.inverse_temperature}, soft_cap{m.soft_cap}, caps{m.caps()} {}

  struct parts {
    doubles z, slope;
  };
  PROSPECT_INLINE parts in_double(doubles x) const {
    if (!caps) return {inverse_temperature * x, every_lane<doubles>(inverse_temperature)};
    // tanh u = (1 - e) / (1 + e), 1 - tanh^2 u = 4 e / (1 + e)^2, with e = e^(-2 |u|)
    const doubles u = x / soft_cap;
    const doubles magnitude = u < 0.0 ? -u : u;
    const auto e = exponential<double>{1.0}(-2.0 * magnitude);
    const doubles t = (1.0 - e) / (1.0 + e);
    const doubles z = inverse_temperature * soft_cap * (u < 0.0 ? -t : t);
    const doubles slope = inverse_temperature * 4.0 * e / ((1.0 + e) * (1.0 + e));
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

/// Close to x, with so few digits that what z - near loses to rounding is little, and can be had
/// exactly: it is z - ((z - near) + near). Beyond 2^16 logits in fp32 have no more digits than that
/// by themselves.
template <class R>
double few_digits(double x) {
  if (std::same_as<R, double>) return x;
  return std::abs(x) < 65536 ? std::nearbyint(256 * x) / 256 : x;
}

/// The same as a number of type R, and from 2^16 on not above x.
template <class R>
R few_digits_below(double x) {
  const R near = static_cast<R>(few_digits<R>(x));
  const bool above = std::abs(x) >= 65536 && near > x;
  return above ? std::nextafter(near, -std::numeric_limits<R>::infinity()) : near;
}

/// Whether x - shift can be had as a power of two by one fused multiply-add: 2^(x log2 e + c).
template <class R, class Map>
inline constexpr bool can_fuse = has_fma && Map::identity && std::same_as<R, float>;

/// e^(z - shift), for sums: fast, and accurate where terms count.
template <class R, class Map, bool fused>
class relative_exponential {
 public:
  struct term {
    scaled<numbers<R>> value;
    numbers<R> exponent;  ///< in units of `unit` nats; not below where the value is 0
  };
  static constexpr double unit = std::same_as<R, double> ? 1.0 : 0.693147180559945309;

  /// `shift` is one that `usable_shift` gave.
  relative_exponential(const Map& map, double shift)
      : map_{map},
        shift_{every_lane<numbers<R>>(static_cast<R>(fused ? -log2_e * shift : shift))},
        shift_low_{every_lane<numbers<R>>(static_cast<R>(shift - static_cast<R>(shift)))} {}

  PROSPECT_INLINE term operator()(numbers<R> x) const {
    if constexpr (std::same_as<R, double>) {
      const numbers<R> z = map_.template operator()<R>(x).high;
      const numbers<R> d = larger(every_lane<numbers<R>>(exp_constants<R>::lowest), z - shift_);
      return {exponential<R>{1.0}.parts(d), d};
    } else {
      numbers<R> t;
      if constexpr (fused) {
        t = detail::fused(x, every_lane<numbers<R>>(log2_e), shift_);
      } else if constexpr (Map::identity) {
        t = (x - shift_) * log2_e;
      } else {
        const mapped<R> z = map_.template operator()<R>(x);
        t = ((z.high - shift_) + (z.low - shift_low_)) * log2_e;
      }
      t = larger(every_lane<numbers<R>>(exp_constants<R>::lowest_power), t);  // keeps NaN
      return {power_parts(t), t};
    }
  }

  static constexpr R log2_e = R(1.442695040888963407);

 private:
  Map map_;
  numbers<R> shift_, shift_low_;
};

/// Beyond this the constant of the fused form would be too coarse.
inline constexpr double fused_limit = 65536;

/// A shift close to x that the arithmetic represents exactly.
template <class R, class Map>
double usable_shift(double x) {
  if (!can_fuse<R, Map> || std::abs(x) >= fused_limit) return few_digits<R>(x);
  constexpr double log2_e = relative_exponential<R, Map, true>::log2_e;
  const double inside = std::abs(x) < fused_limit - 1 ? x : std::copysign(fused_limit - 1, x);
  return static_cast<double>(static_cast<R>(log2_e * inside)) / log2_e;
}

/// A few tiles' worth in the type of arithmetic, everything else in fp64.
template <class R>
struct running_sum {
  tile<R> near{};
  doubles far{};

  PROSPECT_INLINE void flush() {
    const numbers<R> sum = sum_of_ways(near);
    if constexpr (std::same_as<R, double>) {
      far += sum;
    } else {
      const double_pair wide = widened(sum);
      far += wide.first + wide.second;
    }
    near = {};
  }
  PROSPECT_INLINE double total() const {
    return fold<double>(far, [](double a, double b) { return a + b; });
  }
};

template <class R>
struct running_maximum {
  tile<R> highest;

  PROSPECT_INLINE running_maximum() {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      highest.way[w] = every_lane<numbers<R>>(-std::numeric_limits<R>::infinity());
    });
  }
  PROSPECT_INLINE void add(int w, numbers<R> x) { highest.way[w] = larger(x, highest.way[w]); }
  PROSPECT_INLINE double value() const {
    return static_cast<double>(
        fold<R>(highest_of_ways(highest), [](R a, R b) { return a > b ? a : b; }));
  }
};

template <storage S>
double highest_logit(const S* x, std::int64_t count) {
  using R = compute_t<S>;
  running_maximum<R> maximum;
  const auto look = [&](const tile<R>& t) __attribute__((always_inline)) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) { maximum.add(w, t.way[w]); });
  };
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) look(load_tile(x + i));
  if (i < count) look(load_part(x + i, count - i, -std::numeric_limits<R>::infinity()));
  return maximum.value();
}

/// What a block of logits adds to a row's sums.
struct block_sums {
  double highest, exponentials, squares = 0, weighted = 0, logits = 0;
};

template <bool statistics, bool fused, storage S, class Map>
block_sums sum_block(const S* x, std::int64_t count, const Map& map, double shift, reuse again) {
  using R = compute_t<S>;
  using relative = relative_exponential<R, Map, fused>;
  constexpr std::int64_t tile_length = tile_size<R>;
  constexpr std::int64_t near = 16 * tile_length;

  constexpr double logits_scale =
      0x1p-20;  // lest fp32 overflow where many are at its lowest number

  const relative e_to{map, shift};
  running_maximum<R> maximum;
  running_sum<R> exponentials;
  running_sum<R> squares;
  running_sum<R> weighted;
  running_sum<R> logits;
  // `plain` is x with 0 instead of the filler -inf of a partial tile.
  const auto add = [&](const tile<R>& t, const tile<R>& plain) __attribute__((always_inline)) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      maximum.add(w, t.way[w]);
      const auto e = e_to(t.way[w]);
      if constexpr (statistics) {
        const numbers<R> value = e.value.mantissa * e.value.power;
        exponentials.near.way[w] += value;
        squares.near.way[w] += value * value;
        weighted.near.way[w] += value * e.exponent;
        logits.near.way[w] += map.template operator()<R>(plain.way[w]).high * R(logits_scale);
      } else {
        exponentials.near.way[w] += e.value.mantissa * e.value.power;
      }
    });
  };
  const auto flush = [&]() __attribute__((always_inline)) {
    exponentials.flush();
    if constexpr (statistics) {
      squares.flush();
      weighted.flush();
      logits.flush();
    }
  };
  std::int64_t i = 0;
  while (i + tile_length <= count) {
    const std::int64_t end = count - i < near ? count : i + near;
    for (; i + tile_length <= end; i += tile_length) {
      prefetch_ahead(x + i, again);
      const tile<R> t = load_tile(x + i);
      add(t, t);
    }
    flush();
  }
  if (i < count) {
    add(load_part(x + i, count - i, -std::numeric_limits<R>::infinity()),
        load_part(x + i, count - i, R(0)));
    flush();
  }
  block_sums sums{.highest = maximum.value(), .exponentials = exponentials.total()};
  if constexpr (statistics) {
    sums.squares = squares.total();
    sums.weighted = relative::unit * weighted.total();
    sums.logits = logits.total() / logits_scale;
  }
  return sums;
}

/// Adds `count` logits to the sums of `p`, which holds the highest of them in `before`.
template <bool statistics, storage S, class Map>
void add_logits(const S* x, std::int64_t count, const logit_map& scalar_map, const Map& map,
                reuse again, vocabulary_partial& p) {
  using R = compute_t<S>;
  constexpr std::int64_t block = 64 * tile_size<R>;
  // Higher than this above the shift, a term would lose digits to the size of its exponent.
  constexpr double much_higher = 4;
  constexpr double infinity = std::numeric_limits<double>::infinity();

  for (std::int64_t first = 0; first < count;) {
    const std::int64_t size = count - first < block ? count - first : block;
    const S* const from = x + first;
    if (p.exponentials == 0) {
      const double guess = scalar_map(highest_logit(from, size));
      if (guess > -infinity && guess < infinity) p.shift = usable_shift<R, Map>(guess);
    }
    const bool fused = can_fuse<R, Map> && std::abs(p.shift) < fused_limit;
    const block_sums sums =
        fused ? sum_block<statistics, can_fuse<R, Map>>(from, size, map, p.shift, again)
              : sum_block<statistics, false>(from, size, map, p.shift, again);
    const double highest = scalar_map(sums.highest);
    if (highest - p.shift > much_higher && highest < infinity) {
      p.shift_to(usable_shift<R, Map>(highest));
      continue;
    }
    if (highest > p.before) p.before = highest;
    p.exponentials += sums.exponentials;
    p.squares += sums.squares;
    p.weighted += sums.weighted;
    p.logits += sums.logits;
    first += size;
  }
}

template <bool statistics, storage S, class Map>
vocabulary_partial sum_row_mapped(const S* x, std::int64_t count, std::int64_t target,
                                  const logit_map& scalar_map, const Map& map, reuse again) {
  vocabulary_partial p;
  if (target < 0) {
    add_logits<statistics>(x, count, scalar_map, map, again, p);
  } else {
    add_logits<statistics>(x, target, scalar_map, map, again, p);
    const double before = p.before;
    p.before = vocabulary_partial::none;
    add_logits<statistics>(x + target + 1, count - target - 1, scalar_map, map, again, p);
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

/// The sums over a row. `target` is a column, or negative where the target is not in this part.
template <storage S>
vocabulary_partial sum_row(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                           const logit_map& map, reuse again) {
  if (map.identity()) {
    return statistics ? sum_row_mapped<true>(x, count, target, map, unmapped{}, again)
                      : sum_row_mapped<false>(x, count, target, map, unmapped{}, again);
  }
  const mapped_logits mapped{map};
  return statistics ? sum_row_mapped<true>(x, count, target, map, mapped, again)
                    : sum_row_mapped<false>(x, count, target, map, mapped, again);
}

/// factor e^(z - near - rest). 16-bit results do not show what the difference loses, fp64 has
/// digits to spare.
template <storage S>
class exact_exponential {
  using R = compute_t<S>;

 public:
  exact_exponential(R factor, R near, R rest)
      : exponential_{factor},
        near_{every_lane<numbers<R>>(near)},
        rest_{every_lane<numbers<R>>(rest)},
        // So far below that nothing is left, and near - lowest is exact.
        lowest_{every_lane<numbers<R>>(
            near - std::ldexp(R(1), near == 0 ? 7 : std::max(7, std::ilogb(near) - 20)))} {}

  /// Of a plain logit, where nothing rests.
  PROSPECT_INLINE numbers<R> operator()(numbers<R> z) const {
    if constexpr (std::same_as<S, float>) {
      z = larger(lowest_, z);
      const numbers<R> d = z - near_;
      return exponential_(d, z - (d + near_));
    } else {
      return exponential_(z - near_);
    }
  }
  PROSPECT_INLINE numbers<R> operator()(const mapped<R>& z) const {
    const numbers<R> high = z.high - near_;
    const numbers<R> low = z.low - rest_;
    const numbers<R> d = high + low;
    const numbers<R> lost = (z.high - (high + near_)) + (low - (d - high));
    // Nothing is left down there, and what was lost may be anything.
    return z.slope * exponential_(d, d < exp_constants<R>::lowest ? numbers<R>{} : lost);
  }

 private:
  exponential<R> exponential_;
  numbers<R> near_, rest_, lowest_;
};

/// out = f(x), tile by tile; `out` is x, or another row.
template <storage S, class F>
PROSPECT_INLINE void transform_row(const S* x, S* out, std::int64_t count, const F& f) {
  using R = compute_t<S>;
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    prefetch_ahead(x + i, reuse::no);
    store_tile(out + i, f(load_tile(x + i)));
  }
  if (i < count) store_part(out + i, f(load_part(x + i, count - i, R(0))), count - i);
}

/// Writes factor softmax(z) dz/dx over a row, or into another one.
template <storage S, class Map>
void write_softmax(const S* x, S* out, std::int64_t count, double lse, compute_t<S> factor,
                   const Map& map) {
  using R = compute_t<S>;
  const R near = few_digits_below<R>(lse);
  // e^(z - lse) = e^(z - near) e^(near - lse)
  const exact_exponential<S> e =
      Map::identity
          ? exact_exponential<S>{static_cast<R>(factor * std::exp(near - lse)), near, R(0)}
          : exact_exponential<S>{factor, near, static_cast<R>(lse - near)};
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
  if (std::isnan(lse) || std::isnan(a) || std::isnan(b)) {
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

/// Multiplies a row by a number.
template <storage S>
void scale_row(S* x, std::int64_t count, compute_t<S> factor) {
  using R = compute_t<S>;
  if (std::isnan(factor)) factor = std::numeric_limits<R>::quiet_NaN();  // whatever its payload
  transform_row(
      x, x, count, [&](tile<R> t) __attribute__((always_inline)) {
        unrolled<ways>([&](int w) __attribute__((always_inline)) { t.way[w] *= factor; });
        return t;
      });
}

/// Those of the instruction set this is compiled for.
template <storage S>
constexpr row_kernels<S> compiled_kernels() noexcept {
  return {sum_row<S>, gradient_row<S>};
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v0::cpu::detail
