// Numerically stable primitives: the only functions a loss formula is built from. Each is accurate
// to 2 ulp in fp32 on the whole line, saturates instead of overflowing, and hands NaN on. On the
// host, in fp32, they are evaluated in double without branches or calls (wide_math.hpp), so that
// they take one number or several side by side; a class of several may bring its own.
// Derivatives that have a stable closed form of their own stand beside their function;
// core/dual.hpp puts the two together.
#pragma once

#include <prospect/core/precise.hpp>
#include <prospect/core/wide_math.hpp>

#include <cmath>
#include <concepts>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

namespace detail {

/// Whether primitives of R are evaluated in double and rounded once. A device has fast functions
/// of its own, and double has no wider type to go to.
#if defined(__CUDA_ARCH__)
template <number R>
inline constexpr bool rounds_once = false;
#else
template <number R>
inline constexpr bool rounds_once = !std::same_as<R, double> && !std::same_as<R, long double>;
#endif

/// numerator / (high + low), where low is what was lost when high was rounded.
template <std::floating_point R>
PROSPECT_HD inline R divide(R numerator, R high, R low) noexcept {
  const R quotient = precise::divide(numerator, high);
  const R remainder = std::fma(-quotient, high, numerator) - quotient * low;
  return quotient + precise::divide(remainder, high);
}

}  // namespace detail

/// f(x), evaluated in double and rounded once.
template <class F>
PROSPECT_HD constexpr float in_double(float x, const F& f) noexcept {
  return static_cast<float>(f(static_cast<double>(x)));
}

template <number R>
PROSPECT_HD inline R exp(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::exp(d); });
  } else {
    return detail::precise::exp(x);
  }
}

/// e^x - 1.
template <number R>
PROSPECT_HD inline R expm1(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::expm1(d); });
  } else {
    return std::expm1(x);
  }
}

template <number R>
PROSPECT_HD inline R log(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::log(d); });
  } else {
    return detail::precise::log(x);
  }
}

/// log(1 + x).
template <number R>
PROSPECT_HD inline R log1p(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::log1p(d); });
  } else {
    return std::log1p(x);
  }
}

/// 1 / (1 + e^-x). Never write 1 - sigmoid(x), which is exactly 0 from x = 17 on in fp32: write
/// sigmoid(-x).
template <number R>
PROSPECT_HD inline R sigmoid(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::sigmoid(d); });
  } else {
    const R e = detail::precise::exp(-std::abs(x));
    // On the left e / (1 + e) = e - e (e / (1 + e)): the rounding of 1 + e then touches the small
    // term.
    return x >= R(0) ? detail::precise::divide(R(1), R(1) + e)
                     : e - e * detail::precise::divide(e, R(1) + e);
  }
}

/// sigmoid'(x) = sigmoid(x) sigmoid(-x) = e / (1 + e)^2 with e = e^-|x|.
template <number R>
PROSPECT_HD inline R sigmoid_slope(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::sigmoid_slope(d); });
  } else {
    const R e = detail::precise::exp(-std::abs(x));
    const R sum = R(1) + e;
    const R lost = (R(1) - sum) + e;
    const R square = sum * sum;
    const R square_lost = std::fma(sum, sum, -square) + R(2) * lost * sum;
    return detail::divide(e, square, square_lost);
  }
}

/// log(1 + e^x) = -log sigmoid(-x). Its derivative is sigmoid(x).
template <number R>
PROSPECT_HD inline R softplus(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::softplus(d); });
  } else {
    const R positive_part = x < R(0) ? R(0) : x;
    return positive_part + std::log1p(detail::precise::exp(-std::abs(x)));
  }
}

/// log sigmoid(x) = -softplus(-x). Its derivative is sigmoid(-x).
template <number R>
PROSPECT_HD inline R log_sigmoid(R x) noexcept {
  return -softplus(-x);
}

/// log(1 - e^x) for x <= 0: the log-probability of "not", given a log-probability.
/// -inf at 0, NaN for x > 0. (Maechler 2012, the branch at -log 2 keeps all digits.)
template <number R>
PROSPECT_HD inline R log1mexp(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::log1mexp(d); });
  } else {
    constexpr R minus_log_2 = R(-0.693147180559945309417232121458);
    return x < minus_log_2 ? std::log1p(-detail::precise::exp(x))
                           : detail::precise::log(-std::expm1(x));
  }
}

/// log1mexp'(x) = -1 / (e^-x - 1).
template <number R>
PROSPECT_HD inline R log1mexp_slope(R x) noexcept {
  if constexpr (detail::rounds_once<R>) {
    return in_double(x, [](auto d) { return detail::wide::log1mexp_slope(d); });
  } else {
    // Far on the left e^-x overflows while the slope -e^x is still a number. The magnitude, because
    // expm1(-0) is -0 and the slope at 0 is -inf from where the function lives.
    return x < R(-80) ? -detail::precise::exp(x)
                      : detail::precise::divide(R(-1), std::abs(std::expm1(-x)));
  }
}

/// max(0, x). The derivative at the kink is 0.
template <number R>
PROSPECT_HD constexpr R relu(R x) noexcept {
  return select(x < R(0), R(0), x);
}

template <number R>
PROSPECT_HD constexpr R square(R x) noexcept {
  return x * x;
}

/// x, held inside [low, high]. The derivative is 1 inside and on the bounds, 0 outside.
template <number R>
PROSPECT_HD constexpr R clamp(R x, R low, R high) noexcept {
  return select(x < low, low, select(x > high, high, x));
}

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
