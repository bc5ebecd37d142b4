// Arithmetic that holds under any compiler flag: what is not a number is told by its bits, and a
// rounded intermediate stays the rounded number it is. -ffinite-math-only lets a compiler decide
// such questions without looking; -fassociative-math lets it cancel (t + magic) - magic.
#pragma once

#include <prospect/core/dtype.hpp>

#include <concepts>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::detail {

/// Bits of the magnitude.
PROSPECT_HD constexpr std::uint32_t magnitude_bits(float x) noexcept {
  return bit_cast<std::uint32_t>(x) & 0x7fffffffU;
}
PROSPECT_HD constexpr std::uint64_t magnitude_bits(double x) noexcept {
  return bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffU;
}
template <std::floating_point R>
constexpr auto infinity_bits = std::uint32_t{0x7f800000U};
template <>
inline constexpr auto infinity_bits<double> = std::uint64_t{0x7ff0000000000000U};

template <std::floating_point R>
PROSPECT_HD constexpr bool is_nan(R x) noexcept {
  return magnitude_bits(x) > infinity_bits<R>;
}
/// Neither NaN nor infinite.
template <std::floating_point R>
PROSPECT_HD constexpr bool is_finite(R x) noexcept {
  return magnitude_bits(x) < infinity_bits<R>;
}

/// x as it was rounded: no flag lets the compiler look through this. Costs no instruction. Only for
/// what is inlined into a host's own functions, which no pragma of ours reaches.
template <class X>
PROSPECT_HD constexpr X as_rounded(X x) noexcept {
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#if !defined(__CUDA_ARCH__) && defined(__GNUC__)
  if (!__builtin_is_constant_evaluated()) {
#if defined(__aarch64__)
    asm("" : "+w"(x));
#elif defined(__AVX512F__)
    asm("" : "+v"(x));
#else
    asm("" : "+x"(x));
#endif
  }
#endif
#endif
  return x;
}

}  // namespace prospect::inline v1::detail
PROSPECT_STRICT_END
