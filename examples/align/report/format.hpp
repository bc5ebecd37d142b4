// Numbers and columns as text. (std::format is not in every C++20 library yet.)
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>

namespace align {

// "0.643"; "-" for NaN, which means that nothing was measured.
inline std::string fixed(double value, int decimals) {
  if (std::isnan(value)) return "-";
  char text[400];  // the largest double has 309 digits before the point
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  const std::string_view written = text;
  const bool negative_zero =
      written[0] == '-' && written.find_first_of("123456789i") == std::string_view::npos;
  return text + (negative_zero ? 1 : 0);
}

// The same with an explicit plus.
inline std::string with_sign(double value, int decimals) {
  std::string text = fixed(value, decimals);
  return value > 0 ? '+' + text : text;
}

inline std::string percent(double share) { return fixed(100 * share, 0) + " %"; }

// Characters of UTF-8 text, which is what a terminal column holds.
inline std::size_t columns(std::string_view text) {
  std::size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1u : 0u;
  return count;
}

inline std::string pad_left(std::string text, std::size_t width) {
  const std::size_t used = columns(text);
  return used < width ? std::string(width - used, ' ') + text : text;
}

inline std::string pad_right(std::string text, std::size_t width) {
  const std::size_t used = columns(text);
  return used < width ? text + std::string(width - used, ' ') : text;
}

// Broken between words to lines of at most `width`; `first` leads the first line, blanks the
// others.
inline std::string wrapped(std::string_view text, std::string_view first, std::size_t width) {
  std::string out(first), line;
  const auto end_line = [&] {
    out += line + '\n';
    line.clear();
  };
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(word.size() + 1, text.size()));
    if (!line.empty() && columns(first) + columns(line) + 1 + columns(word) > width) {
      end_line();
      out += std::string(columns(first), ' ');
    }
    if (!line.empty()) line += ' ';
    line += word;
  }
  end_line();
  return out;
}

}  // namespace align
