// UTF-8: whether bytes are well formed, and code points one at a time.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align {

// How many bytes from the start are well-formed UTF-8; all of them when the text is. Overlong
// forms, surrogates and what lies beyond U+10FFFF are not well formed.
std::size_t well_formed_size(std::string_view text);

// Throws std::runtime_error, which names the byte, unless all of the text is well formed.
void require_utf8(std::string_view text);

struct code_point {
  char32_t value = 0;
  std::size_t size = 1;  // in bytes
};

// The first one of a well-formed text that is not empty.
code_point first_code_point(std::string_view text);

void append_utf8(std::string& text, char32_t value);

}  // namespace align
