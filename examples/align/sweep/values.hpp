// The values of a parameter that a sweep tries, as they are typed: numbers and ranges, such as
// "0.01:0.2:0.01,0.3". They name folders and reach the trainer as text, so that text decides which
// values are the same: no 0.19000000000000003.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace align {

struct swept_value {
  std::string text;  // the shortest that reads as `number`
  double number;
};

// Ascending, each once. Throws std::invalid_argument with one clear sentence.
std::vector<swept_value> parse_values(std::string_view typed);

// What stands between the commas; throws where it is nothing. `what` is for the sentence.
std::vector<std::string> split_list(std::string_view typed, std::string_view what);

}  // namespace align
