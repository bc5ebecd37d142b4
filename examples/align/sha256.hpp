// SHA-256 (FIPS 180-4), to recognise the published data files.
#pragma once

#include <string>
#include <string_view>

namespace align {

// 64 lower-case hexadecimal digits.
std::string sha256(std::string_view bytes);

}  // namespace align
