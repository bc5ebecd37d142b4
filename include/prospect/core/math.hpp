// Numerically stable primitives: the only functions a loss formula is built from. Each is accurate
// to 2 ulp in fp32 on the whole line, saturates instead of overflowing, and hands NaN on, whatever
// flags the formula is compiled with:
//
//   exp  expm1  log  log1p  sigmoid  softplus  log_sigmoid  log1mexp  tanh
//   pow  sqrt  abs  square  relu  clamp, and select where a formula chooses (number.hpp)
//
// On the host, in fp32, they are evaluated in double without branches or calls (wide_math.hpp), so
// that they take one number or several side by side; a class of several may bring its own. A device
// has fast functions of its own for all but tanh and pow.
// Derivatives that have a stable closed form of their own stand beside their function;
// core/dual.hpp puts the two together.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/core/precise.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/core/wide_math.hpp>

#include <cmath>
#include <concepts>
#include <limits>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

/// Whether R has a wider type to go to.
template <number R>
inline constexpr bool in_fp32 = !std::same_as<R, double> && !std::same_as<R, long double>;
/// Whether what a device has fast functions for is evaluated in double and rounded once.
#if defined(__CUDA_ARCH__)
template <number R>
inline constexpr bool rounds_once = false;
#else
template <number R>
inline constexpr bool rounds_once = in_fp32<R>;
#endif

inline namespace PROSPECT_ISA {

/// 1 / x to the last digit. Left to a host's flags, it may become an estimate.
template <number R>
PROSPECT_HD_APART constexpr R reciprocal(R x) noexcept {
  return precise::divide(R(1), x);
}

}  // namespace PROSPECT_ISA

}  // namespace detail

/// f(x), evaluated in double and rounded once.
template <class F>
PROSPECT_HD constexpr float in_double(float x, const F& f) noexcept {
  return static_cast<float>(f(static_cast<double>(x)));
}
template <class F>
PROSPECT_HD constexpr float in_double(float x, float y, const F& f) noexcept {
  return static_cast<float>(f(static_cast<double>(x), static_cast<double>(y)));
}

namespace detail {

/// What may be the exponent of a power of R's.
template <class E, class R>
concept exponent_of = std::is_arithmetic_v<E> || std::same_as<E, R>;
template <class B>
concept plain_base = std::is_arithmetic_v<B>;

/// f(base, exponent) in double, where a plain exponent is not rounded before.
template <class R, class E, class F>
PROSPECT_HD constexpr R with_exponent(R base, E exponent, const F& f) noexcept {
  if constexpr (std::is_arithmetic_v<E>) {
    return in_double(
        base, [&](auto b) __attribute__((always_inline)) {
          return f(b, decltype(b)(static_cast<double>(exponent)));
        });
  } else {
    return in_double(base, exponent, f);
  }
}

}  // namespace detail

inline namespace PROSPECT_ISA {

template <number R>
PROSPECT_HD_APART R exp(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::exp(d); });
  } else {
    return detail::precise::exp(x);
  }
}

/// e^x - 1.
template <number R>
PROSPECT_HD_APART R expm1(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::expm1(d); });
  } else {
    return std::expm1(x);
  }
}

template <number R>
PROSPECT_HD_APART R log(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::log(d); });
  } else {
    return detail::precise::log(x);
  }
}

/// log(1 + x).
template <number R>
PROSPECT_HD_APART R log1p(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::log1p(d); });
  } else {
    return std::log1p(x);
  }
}

/// 1 / (1 + e^-x). Never write 1 - sigmoid(x), which is exactly 0 from x = 17 on in fp32: write
/// sigmoid(-x).
template <number R>
PROSPECT_HD_APART R sigmoid(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::sigmoid(d); });
  } else {
    const R e = detail::precise::exp(-detail::absolute(x));
    const R right = detail::precise::inverse(R(1) + e);
    // On the left e / (1 + e) = e - e (e / (1 + e)): the rounding of 1 + e then touches the small
    // term.
    return select(x < R(0), e - e * (e * right), right);
  }
}

