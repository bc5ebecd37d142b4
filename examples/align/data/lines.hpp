// Texts line by line.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace align {

inline constexpr std::string_view blanks = " \t\r\n\v\f";

// Without the blanks at both ends.
inline std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(blanks) + 1 - first));
}

// Calls `use(line, number)` for every line that is not blank; numbers count from 1.
template <class Use>
void for_each_line(std::string_view text, Use use) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(blanks) != std::string_view::npos) use(line, number);
  }
}

}  // namespace align
