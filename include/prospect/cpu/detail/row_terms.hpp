// What a row's sums and gradients are made of: logits as the map makes them, and their exponentials
// relative to a shift, fast ones for sums and exact ones for gradients.
#pragma once

#include <prospect/cpu/detail/exponentials.hpp>
#include <prospect/tokens.hpp>

#include <algorithm>
#include <cmath>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
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
            anchor - std::ldexp(R(1), anchor == 0 ? 8 : (std::max)(8, std::ilogb(anchor) - 20)))} {}

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

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
