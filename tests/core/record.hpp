// What the exhaustive tests of primitives and losses find, kept in the file that the environment
// names, one line a case: docs/accuracy.tsv, which docs/losses.md shows. A case that has a line is
// not measured again, so that an interrupted run goes on where it was; who changes a formula
// deletes its lines.

#pragma once

#include <array>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iomanip>
#include <limits>
#include <sstream>
#include <string>
#include <string_view>

#include "core/float_sweep.hpp"

namespace testing {

namespace detail {

/// The line of a case, or an empty one.
inline std::string line_of(const std::string& path, const std::string& start) {
  std::ifstream file{path};
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(start)) return line;
  }
  return {};
}

inline std::string today() {
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  std::array<char, 16> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%d", std::gmtime(&now));
  return text.data();
}

}  // namespace detail

/// What `measure()` finds for this case of this loss, of "scores" or of "primitive": from the file
/// PROSPECT_ACCURACY if it is there, else measured, and added to it. Without such a variable it is
/// measured.
template <class Measure>
worst_float recorded(std::string_view of, std::string_view name, const Measure& measure) {
  const char* path = std::getenv("PROSPECT_ACCURACY");
  if (path == nullptr) return measure();
  std::ostringstream start;
  start << of << '\t' << name << '\t';
  worst_float worst;
  std::string at;
  std::istringstream found{detail::line_of(path, start.str())};
  if (found.ignore(static_cast<std::streamsize>(start.str().size())) &&
      found >> worst.error >> at) {
    worst.at = std::strtof(at.c_str(), nullptr);
    return worst;
  }
  worst = measure();
  start << worst.error << '\t' << std::setprecision(std::numeric_limits<float>::max_digits10)
        << worst.at << '\t' << detail::today() << '\n';
  // In one write, since half a line would be taken for a result.
  std::ofstream{path, std::ios::app} << start.str() << std::flush;
  return worst;
}

}  // namespace testing
