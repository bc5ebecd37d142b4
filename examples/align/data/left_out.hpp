// Rows that cannot be used are left out, but never silently: this remembers why and which.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace align {

// "line 3", "lines 3, 5" or, of many, "lines 1, 2, ..., 10 and 7 more".
inline std::string named_lines(std::span<const std::size_t> lines) {
  constexpr std::size_t named = 10;
  std::string list = lines.size() == 1 ? "line" : "lines";
  for (std::size_t i = 0; i < lines.size() && i < named; ++i) {
    list += (i == 0 ? " " : ", ") + std::to_string(lines[i]);
  }
  if (lines.size() > named) list += " and " + std::to_string(lines.size() - named) + " more";
  return list;
}

struct left_out {
  std::string what;  // "rows with an empty completion"
  std::vector<std::size_t> lines = {};

  // Adds a sentence, where there is something to say.
  void note(std::vector<std::string>& notes) const {
    if (lines.empty()) return;
    notes.push_back("Left out " + std::to_string(lines.size()) + " " + what + ": " +
                    named_lines(lines) + ".");
  }
};

}  // namespace align
