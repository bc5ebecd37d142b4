// How files store the elements of a tensor: as floats of 32 or 16 bits, or in blocks of few bits
// with common scales, as ggml lays them out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace align {

// By ggml's numbers, which GGUF files hold.
enum class element_type : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q8_0 = 8,
  q4_k = 12,
  q6_k = 14,
  bf16 = 30
};

struct element_layout {
  std::string_view name;
  std::size_t elements, bytes;  // of a block; a row is a whole number of blocks
};

element_layout layout_of(element_type type);

// Nothing for a number that is none of the above.
std::optional<element_type> element_type_of(std::uint32_t number);

// Of a tensor of this shape, outermost dimension first. Nothing where the number does not fit, or
// where a row is no whole number of blocks.
std::optional<std::size_t> byte_count(element_type type, std::span<const std::size_t> shape);

// Whole blocks; the sizes must agree.
void decode(element_type type, std::span<const std::byte> bytes, std::span<float> elements);

// Into f32, f16, bf16 and q8_0; the others are only read.
bool can_encode(element_type type);
void encode(element_type type, std::span<const float> elements, std::span<std::byte> bytes);

// Whether all of them are finite before and after.
bool can_hold(element_type type, std::span<const float> elements);

}  // namespace align
