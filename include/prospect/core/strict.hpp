// What is a number under any compiler flag: told by its bits, because -ffinite-math-only lets a
// compiler decide such questions without looking.
#pragma once

#include <prospect/core/dtype.hpp>

#include <concepts>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::detail {

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

}  // namespace prospect::inline v2::detail
PROSPECT_STRICT_END
