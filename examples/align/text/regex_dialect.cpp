// See regex_dialect.hpp.
#include "text/regex_dialect.hpp"

#include <array>
#include <cctype>
#include <cstddef>
#include <stdexcept>
#include <utility>

namespace align {
namespace {

// Unicode's White_Space. PCRE2's own \s has U+180E as well.
constexpr std::string_view white_space =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

constexpr std::array<std::string_view, 7> groups = {
    "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:", "(?>"};

bool is_letter_or_digit(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; }
bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

class translation {
 public:
  explicit translation(std::string_view regex) : regex_(regex) {}

  std::string run() {
    while (at_ < regex_.size()) {
      if (regex_[at_] == '\\')
        escape();
      else if (in_class_)
        inside_class();
      else
        outside_class();
    }
    if (in_class_) refuse("a class that does not end");
    return std::move(out_);
  }

 private:
  bool comes(std::string_view what) const { return regex_.substr(at_).starts_with(what); }

  void keep(std::size_t count) {
    out_ += regex_.substr(at_, count);
    at_ += count;
  }

  void replace(std::size_t count, std::string_view by) {
    out_ += by;
    at_ += count;
  }

  [[noreturn]] void refuse(std::string_view what) const {
    throw std::runtime_error("the pre-tokeniser's regex " + std::string(regex_) + " has " +
                             std::string(what) + ", which is not supported");
  }

  void class_of(std::string_view characters, bool negated) {
    if (!in_class_) {
      out_ += negated ? "[^" : "[";
      out_ += characters;
      out_ += ']';
    } else if (negated) {
      refuse("a negated class inside a class");
    } else {
      out_ += characters;
    }
    at_ += 2;
  }

  void property() {
    const std::size_t end = regex_.find('}', at_);
    if (at_ + 2 >= regex_.size() || regex_[at_ + 2] != '{' || end == std::string_view::npos)
      refuse("a property without braces");
    for (const char c : regex_.substr(at_ + 3, end - at_ - 3))
      if (!is_letter_or_digit(c) && c != '_' && c != '^') refuse("a property of an odd name");
    keep(end + 1 - at_);
  }

  // \uHHHH
  void four_digits() {
    const std::string_view digits = regex_.substr(at_ + 2, 4);
    if (digits.size() < 4 ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string_view::npos)
      refuse("\\u without four hexadecimal digits");
    replace(6, "\\x{" + std::string(digits) + "}");
  }

  void escape() {
    if (at_ + 1 >= regex_.size()) refuse("a lone \\ at its end");
    const char c = regex_[at_ + 1];
    if (c == 's' || c == 'S')
      class_of(white_space, c == 'S');
    else if (c == 'p' || c == 'P')
      property();
    else if (c == 'd' || c == 'D')
      replace(2, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
    else if (c == 'u')
      four_digits();
    else if (c == 'v')
      replace(2, "\\x{b}");
    else if (c == 'r' || c == 'n' || c == 't' || c == 'f' ||
             (is_ascii(c) && !is_letter_or_digit(c)))
      keep(2);
    else
      refuse(std::string("the escape \\") + c);
  }

  void inside_class() {
    if (regex_[at_] == '[') refuse("a class inside a class");
    if (comes("&&")) refuse("&& in a class");
    if (regex_[at_] == ']') in_class_ = false;
    keep(1);
  }

  void outside_class() {
    if (regex_[at_] == '[') {
      in_class_ = true;
      keep(comes("[^") ? 2 : 1);
      if (comes("]")) refuse("a class that starts with ]");
    } else if (comes("(?") || comes("(*")) {
      group();
    } else if (comes("^") || comes("$")) {
      refuse("an anchor");
    } else if (comes("{,")) {
      refuse("a repetition without its least number");
    } else {
      keep(1);
    }
  }

  void group() {
    for (const std::string_view known : groups)
      if (comes(known)) return keep(known.size());
    refuse("a group of the kind " + std::string(regex_.substr(at_, 3)));
  }

  std::string_view regex_;
  std::string out_;
  std::size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2(std::string_view regex) { return translation(regex).run(); }

}  // namespace align
