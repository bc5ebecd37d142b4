// One row of logits at a time: the sums behind a log-probability, and the gradient. One source for
// every instruction set (lanes.hpp); nothing here checks arguments or knows of batches.
//
// Forward, one pass over memory: exponentials relative to a shift that is a logit of the row, and
// is raised only where a block turns out higher; that block, still in cache, is then taken again.
// fp32 inside a few tiles, fp64 beyond. Backward: softmax as e^(z - lse), with what the subtraction
// loses carried along, so that even e^-80 keeps its relative accuracy.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>
#include <prospect/vocabulary.hpp>

#include <cmath>
#include <limits>

namespace prospect::inline v0::cpu::detail {

/// From a stored logit x to the logit z of the distribution:
/// z = soft_cap tanh(x / soft_cap) / temperature.
struct logit_map {
  double inverse_temperature = 1;
  double soft_cap = std::numeric_limits<double>::infinity();

  bool caps() const noexcept { return soft_cap < std::numeric_limits<double>::infinity(); }
  bool identity() const noexcept { return inverse_temperature == 1 && !caps(); }

  double operator()(double x) const noexcept {
    return inverse_temperature * (caps() ? soft_cap * std::tanh(x / soft_cap) : x);
  }
  /// dz/dx
  double slope(double x) const noexcept {
    const double tanh = caps() ? std::tanh(x / soft_cap) : 0.0;
    return inverse_temperature * (1 - tanh) * (1 + tanh);
  }
};

/// The kernels for one storage type. The archive fills it with those of the instruction set it
/// finds, header-only users have those of the one they compile for.
template <storage S>
struct row_kernels {
  vocabulary_partial (*sum)(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                            const logit_map& map);
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
    // Not below what fp32 can say, so that -inf leaves no NaN behind when its rounding is looked
    // at.
    if (!caps) {
      return {larger(every_lane<doubles>(-1e38), inverse_temperature * x),
              every_lane<doubles>(inverse_temperature)};
    }
    // tanh u = (1 - e) / (1 + e), 1 - tanh^2 u = 4 e / (1 + e)^2, with e = e^(-2 |u|)
    const doubles u = x / soft_cap;
    const doubles magnitude = u < 0.0 ? -u : u;
    const doubles e = exponential<double>{1.0}(-2.0 * magnitude);
    const doubles t = (1.0 - e) / (1.0 + e);
    const double height = inverse_temperature * soft_cap;
    return {height * (u < 0.0 ? -t : t), inverse_temperature * 4.0 * e / ((1.0 + e) * (1.0 + e))};
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
              .low = narrowed({a.z - rounded.first, b.z - rounded.second}),
              .slope = narrowed({a.slope, b.slope})};
    }
  }
};

/// e^(z - shift), for a shift that this arithmetic can represent.
template <class R, class Map>
class relative_exponential {
 public:
  struct term {
    scaled<numbers<R>> value;
    numbers<R> exponent;  ///< in units of `unit` nats; not below where the value is 0
  };
  static constexpr double unit = std::same_as<R, double> ? 1.0 : 0.693147180559945309;

  relative_exponential(const Map& map, double shift)
      : map_{map}, shift_{every_lane<numbers<R>>(rounded(shift))} {}

  static double representable(double shift) {
    const double as_used = rounded(shift);
    return affine ? -as_used / log2_e : as_used;
  }

  PROSPECT_INLINE term operator()(numbers<R> x) const {
    if constexpr (std::same_as<R, double>) {
      const mapped<R> z = map_.template operator()<R>(x);
      const numbers<R> d =
          larger(every_lane<numbers<R>>(exp_constants<R>::lowest), z.high - shift_);
      return {exponential<R>{1.0}.parts(d), d};
    } else {
      numbers<R> t;
      if constexpr (affine) {
        t = x * log2_e + shift_;
      } else if constexpr (Map::identity) {
        t = (x - shift_) * log2_e;
      } else {
        const mapped<R> z = map_.template operator()<R>(x);
        t = ((z.high - shift_) + z.low) * log2_e;
      }
      t = larger(every_lane<numbers<R>>(exp_constants<R>::lowest_power), t);  // keeps NaN
      return {power_parts(t), t};
    }
  }

 private:
  static constexpr R log2_e = R(1.442695040888963407);
  /// With a fused multiply-add the shift rides along for free, as a power of two.
#if defined(__FMA__)
  static constexpr bool affine = Map::identity && !std::same_as<R, double>;
#else
  static constexpr bool affine = false;
#endif

