// Exponentials of several numbers at once, which the row kernels live on: a power of two from the
// bits of a rounded number, and a polynomial for the rest.
#pragma once

#include <prospect/cpu/detail/lanes.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

inline constexpr double log2_e = 1.44269504088896341;

template <class R>
struct exp_constants;
template <>
struct exp_constants<float> {
  /// Adding it leaves round(t) in the low bits, with the bias of the exponent on top.
  static constexpr float magic = 0x1.8p23F + 127;
  static constexpr int mantissa_bits = 23;
  /// Whose biased exponent is 0: 2^-127 comes out as 0.
  static constexpr float lowest_power = -127;
  /// What numbers are raised by where a subnormal one would lose its digits.
  static constexpr int headroom = 24;
  static constexpr float underneath = 0x1p-24F;
  static constexpr float lowest = -104.6F;  ///< from here on 0
  // log 2 in two parts, the first with so few bits that its multiples are exact without FMA.
  static constexpr float log2_high = 0.693359375F;
  static constexpr float log2_low = -2.12194440e-4F;
  static constexpr int degree = 5;
  /// Minimax polynomials through 1 at 0: e^r for |r| <= log(2) / 2 and 2^f for |f| <= 1/2, relative
  /// error 9.1e-8.
  static constexpr float natural[] = {
      1, 0.9999997072F, 0.4999914953F, 0.166676362F, 0.04189792929F, 0.008290314691F};
  static constexpr float binary[] = {
      1, 0.6931469776F, 0.2402224209F, 0.05550733743F, 0.009671512638F, 0.001326472716F};
};
template <>
struct exp_constants<double> {
  static constexpr double magic = 0x1.8p52 + 1023;
  static constexpr int mantissa_bits = 52;
  static constexpr double underneath = 1;
  static constexpr double lowest = -709;
  static constexpr double log2_high = 0x1.62e42feep-1;
  static constexpr double log2_low = 0x1.a39ef35793c76p-33;
  static constexpr int degree = 13;
  /// The Taylor series: what it leaves out is below 1e-17.
  static constexpr double natural[] = {1,
                                       1,
                                       1 / 2.0,
                                       1 / 6.0,
                                       1 / 24.0,
                                       1 / 120.0,
                                       1 / 720.0,
                                       1 / 5040.0,
                                       1 / 40320.0,
                                       1 / 362880.0,
                                       1 / 3628800.0,
                                       1 / 39916800.0,
                                       1 / 479001600.0,
                                       1 / 6227020800.0};
};

/// 2^n for the n that adding `magic` left in the low bits; 0 for the lowest one.
template <class R>
PROSPECT_INLINE numbers<R> power_of_two(numbers<R> shifted) {
  using bits = typename lane_types<R>::bits;
  return (numbers<R>)((bits)shifted << exp_constants<R>::mantissa_bits);
}

template <int degree, class Numbers, class Coefficients>
PROSPECT_INLINE Numbers polynomial(Numbers x, const Coefficients& c) {
  Numbers y = x * c[degree] + c[degree - 1];
  unrolled<degree - 1>([&](int k)
                           __attribute__((always_inline)) { y = y * x + c[degree - 2 - k]; });
  return y;
}

/// 2^t in fp32 for t in [-127, 127]; 0 below -126; NaN stays NaN. Relative error below 1.6e-7.
PROSPECT_INLINE floats power(floats t) {
  using c = exp_constants<float>;
  const floats shifted = t + c::magic;
  const floats f = t - (shifted - c::magic);
  return product_unless_below(t, every_lane<floats>(-126.0F), polynomial<c::degree>(f, c::binary),
                              power_of_two<float>(shifted));
}

/// A factor as mantissa 2^power, the mantissa in [1/4, 1/2): so that a factor of any size leaves
/// the coefficients it becomes part of their digits, and a power of two that is never subnormal.
template <std::floating_point R>
struct split_factor {
  R mantissa;
  int power = 0;
  double
      log;  ///< of its magnitude; for 0 a number as well, since what it is relative to must be one

  explicit split_factor(R factor)
      : mantissa{factor}, log{factor == 0 ? 0.0 : std::log(std::abs(double{factor}))} {
    if (factor == 0 || !is_finite(factor)) return;
    // A power of 2 that is too high for its own exponent stays in the mantissa.
    power = (std::min)(std::ilogb(factor), std::numeric_limits<R>::max_exponent - 28) + 2;
    mantissa = std::ldexp(factor, -power);
  }
};

// Two ways to mantissa 2^t, which both begin with t + magic: t is whole in its low bits.

/// By a polynomial of what rounding left of t; 0 where x is lower than `least`.
class polynomial_power {
  using c = exp_constants<float>;

 public:
  static constexpr float magic = c::magic;
  static constexpr bool of_any = false;   ///< whether t may be anything where the result is 0
  static constexpr double lowest = -126;  ///< the least t whose result need not be

  explicit polynomial_power(float mantissa) {
    for (int k = 0; k <= c::degree; ++k) {
      coefficients_[k] = every_lane<floats>(mantissa * c::binary[k]);
    }
  }
  PROSPECT_INLINE floats operator()(floats shifted, floats rest, floats x, floats least) const {
    return product_unless_below(x, least, polynomial<c::degree>(rest, coefficients_),
                                power_of_two<float>(shifted));
  }

 private:
  floats coefficients_[c::degree + 1];
};

#if PROSPECT_CPU_KEEPS_AVX512
/// From a table of 2^(k/32), which two registers hold: t is whole in 32nds, and a polynomial
/// through 1 of degree 2 does for what is left, relative error 5.3e-8. Three instructions less than
/// the other, and of those that multiply. The mantissa is finite and not 0.
class tabulated_power {
 public:
  static constexpr float magic = 0x1.8p18F;
  static constexpr bool of_any = true;
  /// So that no power is subnormal itself, even where x has no digits for the half of a 32nd.
  static constexpr double lowest = -126 + 1.0 / 32;

