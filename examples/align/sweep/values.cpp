// See values.hpp.
#include "sweep/values.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <system_error>

#include "report/format.hpp"

namespace align {
namespace {

constexpr double most_values = 1000;

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

double number_in(std::string_view text) {
  double number{};
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, number);
  if (error != std::errc{} || end != last || !std::isfinite(number)) {
    fail("'" + std::string(text) + "' is not a number");
  }
  return number;
}

swept_value value_of(double number) {
  char text[64];
  const auto [end, error] = std::to_chars(text, text + sizeof text, number);
  return {std::string(text, end), number};
}

int decimals_of(std::string_view text) {
  if (text.find_first_of("eE") != std::string_view::npos) {
    fail("'" + std::string(text) + "': the numbers of a range are written without an exponent");
  }
  const std::size_t point = text.find('.');
  return point == std::string_view::npos ? 0 : static_cast<int>(text.size() - point - 1);
}

void add_range(std::string_view typed, std::vector<swept_value>& values) {
  const std::size_t first = typed.find(':'), second = typed.find(':', first + 1);
  if (second == std::string_view::npos || typed.find(':', second + 1) != std::string_view::npos) {
    fail("'" + std::string(typed) + "' is not a range FIRST:LAST:STEP");
  }
  const std::string_view from = typed.substr(0, first), by = typed.substr(second + 1);
  const double low = number_in(from), high = number_in(typed.substr(first + 1, second - first - 1));
  const double step = number_in(by);
  if (!(step > 0)) fail("'" + std::string(typed) + "': the step of a range is above 0");
  if (!(high >= low)) fail("'" + std::string(typed) + "': the range ends before it begins");
  // A thousandth of a step is what rounding may cost, and more than it does.
  const double count = std::floor((high - low) / step + 1e-3) + 1;
  if (count > most_values) {
    fail("'" + std::string(typed) + "' is more than " + fixed(most_values, 0) + " values");
  }
  const int decimals = std::max(decimals_of(from), decimals_of(by));
  for (int i = 0; i < static_cast<int>(count); ++i) {
    values.push_back(value_of(number_in(fixed(low + i * step, decimals))));
  }
}

}  // namespace

std::vector<std::string> split_list(std::string_view typed, std::string_view what) {
  std::vector<std::string> parts;
  for (std::size_t at = 0; at <= typed.size();) {
    const std::size_t end = std::min(typed.find(',', at), typed.size());
    if (end == at) fail("'" + std::string(typed) + "': a " + std::string(what) + " is missing");
    parts.emplace_back(typed.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

std::vector<swept_value> parse_values(std::string_view typed) {
  std::vector<swept_value> values;
  for (const std::string& part : split_list(typed, "value")) {
    if (part.find(':') == std::string::npos) {
      values.push_back(value_of(number_in(part)));
    } else {
      add_range(part, values);
    }
  }
  std::ranges::stable_sort(values, {}, &swept_value::number);
  const auto alike = [](const swept_value& a, const swept_value& b) {
    return a.number == b.number;
  };
  values.erase(std::unique(values.begin(), values.end(), alike), values.end());
  return values;
}

}  // namespace align