  static R rounded(double shift) { return static_cast<R>(affine ? -log2_e * shift : shift); }

  Map map_;
  numbers<R> shift_;
};

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
  PROSPECT_INLINE double total() const { return sum_of_lanes(far); }
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
  PROSPECT_INLINE double value() const { return static_cast<double>(highest_of(highest)); }
};

/// The sums over one block of logits; it lies in cache when it has to be taken again.
template <bool statistics, class R, class Map>
class block_sums {
 public:
  block_sums(const Map& map, double shift) : map_{map}, exponential_{map, shift} {}

  /// `plain` is x with 0 instead of the filler -inf of a partial tile.
  PROSPECT_INLINE void add(const tile<R>& x, const tile<R>& plain) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      maximum.add(w, x.way[w]);
      const auto e = exponential_(x.way[w]);
      if constexpr (statistics) {
        const numbers<R> value = e.value.mantissa * e.value.power;
        exponentials.near.way[w] += value;
        squares.near.way[w] += value * value;
        weighted.near.way[w] += value * e.exponent;
        logits.near.way[w] += map_.template operator()<R>(plain.way[w]).high;
      } else {
        exponentials.near.way[w] += e.value.mantissa * e.value.power;
      }
    });
  }
  PROSPECT_INLINE void flush() {
    exponentials.flush();
    if constexpr (statistics) {
      squares.flush();
      weighted.flush();
      logits.flush();
    }
  }

  running_maximum<R> maximum;
  running_sum<R> exponentials, squares, weighted, logits;

 private:
  Map map_;
  relative_exponential<R, Map> exponential_;
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

/// Adds `count` logits to the sums of `p`, which holds the highest of them in `before`.
template <bool statistics, storage S, class Map>
void add_logits(const S* x, std::int64_t count, const logit_map& scalar_map, const Map& map,
                vocabulary_partial& p) {
  using R = compute_t<S>;
  using relative = relative_exponential<R, Map>;
  constexpr std::int64_t tile = tile_size<R>;
  constexpr std::int64_t block = 64 * tile;
  constexpr std::int64_t near = 16 * tile;
  // Higher than this above the shift, a term would lose digits to the size of its exponent.
  constexpr double much_higher = 4;
  constexpr double infinity = std::numeric_limits<double>::infinity();

  for (std::int64_t first = 0; first < count;) {
    const std::int64_t size = count - first < block ? count - first : block;
    const S* const from = x + first;

    if (p.exponentials == 0) {
      const double guess = scalar_map(highest_logit(from, size));
      if (guess > -infinity && guess < infinity) p.shift = relative::representable(guess);
    }
    block_sums<statistics, R, Map> sums{map, p.shift};
    std::int64_t i = 0;
    while (i + tile <= size) {
      const std::int64_t end = size - i < near ? size : i + near;
      for (; i + tile <= end; i += tile) {
        prefetch_ahead(from + i);
        const auto t = load_tile(from + i);
        sums.add(t, t);
      }
      sums.flush();
    }
    if (i < size) {
      sums.add(load_part(from + i, size - i, -std::numeric_limits<R>::infinity()),
               load_part(from + i, size - i, R(0)));
      sums.flush();
    }

    const double highest = scalar_map(sums.maximum.value());
    if (highest - p.shift > much_higher && highest < infinity) {
      p.shift_to(relative::representable(highest));
      continue;
    }
    if (highest > p.before) p.before = highest;
    p.exponentials += sums.exponentials.total();
    if constexpr (statistics) {
      p.squares += sums.squares.total();
      p.weighted += relative::unit * sums.weighted.total();
      p.logits += sums.logits.total();
    }
    first += size;
  }
}

template <bool statistics, storage S, class Map>
vocabulary_partial sum_row_mapped(const S* x, std::int64_t count, std::int64_t target,
                                  const logit_map& scalar_map, const Map& map) {
  vocabulary_partial p;
  if (target < 0) {
    add_logits<statistics>(x, count, scalar_map, map, p);
  } else {
    add_logits<statistics>(x, target, scalar_map, map, p);
    const double before = p.before;
    p.before = vocabulary_partial::none;
    add_logits<statistics>(x + target + 1, count - target - 1, scalar_map, map, p);
    p.after = p.before;
    p.before = before;
    p.target = scalar_map(static_cast<double>(load(x[target])));
    p.targets = 1;
  }
  p.tokens = static_cast<double>(count);
  return p;
}

