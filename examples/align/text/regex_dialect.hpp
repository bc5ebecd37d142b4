// Regexes as `tokenizers` means them (Oniguruma's), rewritten for PCRE2. The two differ in what an
// escape stands for, so only what is known to mean the same, or can be spelled out, passes.
#pragma once

#include <string>
#include <string_view>

namespace align {

// Throws std::runtime_error, which names the part that has no equal.
std::string to_pcre2(std::string_view regex);

}  // namespace align
