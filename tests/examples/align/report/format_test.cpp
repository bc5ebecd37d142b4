// Numbers and columns as text.
#include "report/format.hpp"

#include <cmath>

#include "catch.hpp"

using namespace align;

TEST_CASE("numbers have their decimals, no negative zero, and a dash for none") {
  CHECK(fixed(0.6434, 3) == "0.643");
  CHECK(fixed(-1.5, 0) == "-2");
  CHECK(fixed(-0.0004, 3) == "0.000");
  CHECK(fixed(std::nan(""), 3) == "-");
  CHECK(fixed(-INFINITY, 3) == "-inf");
  CHECK(fixed(1e308, 0).size() == 309);
  CHECK(with_sign(0.5, 1) == "+0.5");
  CHECK(with_sign(-0.5, 1) == "-0.5");
  CHECK(with_sign(0, 1) == "0.0");
  CHECK(percent(0.876) == "88 %");
}

TEST_CASE("columns count characters, not bytes") {
  CHECK(columns("1 ± 2") == 5);
  CHECK(pad_left("±", 3) == "  ±");
  CHECK(pad_right("±", 3) == "±  ");
  CHECK(pad_left("long", 3) == "long");
}

TEST_CASE("long sentences break between words and keep their indentation") {
  CHECK(wrapped("one two three", "- ", 9) == "- one two\n  three\n");
  CHECK(wrapped("one two three", "- ", 10) == "- one two\n  three\n");
  CHECK(wrapped("unbreakable", "- ", 5) == "- unbreakable\n");
  CHECK(wrapped("", "- ", 5) == "- \n");
}
