// UTF-8: what is well formed, and code points both ways.
#include "text/utf8.hpp"

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

TEST_CASE("every code point but surrogates is well formed and comes back") {
  int wrong = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string text;
    append_utf8(text, c);
    const bool surrogate = c >= 0xd800 && c < 0xe000;
    if ((well_formed_size(text) == text.size()) == surrogate) ++wrong;
    if (!surrogate &&
        (first_code_point(text).value != c || first_code_point(text).size != text.size()))
      ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("what is not UTF-8 is found at its first byte") {
  for (const std::string bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc3", "\xc3(", "\xe0\x80\x80", "\xe0\x9f\xbf",
        "\xe2\x82", "\xe2\x28\xa1", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80",
        "\xf0\x8f\xbf\xbf", "\xf0\x9f\x98", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe",
        "\xff"}) {
    CHECK(well_formed_size(bad) == 0);
    CHECK(well_formed_size("\xc3\xa9!" + bad) == 3);
  }
  CHECK(complaint([] { require_utf8("abc\xff"); }) == "the text is not UTF-8 at byte 3");
  CHECK_NOTHROW(require_utf8(""));
}