/// sigmoid'(x) = sigmoid(x) sigmoid(-x) = e / (1 + e)^2 with e = e^-|x|.
template <number R>
PROSPECT_HD_APART R sigmoid_slope(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::sigmoid_slope(d); });
  } else {
    const R e = detail::precise::exp(-detail::absolute(x));
    const R sum = R(1) + e;
    const R lost = (R(1) - sum) + e;
    const R square = sum * sum;
    const R square_lost = std::fma(sum, sum, -square) + R(2) * lost * sum;
    const R inverse = detail::precise::inverse(square);
    const R slope = e * inverse;
    return slope + inverse * (std::fma(-slope, square, e) - slope * square_lost);
  }
}

/// log(1 + e^x) = -log sigmoid(-x). Its derivative is sigmoid(x).
template <number R>
PROSPECT_HD_APART R softplus(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::softplus(d); });
  } else {
    const R positive_part = select(x < R(0), R(0), x);
    return positive_part + std::log1p(detail::precise::exp(-detail::absolute(x)));
  }
}

/// log sigmoid(x) = -softplus(-x). Its derivative is sigmoid(-x).
template <number R>
PROSPECT_HD_APART R log_sigmoid(R x) noexcept {
  return -softplus(-x);
}

/// log(1 - e^x) for x <= 0: the log-probability of "not", given a log-probability.
/// -inf at 0, NaN for x > 0. (Maechler 2012, the branch at -log 2 keeps all digits.)
template <number R>
PROSPECT_HD_APART R log1mexp(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::log1mexp(d); });
  } else {
    constexpr R minus_log_2 = R(-0.693147180559945309417232121458);
    return x < minus_log_2 ? std::log1p(-detail::precise::exp(x))
                           : detail::precise::log(-std::expm1(x));
  }
}

/// log1mexp'(x) = -1 / (e^-x - 1).
template <number R>
PROSPECT_HD_APART R log1mexp_slope(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::log1mexp_slope(d); });
  } else {
    // Far on the left e^-x overflows while the slope -e^x is still a number. The magnitude, because
    // expm1(-0) is -0 and the slope at 0 is -inf from where the function lives.
    return x < R(-80) ? -detail::precise::exp(x)
                      : detail::precise::divide(R(-1), detail::absolute(std::expm1(-x)));
  }
}

/// (e^2x - 1) / (e^2x + 1).
template <number R>
PROSPECT_HD_APART R tanh(R x) noexcept {
  if constexpr (detail::in_fp32<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::tanh(d); });
  } else {
    return std::tanh(x);
  }
}

/// tanh'(x) = 1 / cosh(x)^2.
template <number R>
PROSPECT_HD_APART R tanh_slope(R x) noexcept {
  if constexpr (detail::in_fp32<R>) {
    return in_double(
        x, [](auto d) __attribute__((always_inline)) { return detail::wide::tanh_slope(d); });
  } else {
    // From 20 on the cosine is e^|x| / 2 to the last digit, and 4 e^-2|x| would lose its digits
    // before the product does.
    const R outside = R(2) * std::exp(-detail::absolute(x));
    return detail::absolute(x) > R(20) ? outside * outside : R(4) * sigmoid_slope(R(2) * x);
  }
}

/// base^exponent, as the C library's pow has it: a negative base takes integer exponents only, and
/// base^0 is 1, for 0 and infinity as well. But NaN is NaN, even to the power of 0. An exponent
/// that is a plain number keeps all its digits.
template <number R, detail::exponent_of<R> E>
PROSPECT_HD_APART R pow(R base, E exponent) noexcept {
  if constexpr (detail::in_fp32<R>) {
    return detail::with_exponent(
        base, exponent,
        [](auto b, auto e) __attribute__((always_inline)) { return detail::wide::pow(b, e); });
  } else {
    const R e = static_cast<R>(exponent);
    return detail::is_nan(static_cast<double>(base)) || detail::is_nan(static_cast<double>(e))
               ? base + e
               : std::pow(base, e);
  }
}
template <detail::plain_base B, number R>
  requires(!std::floating_point<R> || !std::floating_point<B>)
