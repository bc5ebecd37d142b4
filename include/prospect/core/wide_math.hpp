// What the fp32 primitives are made of on the host: exp, expm1, log and log1p of a float, evaluated
// in double. One rounding at the end then is all the error there is, without compensated sums and
// without a fused multiply-add. Nothing here calls or branches, so the same lines serve one double
// and several side by side. Accurate to 6e-10, which is 1/100 ulp of a result in fp32.
#pragma once

#include <prospect/core/number.hpp>

#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::detail::wide {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double log_2 = 0.693147180559945309417232121458;

template <class D>
PROSPECT_HD constexpr D magnitude(D x) noexcept {
  return bit_cast<D>(bit_cast<bits_of_t<D>>(x) & (~std::uint64_t{0} >> 1));
}

/// c0 + x (c1 + x (c2 + ...)).
template <class D>
PROSPECT_HD constexpr D polynomial(D, double c) noexcept {
  return D(c);
}
template <class D, class... C>
PROSPECT_HD constexpr D polynomial(D x, double c, C... higher) noexcept {
  return D(c) + x * polynomial(x, higher...);
}

/// e^x = power + power minus_1, where power is 2 to the nearest integer of x / log 2: so e^x - 1
/// keeps its digits around 0.
template <class D>
struct exp_parts {
  D power, minus_1;

  PROSPECT_HD constexpr D exp() const noexcept { return power + power * minus_1; }
  PROSPECT_HD constexpr D expm1() const noexcept { return (power - D(1)) + power * minus_1; }
};
/// For x in [-700, 700], and NaN.
template <class D>
PROSPECT_HD constexpr exp_parts<D> parts_of_exp(D x) noexcept {
  // Adding this rounds to an integer, which stands, biased as an exponent is, in the low bits.
  constexpr double magic = 0x1.8p52 + 1023;
  const D shifted = x * D(1 / log_2) + D(magic);
  const D r = x - (shifted - D(magic)) * D(log_2);
  return {
      .power = bit_cast<D>(bit_cast<bits_of_t<D>>(shifted) << 52),
      // Through the Chebyshev nodes of |r| <= log(2) / 2.
      .minus_1 = r * polynomial(r, 1, 0.500000001346581, 0.16666666681623232, 0.041666464925285904,
                                0.0083333109254809, 0.0013933649996309251, 0.00019890990824673654)};
}

// Where a float has long become 0, or infinity. NaN is handed on.
template <class D>
PROSPECT_HD constexpr D not_below(D x) noexcept {
  return larger(D(-150), x);
}
template <class D>
PROSPECT_HD constexpr D bounded(D x) noexcept {
  return -larger(D(-100), -not_below(x));
}

template <class D>
PROSPECT_HD constexpr D exp(D x) noexcept {
  return parts_of_exp(bounded(x)).exp();
}
template <class D>
PROSPECT_HD constexpr D expm1(D x) noexcept {
  return parts_of_exp(bounded(x)).expm1();
}
/// e^-|x|, in (0, 1].
template <class D>
PROSPECT_HD constexpr D exp_below(D x) noexcept {
  return parts_of_exp(not_below(-magnitude(x))).exp();
}

/// 2 atanh(s) = log((1 + s) / (1 - s)) for |s| <= 1/3, through the Chebyshev nodes in s s.
template <class D>
PROSPECT_HD constexpr D twice_atanh(D s) noexcept {
  return s * polynomial(s * s, 2, 0.6666666732052742, 0.39999706331929685, 0.28592357994303885,
                        0.2170657580086774, 0.23224329224074028);
}

/// log(x + lost), where lost is what rounding took from x.
template <class D>
PROSPECT_HD constexpr D log(D x, D lost = D(0)) noexcept {
  // x = 2^k m with m in [sqrt(1/2), sqrt(2)); k stands, biased, in the upper bits.
  constexpr std::uint64_t one = 0x3ff0000000000000U;
  constexpr std::uint64_t root_half = 0x3fe6a09e667f3bcdU;
  constexpr std::uint64_t twice_bias = 2046;
  constexpr std::uint64_t exponent_of_2_52 = 0x4330000000000000U;
  const auto bits = bit_cast<bits_of_t<D>>(x);
  const auto biased = (bits + (one - root_half)) >> 52;
  const D m = bit_cast<D>(bits - (biased << 52) + one);
  const D down = bit_cast<D>((twice_bias - biased) << 52);
  const D k = bit_cast<D>(biased | exponent_of_2_52) - D(0x1p52 + 1023);
  const D f = (m - D(1)) + lost * down;
  const D y = k * D(log_2) + twice_atanh(f / (D(2) + f));
  // Infinity and NaN are handed on.
  const D right = select(x < D(infinity), y, x);
  const D left = select(x < D(0), D(std::numeric_limits<double>::quiet_NaN()), D(-infinity));
  return select(x <= D(0), left, right);
}

template <class D>
PROSPECT_HD constexpr D log1p(D x) noexcept {
  const D sum = D(1) + x;
  // Far from 1 what is lost plays no part, and at infinity it is no number.
  return wide::log(sum, select(x < D(1), x - (sum - D(1)), D(0)));
}

/// 1 / (1 + e^-x).
template <class D>
PROSPECT_HD constexpr D sigmoid(D x) noexcept {
  const D e = exp_below(x);
  return select(x < D(0), e, D(1)) * (D(1) / (D(1) + e));
}

/// e^-x / (1 + e^-x)^2.
template <class D>
PROSPECT_HD constexpr D sigmoid_slope(D x) noexcept {
  const D e = exp_below(x);
  const D inverse = D(1) / (D(1) + e);
  return (e * inverse) * inverse;
}

/// log(1 + e^x).
template <class D>
PROSPECT_HD constexpr D softplus(D x) noexcept {
  const D e = exp_below(x);
  return select(x < D(0), D(0), x) + twice_atanh(e / (D(2) + e));
}

/// log(1 - e^x) for x <= 0: of whichever of 1 - e^x and -(e^x - 1) keeps its digits.
template <class D>
PROSPECT_HD constexpr D log1mexp(D x) noexcept {
  const D e = wide::exp(x);
  const D difference = D(1) - e;
  const auto left = x < D(-log_2);
  return wide::log(select(left, difference, -wide::expm1(x)),
                   select(left, (D(1) - difference) - e, D(0)));
}

/// Its derivative, -1 / (e^-x - 1): -inf at 0.
template <class D>
PROSPECT_HD constexpr D log1mexp_slope(D x) noexcept {
  return -(wide::exp(x) / magnitude(wide::expm1(x)));
}

}  // namespace prospect::inline v1::detail::wide
PROSPECT_STRICT_END
