// See elements.hpp. Where a decoded element is a product plus a number, the product is exact, so
// that fused and separate additions give the same bits.
#include "formats/elements.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "formats/half.hpp"

namespace align {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian");

constexpr std::size_t small_block = 32, super_block = 256;

template <class T>
T load(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class T>
void store(T value, std::byte* to) {
  std::memcpy(to, &value, sizeof value);
}

float load_half(const std::byte* from) { return float_of_half(load<std::uint16_t>(from)); }

int low(std::byte b) { return std::to_integer<int>(b & std::byte{15}); }
int high(std::byte b) { return std::to_integer<int>(b >> 4); }

// Element i in the low half of byte i, element i + 16 in the high one.
template <class Element>
void decode_nibbles(const std::byte* nibbles, float* out, Element element) {
  for (std::size_t i = 0; i < small_block / 2; ++i) {
    out[i] = element(low(nibbles[i]));
    out[i + small_block / 2] = element(high(nibbles[i]));
  }
}

void decode_q4_0(const std::byte* block, float* out) {
  const float scale = load_half(block);
  decode_nibbles(block + 2, out, [&](int q) { return scale * static_cast<float>(q - 8); });
}

void decode_q4_1(const std::byte* block, float* out) {
  const float scale = load_half(block), least = load_half(block + 2);
  decode_nibbles(block + 4, out, [&](int q) { return scale * static_cast<float>(q) + least; });
}

void decode_q8_0(const std::byte* block, float* out) {
  const float scale = load_half(block);
  for (std::size_t i = 0; i < small_block; ++i) {
    out[i] = scale * static_cast<float>(load<std::int8_t>(block + 2 + i));
  }
}

void encode_q8_0(const float* in, std::byte* block) {
  float largest = 0;
  for (std::size_t i = 0; i < small_block; ++i) largest = std::max(largest, std::abs(in[i]));
  const float scale = largest / 127, inverse = scale > 0 ? 1 / scale : 0;
  store(half_of_float(scale), block);
  for (std::size_t i = 0; i < small_block; ++i) {
    // Not std::clamp: what is no number has to become one before it becomes an integer.
    const float q = std::max(-127.0F, std::min(127.0F, std::round(in[i] * inverse)));
    store(static_cast<std::int8_t>(q), block + 2 + i);
  }
}

struct scale_and_least {
  int scale, least;
};

// Eight of each, of 6 bits, in 12 bytes: the first four of both in the low bits of bytes 0 to 7;
// of the others the low 4 bits in bytes 8 to 11, the high 2 in what is left of bytes 0 to 7.
scale_and_least q4_k_scale(const std::byte* packed, std::size_t i) {
  const auto at = [&](std::size_t j) { return std::to_integer<int>(packed[j]); };
  if (i < 4) return {at(i) & 63, at(i + 4) & 63};
  return {(at(i + 4) & 15) | (at(i - 4) >> 6 << 4), (at(i + 4) >> 4) | (at(i) >> 6 << 4)};
}

void decode_q4_k(const std::byte* block, float* out) {
  const float scale = load_half(block), least = load_half(block + 2);
  const std::byte *scales = block + 4, *nibbles = block + 16;
  for (std::size_t part = 0; part < super_block / small_block; ++part) {
    const auto [s, m] = q4_k_scale(scales, part);
    const float by = scale * static_cast<float>(s), minus = least * static_cast<float>(m);
    const std::byte* const from = nibbles + part / 2 * small_block;
    for (std::size_t i = 0; i < small_block; ++i) {
      const int q = part % 2 == 0 ? low(from[i]) : high(from[i]);
      *out++ = by * static_cast<float>(q) - minus;
    }
  }
}

// Two halves of 128 elements, each four groups of 32: of the first two groups the low 4 bits are
// the low halves of 64 bytes, of the others the high ones; the high 2 bits of all four share a
// byte.
void decode_q6_k(const std::byte* block, float* out) {
  const std::byte *lows = block, *highs = block + 128, *scales = block + 192;
  const float scale = load_half(block + 208);
  for (std::size_t i = 0; i < super_block; ++i) {
    const std::size_t half = i / 128, group = i / 32 % 4, place = i % 32;
    const std::byte four = lows[half * 64 + group % 2 * 32 + place];
    const int two = std::to_integer<int>(highs[half * 32 + place] >> (2 * group)) & 3;
    const int q = ((group < 2 ? low(four) : high(four)) | two << 4) - 32;
    const float by = scale * static_cast<float>(load<std::int8_t>(scales + i / 16));
    out[i] = by * static_cast<float>(q);
  }
}

void decode_f32(const std::byte* from, float* out) { *out = load<float>(from); }
void encode_f32(const float* in, std::byte* to) { store(*in, to); }
void decode_f16(const std::byte* from, float* out) { *out = load_half(from); }
void encode_f16(const float* in, std::byte* to) { store(half_of_float(*in), to); }
void decode_bf16(const std::byte* from, float* out) {
  *out = float_of_bfloat(load<std::uint16_t>(from));
}
void encode_bf16(const float* in, std::byte* to) { store(bfloat_of_float(*in), to); }

struct codec {
  element_type type;
  element_layout layout;
  float limit;  // from here on it would store an infinity
  void (*decode)(const std::byte* from, float* out, std::size_t blocks) = nullptr;
  void (*encode)(const float* in, std::byte* to, std::size_t blocks) = nullptr;  // or only read
};

// The loop knows its block, because a call for each element of 16 bits would be most of the time.
template <auto decode_block, auto encode_block, std::size_t elements, std::size_t bytes>
constexpr codec codec_for(element_type type, std::string_view name, float limit) {
  codec made{.type = type, .layout = {name, elements, bytes}, .limit = limit};
  made.decode = [](const std::byte* from, float* out, std::size_t blocks) {
    for (; blocks > 0; --blocks, from += bytes, out += elements) decode_block(from, out);
  };
  if constexpr (encode_block != nullptr) {
    made.encode = [](const float* in, std::byte* to, std::size_t blocks) {
      for (; blocks > 0; --blocks, in += elements, to += bytes) encode_block(in, to);
    };
  }
  return made;
}

constexpr float float_limit = std::numeric_limits<float>::infinity();
constexpr float half_limit = 65520, bfloat_limit = 0x1.ffp127F, not_written = 0;

constexpr std::array codecs{
    codec_for<decode_f32, encode_f32, 1, 4>(element_type::f32, "f32", float_limit),
    codec_for<decode_f16, encode_f16, 1, 2>(element_type::f16, "f16", half_limit),
    codec_for<decode_bf16, encode_bf16, 1, 2>(element_type::bf16, "bf16", bfloat_limit),
    codec_for<decode_q8_0, encode_q8_0, 32, 34>(element_type::q8_0, "q8_0", 127 * half_limit),
    codec_for<decode_q4_0, nullptr, 32, 18>(element_type::q4_0, "q4_0", not_written),
    codec_for<decode_q4_1, nullptr, 32, 20>(element_type::q4_1, "q4_1", not_written),
    codec_for<decode_q4_k, nullptr, 256, 144>(element_type::q4_k, "q4_k", not_written),
    codec_for<decode_q6_k, nullptr, 256, 210>(element_type::q6_k, "q6_k", not_written)};

const codec& codec_of(element_type type) {
  return *std::find_if(codecs.begin(), codecs.end(),
                       [&](const codec& c) { return c.type == type; });
}

std::size_t blocks(const codec& c, std::size_t elements, std::size_t bytes) {
  const std::size_t count = elements / c.layout.elements;
  if (elements % c.layout.elements != 0 || bytes != count * c.layout.bytes) {
    throw std::invalid_argument("elements and bytes of " + std::string(c.layout.name) +
                                " do not agree");
  }
  return count;
}

}  // namespace

element_layout layout_of(element_type type) { return codec_of(type).layout; }

std::optional<element_type> element_type_of(std::uint32_t number) {
  for (const codec& c : codecs) {
    if (static_cast<std::uint32_t>(c.type) == number) return c.type;
  }
  return std::nullopt;
}

std::optional<std::size_t> byte_count(element_type type, std::span<const std::size_t> shape) {
  const element_layout layout = layout_of(type);
  const std::size_t columns = shape.empty() ? 1 : shape.back();
  if (columns % layout.elements != 0) return std::nullopt;
  // As many elements as a pointer can count bytes, so that no sum of sizes overflows either.
  std::size_t room = static_cast<std::size_t>(PTRDIFF_MAX) / sizeof(float), count = 1;
  for (const std::size_t size : shape) {
    if (size == 0) return 0;
    if (size > room) return std::nullopt;
    room /= size;
    count *= size;
  }
  return count / layout.elements * layout.bytes;
}

void decode(element_type type, std::span<const std::byte> bytes, std::span<float> elements) {
  const codec& c = codec_of(type);
  const std::size_t count = blocks(c, elements.size(), bytes.size());
  c.decode(bytes.data(), elements.data(), count);
}

bool can_encode(element_type type) { return codec_of(type).encode != nullptr; }

void encode(element_type type, std::span<const float> elements, std::span<std::byte> bytes) {
  const codec& c = codec_of(type);
  const std::size_t count = blocks(c, elements.size(), bytes.size());
  if (c.encode == nullptr) {
    throw std::invalid_argument(std::string(c.layout.name) + " is only read, never written");
  }
  c.encode(elements.data(), bytes.data(), count);
}

bool can_hold(element_type type, std::span<const float> elements) {
  const float limit = codec_of(type).limit;
  return std::all_of(elements.begin(), elements.end(),
                     [&](float x) { return std::abs(x) < limit; });
}

}  // namespace align
