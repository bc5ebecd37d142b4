// Floats of 16 bits, to and from 32: IEEE's half and bfloat16, rounded to the nearest and on a tie
// to the even one. In integers, so that no mode of the processor (subnormals as zeros) shows.
#pragma once

#include <bit>
#include <cstdint>

namespace align {

inline float float_of_half(std::uint16_t half) {
  const std::uint32_t sign = (half & 0x8000U) << 16U, magnitude = half & 0x7fffU;
  std::uint32_t bits = (magnitude << 13U) + 0x38000000U;  // the exponents' biases differ by 112
  if (magnitude >= 0x7c00U) bits = (magnitude << 13U) | 0x7f800000U;
  if (magnitude < 0x0400U) bits = std::bit_cast<std::uint32_t>(0x1p-24F * float(magnitude));
  return std::bit_cast<float>(sign | bits);
}

inline std::uint16_t half_of_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16U) & 0x8000U, magnitude = bits & 0x7fffffffU;
  std::uint32_t half = 0;
  if (magnitude > 0x7f800000U) {
    half = 0x7e00U | ((magnitude >> 13U) & 0x3ffU);
  } else if (magnitude >= 0x477ff000U) {  // 65520, halfway beyond the largest
    half = 0x7c00U;
  } else if (magnitude < 0x38800000U) {  // below 2^-14: 1/2 has the last place of a subnormal half
    half = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3f000000U;
  } else {
    half = (magnitude - 0x38000000U + 0xfffU + ((magnitude >> 13U) & 1U)) >> 13U;
  }
  return static_cast<std::uint16_t>(sign | half);
}

inline float float_of_bfloat(std::uint16_t bfloat) {
  return std::bit_cast<float>(std::uint32_t{bfloat} << 16U);
}

inline std::uint16_t bfloat_of_float(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
  const std::uint32_t rounded = bits + 0x7fffU + ((bits >> 16U) & 1U);
  return static_cast<std::uint16_t>(nan ? (bits >> 16U) | 0x40U : rounded >> 16U);
}

}  // namespace align