PROSPECT_HD_APART R pow(B base, R exponent) noexcept {
  return pow(static_cast<R>(base), exponent);
}

/// The derivative in the base, exponent base^(exponent - 1): 0 for an exponent of 0 and 1 for one
/// of 1, wherever the base is. At a base of 0 it is infinite for other exponents below 1.
template <number R, detail::exponent_of<R> E>
PROSPECT_HD_APART R pow_slope(R base, E exponent) noexcept {
  if constexpr (detail::in_fp32<R>) {
    return detail::with_exponent(
        base, exponent, [](auto b, auto e) __attribute__((always_inline)) {
          return detail::wide::pow_slope(b, e);
        });
  } else {
    const R e = static_cast<R>(exponent);
    const R value = pow(base, e);
    if (e == R(0)) return value - R(1);
    // Where it is a number, this keeps the digits that e - 1 loses.
    const R scaled = e * value;
    const R size = detail::absolute(scaled);
    return size > R(1e-280) && size < R(1e280) ? scaled / base : e * pow(base, e - R(1));
  }
}

/// The derivative in the exponent, base^exponent log(base): NaN for a negative base, and 0 where it
/// only tends to 0 (at a base of 0, for exponents from 0 on).
template <number R>
PROSPECT_HD_APART R pow_slope_in_exponent(R base, R exponent) noexcept {
  if constexpr (detail::in_fp32<R>) {
    return in_double(
        base, exponent, [](auto b, auto e) __attribute__((always_inline)) {
          return detail::wide::pow_slope_in_exponent(b, e);
        });
  } else {
    constexpr R largest = (std::numeric_limits<R>::max)();
    const bool vanishes = base == R(0) ? exponent >= R(0) : base > largest && exponent < R(0);
    return vanishes ? R(0) : pow(base, exponent) * std::log(base);
  }
}

/// NaN for x < 0. Rounded correctly.
template <std::floating_point R>
PROSPECT_HD_APART R sqrt(R x) noexcept {
#if defined(__CUDA_ARCH__)
  if constexpr (std::same_as<R, float>) return __fsqrt_rn(x);
  return std::sqrt(x);
#else
  // The standard library's function is compiled with a host's flags, which may make it an estimate;
  // -ffinite-math-only lets clang do the same to its own.
  if constexpr (std::same_as<R, float>) {
#if PROSPECT_CHOOSES_BITS && defined(__AVX__)
    asm("vsqrtss %0, %0, %0" : "+x"(x));
    return x;
#elif PROSPECT_CHOOSES_BITS && defined(__SSE2__)
    asm("sqrtss %0, %0" : "+x"(x));
    return x;
#else
    return __builtin_sqrtf(x);
#endif
  } else if constexpr (std::same_as<R, double>) {
    return __builtin_sqrt(x);
  } else {
    return std::sqrt(x);
  }
#endif
}

/// sqrt'(x) = 1 / (2 sqrt(x)): +inf at 0, of either sign.
template <number R>
PROSPECT_HD_APART R sqrt_slope(R x) noexcept {
  return detail::precise::divide(R(0.5), detail::absolute(sqrt(x)));
}

/// |x|. The derivative at the kink is 0.
template <number R>
PROSPECT_HD_APART constexpr R abs(R x) noexcept {
  return detail::absolute(x);
}

/// max(0, x). The derivative at the kink is 0.
template <number R>
PROSPECT_HD_APART constexpr R relu(R x) noexcept {
  return select(x < R(0), R(0), x);
}

template <number R>
PROSPECT_HD_APART constexpr R square(R x) noexcept {
  return x * x;
}

/// x, held inside [low, high]. The derivative is 1 inside and on the bounds, 0 outside.
template <number R>
PROSPECT_HD_APART constexpr R clamp(R x, R low, R high) noexcept {
  return select(x < low, low, select(x > high, high, x));
}

}  // namespace PROSPECT_ISA
}  // namespace prospect::inline v2
PROSPECT_STRICT_END
