// The alphabet in which byte-level vocabularies spell their tokens: every byte is one printable
// character. Printable bytes of Latin-1 are themselves; the other 68 are U+0100 and on, in order.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace align {

std::string spelled_bytes(std::string_view bytes);

// The way back; nothing where a character is not of the alphabet. The spelling is well-formed
// UTF-8.
std::optional<std::string> bytes_spelled_by(std::string_view spelling);

}  // namespace align
