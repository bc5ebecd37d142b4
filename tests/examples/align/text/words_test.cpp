// Tokeniser and vocabulary.
#include "text/words.hpp"

#include <stdexcept>
#include <string>

#include "catch.hpp"

using namespace align;

TEST_CASE("a text becomes lower-cased words, numbers and marks") {
  CHECK(tokenise("It's GOOD, isn't it?") == words{"it's", "good", ",", "isn't", "it", "?"});
  CHECK(tokenise("the 'film' of 2002 -- wow!") ==
        words{"the", "'", "film", "'", "of", "2002", "-", "-", "wow", "!"});
  CHECK(tokenise("rock'n'roll'") == words{"rock'n", "'", "roll", "'"});
  CHECK(tokenise("  \t ").empty());
  CHECK(tokenise("").empty());
}

TEST_CASE("bytes outside ASCII are removed and rare symbols only separate") {
  CHECK(tokenise("clich\xc3\xa9s") == words{"clichs"});
  CHECK(tokenise("a*b\xa0 c") == words{"a", "b", "c"});
  CHECK(tokenise(std::string_view("a\0b", 3)) == words{"a", "b"});
}

TEST_CASE("the classes of characters end where they should") {
  CHECK(tokenise("azAZ") == words{"azaz"});
  CHECK(tokenise("@A[Z`a{z") == words{"a", "z", "a", "z"});  // the neighbours in ASCII
  CHECK(tokenise("/09:") == words{"09", ":"});
  CHECK(tokenise("a1b") == words{"a", "1", "b"});
  std::string marks;
  for (const std::string& mark : tokenise(".,;:!?()-'\"")) marks += mark;
  CHECK(marks == ".,;:!?()-'\"");
  CHECK(tokenise("don't'") == words{"don't", "'"});
  CHECK(tokenise("a'1") == words{"a", "'", "1"});
  CHECK(tokenise("a'") == words{"a", "'"});
}

TEST_CASE("the vocabulary keeps the most frequent words and breaks ties by the alphabet") {
  const std::vector<words> texts = {{"b", "a", "c"}, {"b", "c", "d"}, {"b", "e"}};
  const vocabulary v = vocabulary::most_frequent(texts, 3);
  CHECK(v.size() == vocabulary::specials + 3);
  CHECK(v.word(vocabulary::specials) == "b");
  CHECK(v.word(vocabulary::specials + 1) == "c");
  CHECK(v.word(vocabulary::specials + 2) == "a");  // as frequent as d and e
  CHECK(v.id("d") == vocabulary::unknown);
  CHECK(vocabulary::most_frequent(texts, 99).size() == vocabulary::specials + 5);
  CHECK(vocabulary::most_frequent({}, 3) == vocabulary());
  CHECK_FALSE(v == vocabulary());
}

TEST_CASE("encoding and decoding a known text is a round trip") {
  const words text = {"the", "film", "is", "good", "."};
  const vocabulary v(text);
  for (const std::string& word : text) CHECK(v.word(v.id(word)) == word);
  CHECK(v.decode(v.encode(text)) == "the film is good .");

  std::vector<token> framed = v.encode(text);
  framed.insert(framed.begin(), vocabulary::begin);
  framed.insert(framed.begin() + 3, vocabulary::separator);
  framed.push_back(vocabulary::end);
  CHECK(v.decode(framed) == "the film is good .");
  CHECK(v.decode(v.encode(words{"the", "xylophone"})) == "the <unk>");
}

TEST_CASE("a vocabulary refuses a word that comes twice and a number it does not have") {
  CHECK_THROWS_AS(vocabulary(words{"a", "a"}), std::invalid_argument);
  CHECK_THROWS_AS(vocabulary(words{"a"}).word(99), std::out_of_range);
}