  explicit tabulated_power(float mantissa) {
    constexpr double step = 1.02189714865411667824;  // 2^(1/32)
    std::uint32_t entries[2 * lanes<float>];
    double power = 1;
    for (std::uint32_t k = 0; k < 2 * lanes<float>; ++k, power *= step) {
      // So that adding all of t in 32nds adds whole powers alone.
      const auto bits = __builtin_bit_cast(std::uint32_t, static_cast<float>(mantissa * power));
      entries[k] = bits - (k << to_exponent);
    }
    low_ = load_vector<words>(entries);
    high_ = load_vector<words>(entries + lanes<float>);
  }
  PROSPECT_INLINE floats operator()(floats shifted, floats rest, floats x, floats least) const {
    const auto in_32nds = (words)shifted;
    const auto entry =
        (words)_mm512_permutex2var_epi32((__m512i)low_, (__m512i)in_32nds, (__m512i)high_);
    const auto power = (__m512)(entry + (in_32nds << to_exponent));
    const auto growth = (__m512)(rest * (rest * 0.2402265F + 0.69315733F));
    const auto kept = _mm512_cmp_ps_mask((__m512)x, (__m512)least, _CMP_NLT_UQ);
    return (floats)_mm512_maskz_fmadd_ps(kept, power, growth, power);
  }

 private:
  static constexpr int to_exponent = 18;  // of a float
  words low_, high_;
};
using best_power = tabulated_power;
#else
using best_power = polynomial_power;
#endif

/// factor e^(x - power / log2_e) where there is FMA. The shift being a whole power of two, x takes
/// one instruction to its own power and one more (two for fp32 storage, where every digit counts)
/// to what is left of it, and keeps its digits whatever their difference.
///
/// For x and shifts up to `limit` in magnitude, and lower x; 0 below the smallest normal number, or
/// up to three hundredths above it.
template <storage S>
class whole_power_exponential {
  using c = exp_constants<float>;
  static constexpr bool every_digit = std::same_as<S, float>;

 public:
  static constexpr bool exists = has_fma && std::same_as<compute_t<S>, float>;
  static constexpr double limit = 65536;
  static constexpr float log2_e_high = 1.44269504F;
  static constexpr float log2_e_low = static_cast<float>(detail::log2_e - log2_e_high);
  /// Without the low part, what it leaves out of x it leaves out of the shift as well.
  static constexpr double log2_e = every_digit ? detail::log2_e : double{log2_e_high};

  /// The whole power next to e^x.
  static double power_near(double x) { return std::nearbyint(x * log2_e); }

  /// The factor is finite and not 0.
  whole_power_exponential(float factor, double power)
      : whole_power_exponential{split_factor<float>{factor}, power} {}

  /// x, and where the result is 0 a finite number.
  PROSPECT_INLINE floats clamped(floats x) const { return larger(least_, x); }  // keeps NaN

  /// x log2_e + y, every digit of the product that the storage type has.
  PROSPECT_INLINE static floats product_plus(floats x, floats y) {
    y = fused(x, every_lane<floats>(log2_e_high), y);
    return every_digit ? fused(x, every_lane<floats>(log2_e_low), y) : y;
  }
  PROSPECT_INLINE floats operator()(floats x) const {
    const floats inside = best_power::of_any ? x : clamped(x);
    const floats shifted = fused(inside, every_lane<floats>(log2_e_high), magic_);
    return power_(shifted, product_plus(inside, magic_ - shifted), x, least_);
  }

 private:
  whole_power_exponential(const split_factor<float>& f, double power)
      : power_{f.mantissa},
        magic_{every_lane<floats>(static_cast<float>(best_power::magic - (power - f.power)))},
        // Not above what still counts, nor below what a power can be.
        least_{every_lane<floats>(std::nextafter(
            static_cast<float>((std::max)((power + best_power::lowest) / log2_e - f.log,
                                          (power + best_power::lowest - f.power) / log2_e)),
            -std::numeric_limits<float>::infinity()))} {}

  best_power power_;
  floats magic_, least_;
};

/// factor e^(x + lost), the factor being part of the polynomial's coefficients.
/// x in [-inf, 71] ([-inf, 709] in fp64); 0 below the smallest normal number.
/// `lost` is small: what rounded away when x was computed.
template <class R>
struct exponential {
  using c = exp_constants<R>;
  numbers<R> coefficients[c::degree + 1];
  numbers<R> magic, least;

  explicit exponential(R factor) {
    const split_factor<R> f{factor};
    for (int k = 0; k <= c::degree; ++k) {
      coefficients[k] = every_lane<numbers<R>>(f.mantissa * c::natural[k]);
    }
    magic = every_lane<numbers<R>>(c::magic + R(f.power));
    const double normal = std::log(double{smallest_normal<R>});
    const double lowest = (std::max)(normal - f.log, normal - f.power / detail::log2_e);
    least = every_lane<numbers<R>>(
        std::nextafter(static_cast<R>(lowest), -std::numeric_limits<R>::infinity()));
  }
  template <class... Lost>
  PROSPECT_INLINE numbers<R> operator()(numbers<R> x, Lost... lost) const {
    const numbers<R> inside = larger(least, x);
    const numbers<R> shifted = inside * R(log2_e) + magic;
    const numbers<R> n = shifted - magic;
    numbers<R> r = (inside - n * c::log2_high) - n * c::log2_low;
    ((r += lost), ...);
    return product_unless_below(x, least, polynomial<c::degree>(r, coefficients),
                                power_of_two<R>(shifted));
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
