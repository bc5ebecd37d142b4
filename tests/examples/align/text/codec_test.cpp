// The words of a small vocabulary behind the seam that a real tokeniser has.
#include "text/codec.hpp"

#include "catch.hpp"

using namespace align;

TEST_CASE("one message is its words, and several say who speaks") {
  using conversation = std::vector<message>;
  CHECK(prompt_words(conversation{{"user", "Is it?"}}) == words{"is", "it", "?"});
  CHECK(prompt_words({}).empty());
  CHECK(prompt_words(conversation{{"user", "Hi"}, {"assistant", "No."}, {"user", "Why?"}}) ==
        words{"user", ":", "hi", "assistant", ":", "no", ".", "user", ":", "why", "?"});
}

TEST_CASE("the codec of words frames a prompt, leaves an answer open, and reads both back") {
  const codec text = word_codec(vocabulary(words{"is", "it", "good", "?"}));
  CHECK(text.vocabulary == 8);
  CHECK(text.begin == vocabulary::begin);
  CHECK(text.end == vocabulary::end);
  const std::vector<token> prompt = text.prompt(std::vector<message>{{"user", "Is it?"}});
  CHECK(prompt == std::vector<token>{vocabulary::begin, 4, 5, 7, vocabulary::separator});
  CHECK(text.prompt({}) == std::vector<token>{vocabulary::begin, vocabulary::separator});
  CHECK(text.completion("It is GOOD") == std::vector<token>{5, 4, 6});
  CHECK(text.completion(" * ").empty());
  CHECK(text.decode(prompt) == "is it ?");
  CHECK(text.decode(std::vector<token>{5, 4, 6, text.end}) == "it is good");
}
