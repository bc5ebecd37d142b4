// See command.hpp.
#include "command.hpp"

namespace align {

std::string shell_word(std::string_view word) {
  constexpr std::string_view plain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-";
  const bool is_plain = word.find_first_not_of(plain) == std::string_view::npos;
  if (!word.empty() && is_plain) return std::string(word);
  std::string quoted = "'";
  for (const char c : word) {
    if (c == '\'')
      quoted += R"('\'')";
    else
      quoted += c;
  }
  return quoted + "'";
}

std::string command_line(std::span<const char* const> words, const char* typed) {
  if (typed != nullptr && *typed != '\0') return typed;
  std::string line;
  for (const char* word : words) line += (line.empty() ? "" : " ") + shell_word(word);
  return line;
}

}  // namespace align
