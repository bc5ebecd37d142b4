// Storage types (what lies in memory) and the type arithmetic is done in: float for float, bfloat16
// and float16, double for double. The two 16-bit types are bits with conversions and nothing else;
// they may alias, because what they view was as often as not stored as another type of the same
// bits (storage_of.hpp).
#pragma once

#include <prospect/config.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

// std::bit_cast is a host function to nvcc.
template <class To, class From>
PROSPECT_HD constexpr To bit_cast(From x) noexcept {
  return __builtin_bit_cast(To, x);
}

}  // namespace detail

/// Brain floating point: the upper half of a float. Conversion from float rounds to nearest even;
/// NaN stays NaN.
struct __attribute__((may_alias)) bfloat16 {
  std::uint16_t bits;

  PROSPECT_INLINE bfloat16() = default;
  PROSPECT_HD explicit constexpr bfloat16(float x) noexcept {
    const auto u = detail::bit_cast<std::uint32_t>(x);
    const bool nan = (u & 0x7fffffffU) > 0x7f800000U;
    // A NaN whose payload sits in the lower half would round to infinity: set the quiet bit.
    bits = nan ? static_cast<std::uint16_t>((u >> 16) | 0x40U)
               : static_cast<std::uint16_t>((u + 0x7fffU + ((u >> 16) & 1U)) >> 16);
  }
  PROSPECT_HD explicit constexpr operator float() const noexcept {
    return detail::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

/// IEEE 754 binary16. Conversion from float rounds to nearest even, overflows to infinity and
/// keeps subnormals and NaN.
struct __attribute__((may_alias)) float16 {
  std::uint16_t bits;

  PROSPECT_INLINE float16() = default;
  PROSPECT_HD explicit constexpr float16(float x) noexcept : bits{narrow(x)} {}
  PROSPECT_HD explicit constexpr operator float() const noexcept { return widen(bits); }

 private:
  PROSPECT_HD static constexpr std::uint16_t narrow(float x) noexcept {
    const auto u = detail::bit_cast<std::uint32_t>(x);
    const std::uint32_t sign = (u >> 16) & 0x8000U;
    const std::uint32_t magnitude = u & 0x7fffffffU;
    if (magnitude > 0x7f800000U) return static_cast<std::uint16_t>(sign | 0x7e00U);
    if (magnitude >= 0x477ff000U) return static_cast<std::uint16_t>(sign | 0x7c00U);
    if (magnitude < 0x38800000U) {
      // Subnormal in binary16: adding 0.5 lines the last kept bit up with the last bit of a float
      // in [0.5, 1), so that the addition itself does the rounding.
      const float lined_up = detail::bit_cast<float>(magnitude) + 0.5F;
      return static_cast<std::uint16_t>(sign |
                                        (detail::bit_cast<std::uint32_t>(lined_up) - 0x3f000000U));
    }
    const std::uint32_t rebased = magnitude - 0x38000000U;
    const std::uint32_t rounded = rebased + 0xfffU + ((rebased >> 13) & 1U);
    return static_cast<std::uint16_t>(sign | (rounded >> 13));
  }
  PROSPECT_HD static constexpr float widen(std::uint16_t h) noexcept {
    const std::uint32_t sign = (h & 0x8000U) * 0x10000U;
    const std::uint32_t magnitude = h & 0x7fffU;
    if (magnitude >= 0x7c00U) {
      return detail::bit_cast<float>(sign | 0x7f800000U | ((magnitude & 0x3ffU) << 13));
    }
    if (magnitude < 0x400U) {
      const float subnormal = static_cast<float>(magnitude) * 0x1p-24F;
      return detail::bit_cast<float>(sign | detail::bit_cast<std::uint32_t>(subnormal));
    }
    return detail::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000U));
  }
};

static_assert(sizeof(bfloat16) == 2 && std::is_trivially_copyable_v<bfloat16>);
static_assert(sizeof(float16) == 2 && std::is_trivially_copyable_v<float16>);

/// What a row of numbers may be made of.
template <class S>
concept storage = std::same_as<S, float> || std::same_as<S, double> || std::same_as<S, bfloat16> ||
                  std::same_as<S, float16>;

/// The type arithmetic on an `S` is done in.
template <storage S>
using compute_t = std::conditional_t<std::same_as<S, double>, double, float>;

/// A stored number, widened for arithmetic.
template <storage S>
PROSPECT_HD constexpr compute_t<S> load(S x) noexcept {
  return static_cast<compute_t<S>>(x);
}

/// A computed number, rounded once to its storage type.
template <storage S>
PROSPECT_HD constexpr S store(compute_t<S> x) noexcept {
  return S(x);
}

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
