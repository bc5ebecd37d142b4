// See byte_level.hpp.
#include "text/byte_level.hpp"

#include <array>
#include <cstddef>

#include "text/utf8.hpp"

namespace align {
namespace {

constexpr std::size_t letters = 256 + 68;

struct alphabet {
  std::array<char16_t, 256> letter_of{};
  std::array<int, letters> byte_of{};
};

constexpr bool is_printable(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr alphabet make_alphabet() {
  alphabet made;
  made.byte_of.fill(-1);
  char16_t next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const char16_t letter = is_printable(byte) ? static_cast<char16_t>(byte) : next++;
    made.letter_of[byte] = letter;
    made.byte_of[letter] = static_cast<int>(byte);
  }
  return made;
}

constexpr alphabet the_alphabet = make_alphabet();

}  // namespace

std::string spelled_bytes(std::string_view bytes) {
  std::string spelling;
  for (const char byte : bytes)
    append_utf8(spelling, the_alphabet.letter_of[static_cast<unsigned char>(byte)]);
  return spelling;
}

std::optional<std::string> bytes_spelled_by(std::string_view spelling) {
  std::string bytes;
  while (!spelling.empty()) {
    const code_point letter = first_code_point(spelling);
    if (letter.value >= letters || the_alphabet.byte_of[letter.value] < 0) return std::nullopt;
    bytes += static_cast<char>(the_alphabet.byte_of[letter.value]);
    spelling.remove_prefix(letter.size);
  }
  return bytes;
}

}  // namespace align
