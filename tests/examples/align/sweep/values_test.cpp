// Ranges and lists of values: how many there are, and how they are written.
#include "sweep/values.hpp"

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

namespace {

std::string texts(const char* typed) {
  std::string out;
  for (const swept_value& v : parse_values(typed)) out += (out.empty() ? "" : " ") + v.text;
  return out;
}

std::string refusal(const char* typed) {
  return complaint([&] { parse_values(typed); });
}

}  // namespace

TEST_CASE("a range has the values that a person would write") {
  CHECK(texts("0.01:0.2:0.01") ==
        "0.01 0.02 0.03 0.04 0.05 0.06 0.07 0.08 0.09 0.1 0.11 0.12 0.13 0.14 0.15 0.16 0.17 0.18 "
        "0.19 0.2");
  CHECK(parse_values("0.01:0.2:0.01")[18].number == 0.19);
  CHECK(texts("0:1:0.25") == "0 0.25 0.5 0.75 1");
  CHECK(texts("1:2:0.4") == "1 1.4 1.8");  // the last one lies before the end
  CHECK(texts("-0.1:0.1:0.1") == "-0.1 0 0.1");
  CHECK(texts("3:3:1") == "3");
}

TEST_CASE("lists and ranges are merged, in order, each value once") {
  CHECK(texts("0.5,0.01:0.03:0.01,0.3") == "0.01 0.02 0.03 0.3 0.5");
  CHECK(texts("0.10,0.1,1e-1,0.1:0.2:0.1") == "0.1 0.2");
}

TEST_CASE("what is no list of numbers is refused") {
  CHECK(contains(refusal("fast"), "'fast' is not a number"));
  CHECK(contains(refusal("0.1x"), "'0.1x' is not a number"));
  CHECK(contains(refusal("nan"), "'nan' is not a number"));
  CHECK(contains(refusal("0.1,,0.2"), "a value is missing"));
  CHECK(contains(refusal(""), "a value is missing"));
  CHECK(contains(refusal("0.1,"), "a value is missing"));
  CHECK(contains(refusal("0.1:0.2"), "FIRST:LAST:STEP"));
  CHECK(contains(refusal("1:2:3:4"), "FIRST:LAST:STEP"));
  CHECK(contains(refusal("0.2:0.1:0.1"), "ends before it begins"));
  CHECK(contains(refusal("0.1:0.2:0"), "above 0"));
  CHECK(contains(refusal("0.1:0.2:-0.1"), "above 0"));
  CHECK(contains(refusal("0:1:0.0001"), "more than 1000 values"));
  CHECK(contains(refusal("1e-3:1:0.1"), "without an exponent"));
}
