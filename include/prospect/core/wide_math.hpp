// What the fp32 primitives are made of on the host: exp, log, pow and their relatives of a float,
// evaluated in double. One rounding at the end then is all the error there is, without compensated
// sums and without a fused multiply-add. Nothing here calls or branches, so the same lines serve
// one double and several side by side. Accurate to 6e-10, which is 1/100 ulp of a result in fp32.
#pragma once

#include <prospect/core/number.hpp>

#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail::wide {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double most = (std::numeric_limits<double>::max)();
constexpr double no_number = std::numeric_limits<double>::quiet_NaN();
constexpr double log_2 = 0.693147180559945309417232121458;

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
  return smaller(D(100), not_below(x));
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
  return parts_of_exp(not_below(-absolute(x))).exp();
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
  const D s = f / (D(2) + f);
  // 2 atanh(s), its relative error 2e-11: an exponent may be a hundred.
  const D y = k * D(log_2) + s * polynomial(s * s, 2, 0.6666666655449704, 0.4000012183984329,
                                            0.28550820811744637, 0.23330467331025373);
  // Infinity and NaN are handed on.
  const D right = select(x <= D(most), y, x);
  const D left = select(x < D(0), D(no_number), D(-infinity));
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
  return -(wide::exp(x) / absolute(wide::expm1(x)));
}

template <class D>
PROSPECT_HD constexpr D tanh(D x) noexcept {
  // e^-2|x| - 1
  const D below = parts_of_exp(not_below(-(absolute(x) + absolute(x)))).expm1();
  return with_sign_of(x, below / (D(2) + below));
}

/// Its derivative, 1 / cosh(x)^2.
template <class D>
PROSPECT_HD constexpr D tanh_slope(D x) noexcept {
  return D(4) * wide::sigmoid_slope(x + x);
}

// A power is e^(exponent log|base|), with a sign. Where the C library's pow has a value for a base
// that is 0 or infinite, or for an infinite exponent, these have the same; but NaN is handed on
// whatever stands beside it.

/// Held inside [-bound, bound]. So 0 times it is 0; NaN is handed on.
template <class D>
PROSPECT_HD constexpr D within(D x, double bound) noexcept {
  return smaller(D(bound), larger(D(-bound), x));
}
template <class D>
PROSPECT_HD constexpr D if_integer(D x, D yes, D no) noexcept {
  // From here on all doubles are integers, so adding it rounds to one.
  constexpr double all_integers = 0x1p52;
  const D size = absolute(x);
  const D fraction = size - ((size + D(all_integers)) - D(all_integers));
  return select(fraction == D(0), yes, select(size < D(all_integers), no, yes));
}
template <class D>
PROSPECT_HD constexpr D pow(D base, D exponent) noexcept {
  const D size = absolute(base);
  const D log_size = within(wide::log(size), most);
  // The result saturates far outside of what a float can hold, so that a factor brings it back.
  const D power = parts_of_exp(within(within(exponent, 1e200) * log_size, 700)).exp();
  // The sign of a negative base: that of an odd integer is kept, and between two integers there is
  // none, except for what is no number in the usual sense.
  const D between = select(size == D(0), D(1), select(size > D(most), D(1), D(no_number)));
  const D if_negative = if_integer(exponent * D(0.5), D(1), if_integer(exponent, D(-1), between));
  return power * select(with_sign_of(base, D(1)) < D(0), if_negative, D(1));
}
/// Its derivative in the base: exponent base^(exponent - 1).
template <class D>
PROSPECT_HD constexpr D pow_slope(D base, D exponent) noexcept {
  return within(exponent, 1e200) * wide::pow(base, exponent - D(1));
}
/// Its derivative in the exponent: base^exponent log(base), and 0 where that only tends to 0.
template <class D>
PROSPECT_HD constexpr D pow_slope_in_exponent(D base, D exponent) noexcept {
  const D slope = wide::pow(base, exponent) * wide::log(base);
  const D at_0 = select(exponent >= D(0), D(0), slope);
  const D at_infinity = select(exponent < D(0), D(0), slope);
  return select(base == D(0), at_0, select(base > D(most), at_infinity, slope));
}

}  // namespace prospect::inline v2::detail::wide
PROSPECT_STRICT_END
