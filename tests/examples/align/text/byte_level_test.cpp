// The alphabet of byte-level vocabularies.
#include "text/byte_level.hpp"

#include <set>

#include "catch.hpp"

using namespace align;

TEST_CASE("every byte has a letter of its own and comes back") {
  std::set<std::string> letters;
  std::string all;
  for (int byte = 0; byte < 256; ++byte) {
    all += static_cast<char>(byte);
    letters.insert(spelled_bytes(std::string(1, static_cast<char>(byte))));
  }
  CHECK(letters.size() == 256);
  CHECK(bytes_spelled_by(spelled_bytes(all)) == all);
}

TEST_CASE("bytes are spelled as published vocabularies spell them") {
  CHECK(spelled_bytes(" hello\n") == "ĠhelloĊ");
  CHECK(spelled_bytes("é") == "Ã©");
  CHECK(spelled_bytes("\t\x7f\xad") == "ĉġŃ");
  CHECK(bytes_spelled_by("<|end|>") == "<|end|>");
  CHECK(bytes_spelled_by("") == "");
}

TEST_CASE("what is not of the alphabet spells nothing") {
  CHECK_FALSE(bytes_spelled_by("a b"));
  CHECK_FALSE(bytes_spelled_by("\n"));
  CHECK_FALSE(bytes_spelled_by("日"));
  CHECK_FALSE(bytes_spelled_by("ń"));  // U+0144, the first behind the alphabet
  CHECK_FALSE(bytes_spelled_by("\u00ad"));
}