/// The sums over a row. `target` is a column, or negative where the target is not in this part.
template <storage S>
vocabulary_partial sum_row(const S* x, std::int64_t count, std::int64_t target, bool statistics,
                           const logit_map& map) {
  if (map.identity()) {
    return statistics ? sum_row_mapped<true>(x, count, target, map, unmapped{})
                      : sum_row_mapped<false>(x, count, target, map, unmapped{});
  }
  const mapped_logits mapped{map};
  return statistics ? sum_row_mapped<true>(x, count, target, map, mapped)
                    : sum_row_mapped<false>(x, count, target, map, mapped);
}

/// Close to a shift or lse, with so few digits that what z - near loses to rounding can be had
/// exactly: it is z - ((z - near) + near).
template <class R>
double few_digits(double x) {
  if (std::same_as<R, double>) return x;
  return std::abs(x) < 65536 ? std::nearbyint(256 * x) / 256
                             : static_cast<double>(static_cast<float>(x));
}

/// factor e^(z - near). 16-bit results do not show what the difference loses, fp64 has digits to
/// spare.
template <storage S>
class exact_exponential {
  using R = compute_t<S>;

 public:
  exact_exponential(R factor, double near)
      : exponential_{factor}, near_{every_lane<numbers<R>>(static_cast<R>(near))} {}

  PROSPECT_INLINE numbers<R> operator()(numbers<R> z) const {
    if constexpr (std::same_as<S, float>) {
      z = larger(every_lane<numbers<R>>(-1e38F), z);  // -inf - -inf would be NaN
      const numbers<R> d = z - near_;
      return exponential_(d, z - (d + near_));
    } else {
      return exponential_(z - near_);
    }
  }
  PROSPECT_INLINE numbers<R> operator()(const mapped<R>& z) const {
    const numbers<R> d = z.high - near_;
    return z.slope * exponential_(d, z.low + (z.high - (d + near_)));
  }

 private:
  exponential<R> exponential_;
  numbers<R> near_;
};

/// Writes factor softmax(z) dz/dx over a row, or into another one.
template <storage S, class Map>
void write_softmax(const S* x, S* out, std::int64_t count, double lse, compute_t<S> factor,
                   const Map& map) {
  using R = compute_t<S>;
  const double near = few_digits<R>(lse);
  const exact_exponential<S> e{static_cast<R>(factor * std::exp(near - lse)), near};
  const auto softmax = [&](tile<R> t) __attribute__((always_inline)) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) {
      if constexpr (Map::identity) {
        t.way[w] = e(t.way[w]);
      } else {
        t.way[w] = e(map.template operator()<R>(t.way[w]));
      }
    });
    return t;
  };
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    prefetch_ahead(x + i);
    store_tile(out + i, softmax(load_tile(x + i)));
  }
  if (i < count) store_part(out + i, softmax(load_part(x + i, count - i, R(0))), count - i);
}

/// a softmax - b onehot at the target itself: from 1 - p where the model is confident, because as a
/// difference it would lose its digits.
inline double gradient_at_target(double log_prob, double a, double b) {
  return log_prob < -0.5 ? a * std::exp(log_prob) - b : (a - b) + a * std::expm1(log_prob);
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
  const double slope = target < 0 ? 0.0 : map.slope(static_cast<double>(load(x[target])));
  if (map.identity()) {
    write_softmax(x, out, count, lse, a, unmapped{});
  } else {
    write_softmax(x, out, count, lse, a, mapped_logits{map});
  }
  if (target >= 0) {
    out[target] = store<S>(static_cast<R>(slope * gradient_at_target(log_prob, a, b)));
  }
}

/// Multiplies a row by a number.
template <storage S>
void scale_row(S* x, std::int64_t count, compute_t<S> factor) {
  using R = compute_t<S>;
  const auto scale = [&](tile<R> t) __attribute__((always_inline)) {
    unrolled<ways>([&](int w) __attribute__((always_inline)) { t.way[w] *= factor; });
    return t;
  };
  std::int64_t i = 0;
  for (; i + tile_size<R> <= count; i += tile_size<R>) {
    prefetch_ahead(x + i);
    store_tile(x + i, scale(load_tile(x + i)));
  }
  if (i < count) store_part(x + i, scale(load_part(x + i, count - i, R(0))), count - i);
}

/// Those of the instruction set this is compiled for.
template <storage S>
constexpr row_kernels<S> compiled_kernels() noexcept {
  return {sum_row<S>, gradient_row<S>};
}

}  // namespace PROSPECT_CPU_ISA

}  // namespace prospect::inline v0::cpu::detail
