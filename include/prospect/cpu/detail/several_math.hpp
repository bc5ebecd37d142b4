// The primitives that losses live on, for several floats at once where there is FMA: fp32 from end
// to end, half the work of the way through double. What rounding takes from an intermediate result
// is carried along beside it, so that each is within 2 ulp on the whole line, as everywhere. They
// are found by argument, before those of core/math.hpp.
#pragma once

#include <prospect/cpu/detail/exponentials.hpp>
#include <prospect/cpu/detail/several.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

#if PROSPECT_CPU_VECTOR_BYTES > 16

PROSPECT_INLINE several<float> fused(several<float> a, several<float> b, several<float> c) {
  return fused(a.lane, b.lane, c.lane);
}

/// What numbers that are raised, lest a subnormal one lose its digits, are in units of.
inline constexpr float raised_unit = exp_constants<float>::underneath;

/// e^(x - n log 2) - 1, where n is the integer next to x / log 2.
PROSPECT_INLINE several<float> rest_of_exp(several<float> x, several<float> n) {
  using c = exp_constants<float>;
  // (e^r - 1 - r) / r^2 for |r| <= log(2) / 2; its error is 3.2e-9 of e^r.
  constexpr float beyond_linear[] = {0.49999994F, 0.16666521F, 0.041668255F, 0.008368663F,
                                     0.0013821468F};
  const several<float> r = fused(n, -c::log2_low, fused(n, -c::log2_high, x));
  return fused(r * r, polynomial<4>(r.lane, beyond_linear), r);
}

/// e^-|x|, raised: high + low.
struct raised_exponential {
  several<float> high, low;

  PROSPECT_INLINE explicit raised_exponential(several<float> x) {
    using c = exp_constants<float>;
    constexpr float magic = c::magic + float{c::headroom};
    const several<float> minus = (floats)((words)x.lane | 0x80000000U);
    const several<float> d = larger(several<float>(-104), minus);  // keeps NaN
    const several<float> shifted = fused(d, float(log2_e), magic);
    const several<float> n = shifted - magic;
    const several<float> power = power_of_two<float>(shifted.lane);
    const several<float> minus_1 = rest_of_exp(d, n);
    high = fused(power, minus_1, power);
    low = fused(power, minus_1, power - high);
  }
};

/// 1 / (1 + e^-|x|) = quotient + rest, for sigmoids on either side of 0.
struct sigmoid_parts {
  raised_exponential e;
  several<float> quotient, rest;

  PROSPECT_INLINE explicit sigmoid_parts(several<float> x) : e{x} {
    const several<float> term = e.high * raised_unit;
    const several<float> sum = 1 + term;
    const several<float> lost = ((1 - sum) + term) + e.low * raised_unit;
    quotient = 1 / sum;
    rest = quotient * fused(-quotient, lost, fused(-quotient, sum, 1));
  }
  /// sigmoid(-|x|), raised as the exponential is.
  PROSPECT_INLINE several<float> raised_left() const {
    return fused(e.high, quotient, fused(e.high, rest, e.low * quotient));
  }
};

PROSPECT_APART several<float> exp(several<float> x) {
  using c = exp_constants<float>;
  const several<float> d = larger(several<float>(-104), smaller(several<float>(89), x));
#if PROSPECT_CPU_KEEPS_AVX512
  const several<float> n = fused(d, float(log2_e), c::magic) - c::magic;
  const several<float> rest = 1 + rest_of_exp(d, n);
  return (floats)_mm512_maskz_scalef_ps(0xffff, (__m512)rest.lane, (__m512)n.lane);
#else
  // In units of a power of two from which neither end of the range leaves the type.
  constexpr float headroom{c::headroom};
  const auto left = x < 0;
  const several<float> magic =
      select(left, several<float>(c::magic + headroom), several<float>(c::magic - headroom));
  const several<float> shifted = fused(d, float(log2_e), magic);
  const several<float> power = power_of_two<float>(shifted.lane);
  const several<float> raised = fused(power, rest_of_exp(d, shifted - magic), power);
  return raised * select(left, several<float>(raised_unit), several<float>(1 / raised_unit));
#endif
}

PROSPECT_APART several<float> expm1(several<float> x) {
  using c = exp_constants<float>;
  // -1 from -30 on; in units from which the upper end does not leave the type.
  const several<float> d = larger(several<float>(-30), smaller(several<float>(89), x));
  constexpr float magic = c::magic - float{c::headroom};
  const several<float> shifted = fused(d, float(log2_e), magic);
  const several<float> n = shifted - magic;
  const several<float> power = power_of_two<float>(shifted.lane);
  const several<float> rest = rest_of_exp(d, n);
  const several<float> lowered = fused(power, rest, power - raised_unit);
  return select(n == 0, rest, lowered * (1 / raised_unit));
}

PROSPECT_APART several<float> sigmoid(several<float> x) {
  const sigmoid_parts s{x};
  return select(x < 0, s.raised_left() * raised_unit, s.quotient + s.rest);
}

PROSPECT_APART several<float> sigmoid_slope(several<float> x) {
  const sigmoid_parts s{x};
  const several<float> left = s.raised_left();
  return fused(left, s.quotient, left * s.rest) * raised_unit;
}

PROSPECT_APART several<float> softplus(several<float> x) {
  // (log(1 + e) - e) / e^2 for e <= 1 in powers of e - 1/2, even and odd; its error is 7.5e-9 of
  // the logarithm.
  constexpr float even[] = {-0.37813956F, -0.09323249F, -0.028890884F, -0.0102665145F,
                            -0.0031724598F};
  constexpr float odd[] = {0.17922491F, 0.051088575F, 0.016655888F, 0.0069538434F};
  const raised_exponential raised{x};
  const several<float> e = raised.high * raised_unit;
  const several<float> u = e - 0.5F;
  const floats square = (u * u).lane;
  const several<float> beyond_linear =
      fused(u, polynomial<3>(square, odd), polynomial<4>(square, even));
  const several<float> tail = fused(raised.high * e, beyond_linear, raised.low);
  // The small terms first.
  const several<float> positive_part = select(x < 0, several<float>(0), x);
  return fused(raised.high, raised_unit, fused(tail, raised_unit, positive_part));
}

#endif

/// An instruction of every processor that has vectors, for which there is no operator.
PROSPECT_APART several<float> sqrt(several<float> x) {
#if PROSPECT_CHOOSES_BITS  // and makes an estimate of an instruction
  for (int k = 0; k < lanes<float>; ++k) x.lane[k] = prospect::sqrt(float{x.lane[k]});
  return x;
#elif PROSPECT_CPU_VECTOR_BYTES == 64
  return (floats)_mm512_maskz_sqrt_ps(0xffff, (__m512)x.lane);
#elif PROSPECT_CPU_VECTOR_BYTES == 32
  return (floats)_mm256_sqrt_ps((__m256)x.lane);
#elif defined(__SSE2__) && !defined(__CUDACC__)
  return (floats)_mm_sqrt_ps((__m128)x.lane);
#else
  for (int k = 0; k < lanes<float>; ++k) x.lane[k] = __builtin_sqrtf(x.lane[k]);
  return x;
#endif
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
