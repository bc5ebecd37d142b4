// See jinja_literals.hpp.
#include "text/jinja_literals.hpp"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace align {
namespace {

char unescaped(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 't':
      return '\t';
    case 'r':
      return '\r';
    default:
      return c;
  }
}

// Of the literal whose quote is the first character; `text` is left behind it.
std::string take_literal(std::string_view& text) {
  const char quote = text.front();
  std::string literal;
  std::size_t at = 1;
  while (at < text.size() && text[at] != quote) {
    const bool escape = text[at] == '\\' && at + 1 < text.size();
    literal += escape ? unescaped(text[at + 1]) : text[at];
    at += escape ? 2 : 1;
  }
  text.remove_prefix(std::min(at + 1, text.size()));
  return literal;
}

void take_tag(std::string_view& text, std::string_view end, std::vector<std::string>& literals) {
  while (!text.empty() && !text.starts_with(end)) {
    if (text.front() == '\'' || text.front() == '"')
      literals.push_back(take_literal(text));
    else
      text.remove_prefix(1);
  }
}

}  // namespace

std::vector<std::string> jinja_literals(std::string_view text) {
  std::vector<std::string> literals;
  while (!text.empty()) {
    if (text.starts_with("{#")) {
      text.remove_prefix(std::min(text.find("#}"), text.size()));
    } else if (text.starts_with("{{") || text.starts_with("{%")) {
      const std::string_view end = text[1] == '{' ? "}}" : "%}";
      text.remove_prefix(2);
      take_tag(text, end, literals);
    } else {
      text.remove_prefix(1);
    }
  }
  return literals;
}

}  // namespace align
