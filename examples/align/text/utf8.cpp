// See utf8.hpp.
#include "text/utf8.hpp"

#include <stdexcept>

namespace align {
namespace {

unsigned byte_at(std::string_view text, std::size_t i) {
  return static_cast<unsigned char>(text[i]);
}

// What the first byte promises; 0 for a byte that starts nothing.
std::size_t promised_size(unsigned first) {
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

bool continues(unsigned byte) { return (byte & 0xc0U) == 0x80; }

// The second byte decides about overlong forms, surrogates and the end of Unicode.
bool allowed_second(unsigned first, unsigned second) {
  if (first == 0xe0) return second >= 0xa0;
  if (first == 0xed) return second < 0xa0;
  if (first == 0xf0) return second >= 0x90;
  if (first == 0xf4) return second < 0x90;
  return true;
}

bool starts_well(std::string_view text, std::size_t size) {
  if (size == 0 || size > text.size()) return false;
  for (std::size_t i = 1; i < size; ++i)
    if (!continues(byte_at(text, i))) return false;
  return size == 1 || allowed_second(byte_at(text, 0), byte_at(text, 1));
}

}  // namespace

std::size_t well_formed_size(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t size = promised_size(byte_at(text, at));
    if (!starts_well(text.substr(at), size)) break;
    at += size;
  }
  return at;
}

void require_utf8(std::string_view text) {
  const std::size_t good = well_formed_size(text);
  if (good != text.size())
    throw std::runtime_error("the text is not UTF-8 at byte " + std::to_string(good));
}

code_point first_code_point(std::string_view text) {
  const unsigned first = byte_at(text, 0);
  const std::size_t size = promised_size(first);
  if (size < 2) return {.value = first, .size = 1};
  char32_t value = first & (0xffU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) value = (value << 6U) | (byte_at(text, i) & 0x3fU);
  return {.value = value, .size = size};
}

void append_utf8(std::string& text, char32_t value) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(byte); };
  const auto add_tail = [&](unsigned shift) { add(0x80 | ((value >> shift) & 0x3f)); };
  if (value < 0x80) {
    add(value);
  } else if (value < 0x800) {
    add(0xc0 | (value >> 6U));
    add_tail(0);
  } else if (value < 0x10000) {
    add(0xe0 | (value >> 12U));
    add_tail(6);
    add_tail(0);
  } else {
    add(0xf0 | (value >> 18U));
    add_tail(12);
    add_tail(6);
    add_tail(0);
  }
}

}  // namespace align
