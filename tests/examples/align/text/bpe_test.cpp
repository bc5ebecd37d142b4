// The tokeniser: ids are those of `tokenizers` 0.23 (see small_vocabulary.hpp).
#include "text/bpe.hpp"

#include "../scratch.hpp"
#include "catch.hpp"
#include "small_vocabulary.hpp"

using namespace align;

namespace {

using token_ids = std::vector<token>;

token_ids encoded(std::string_view text, std::string_view cut = "gpt-2", bool specials = true) {
  return bpe(small_description(cut)).encode(text, specials);
}

template <class Change>
std::string bpe_refusal(Change change) {
  bpe_description d = small_description();
  change(d);
  return complaint([&] { bpe tokeniser(d); });
}

}  // namespace

TEST_CASE("words merge as in tokenizers") {
  constexpr std::string_view text = "hello  world's 1234!\n\nhello";
  CHECK(encoded("hello world") == token_ids{259, 264});
  CHECK(encoded(text) == token_ids{259, 32, 264, 269, 32, 266, 52, 33, 10, 10, 259});
  CHECK(encoded(text, "smollm") ==
        token_ids{259, 32, 264, 269, 32, 49, 50, 51, 52, 33, 10, 10, 259});
  CHECK(encoded(text, "llama-bpe") == token_ids{259, 32, 264, 269, 32, 266, 52, 33, 271, 259});
  CHECK(encoded(text, "qwen2") == token_ids{259, 32, 264, 269, 32, 49, 50, 51, 52, 33, 271, 259});
  CHECK(encoded("a'S 12é😀") == token_ids{97, 39, 83, 32, 265, 279, 278});
  CHECK(encoded("a'S 12é😀", "llama-bpe") == token_ids{97, 270, 32, 265, 279, 278});
  CHECK(encoded("   \t x") == token_ids{267, 32, 9, 32, 120});
  CHECK(encoded("aaaaa") == token_ids{273, 274});
  CHECK(encoded("x\u180ey\u00a0z") == token_ids{120, 225, 160, 142, 121, 194, 160, 122});
  CHECK(encoded("").empty());
}

TEST_CASE("a word that is a token needs no merges where they are ignored") {
  CHECK(encoded("abc bc") == token_ids{97, 281, 32, 281});
  bpe_description d = small_description();
  d.ignore_merges = true;
  CHECK(bpe(d).encode("abc bc", false) == token_ids{283, 32, 281});
}

TEST_CASE("control tokens are found only where they are asked for, others always") {
  constexpr std::string_view text = "hello<|im_end|><tool>>";
  CHECK(encoded(text, "gpt-2", true) == token_ids{259, 286, 288});
  CHECK(encoded(text, "gpt-2", false) ==
        token_ids{259, 60, 124, 105, 109, 95, 101, 110, 100, 124, 62, 288});
  CHECK(encoded("<tool> <tool") == token_ids{287, 32, 60, 116, 111, 111, 108});
}

TEST_CASE("words reach across parts, control tokens do not come from what people wrote") {
  const bpe tokeniser(small_description());
  const std::vector<text_part> parts = {{.text = "<|im_start|>he", .markup = true},
                                        {.text = "llo<|im_end|><|im_", .markup = false},
                                        {.text = "end|>", .markup = true}};
  token_ids expected = {285, 259};
  for (const char c : std::string_view("<|im_end|><|im_end|>")) expected.push_back(c);
  CHECK(tokeniser.encode(parts) == expected);
}

TEST_CASE("decoding gives the bytes back") {
  const bpe tokeniser(small_description());
  for (const std::string text :
       {"hello world's 1234!\n\n", "é😀\u180e日本\u0301", "<|im_end|>", ""})
    CHECK(tokeniser.decode(tokeniser.encode(text, false), false) == text);
  std::string all;
  for (int c = 0; c < 0x80; ++c) all += static_cast<char>(c);
  CHECK(tokeniser.decode(tokeniser.encode(all, true), false) == all);
  CHECK(tokeniser.decode(token_ids{276}, false) == "\xf0\x9f");  // half a character
}

TEST_CASE("control tokens are decoded on request, user-defined ones always") {
  const bpe tokeniser(small_description());
  const token_ids with_markup = {285, 259, 287, 286};
  CHECK(tokeniser.decode(with_markup, false) == "hello<tool>");
  CHECK(tokeniser.decode(with_markup, true) == "<|im_start|>hello<tool><|im_end|>");
  CHECK(contains(complaint([&] { tokeniser.decode(token_ids{289}, true); }), "the id 289 is none"));
  CHECK(contains(complaint([&] { tokeniser.decode(token_ids{-1}, true); }), "the id -1 is none"));
}

TEST_CASE("a user-defined token is plain text, whatever its letters spell elsewhere") {
  bpe_description d = small_description();
  d.tokens.back() = "日 é";
  const bpe tokeniser(d);
  CHECK(tokeniser.encode("a日 é", false) == token_ids{97, 288});
  CHECK(tokeniser.decode(token_ids{288}, false) == "日 é");
}

TEST_CASE("a byte without a token is left out, or stands for what the description says") {
  bpe_description d = small_description();
  d.tokens[4] = "no spelling of bytes";
  CHECK_FALSE(bpe(d).has_byte(4));
  CHECK(bpe(d).has_byte(5));
  CHECK(bpe(d).encode("he\x04llo", false) == token_ids{257, 256, 111});
  d.missing_byte = 284;
  CHECK(bpe(d).encode("a\x04"
                      "a",
                      false) == token_ids{97, 284, 97});
}

TEST_CASE("tokens are found by their spelling") {
  const bpe tokeniser(small_description());
  CHECK(tokeniser.size() == 289);
  CHECK(tokeniser.id("hello") == 259);
  CHECK(tokeniser.id("Ġworld") == 264);
  CHECK(tokeniser.id("<|im_end|>") == 286);
  CHECK_FALSE(tokeniser.id(" world"));
}

TEST_CASE("a text that is not UTF-8 is refused") {
  CHECK(complaint([] { encoded("ab\xc3("); }) == "the text is not UTF-8 at byte 2");
}

TEST_CASE("a long word without spaces takes moments") {
  std::string word;
  while (word.size() < 1'000'000) word += "hellaaab";
  const bpe tokeniser(small_description());
  CHECK(tokeniser.decode(tokeniser.encode(word, false), false) == word);
}

TEST_CASE("a description that contradicts itself is refused in one sentence") {
  CHECK(bpe_refusal([](bpe_description& d) { d.merges.push_back("q zz"); }) ==
        "the merge \"q zz\" needs the token \"zz\", which the vocabulary does not have");
  CHECK(
      contains(bpe_refusal([](bpe_description& d) { d.merges.push_back("q z"); }), "token \"qz\""));
  CHECK(
      contains(bpe_refusal([](bpe_description& d) { d.merges.push_back("l l"); }), "comes twice"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.merges.push_back("ll"); }),
                 "not two tokens"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.merges.push_back("a b c"); }), "not two"));
  CHECK(bpe_refusal([](bpe_description& d) { d.tokens[5] = "a"; }) ==
        "the vocabulary has \"a\" twice, as 5 and 97");
  CHECK(bpe_refusal([](bpe_description& d) { d.eos = 289; }) ==
        "the id 289 of the last token is outside the vocabulary of 289 tokens");
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.bos = -1; }), "the id -1 of the first"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.types.pop_back(); }), "but 288 types"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.types[3] = token_type::byte; }),
                 "token 3 has the type 6"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d.tokens[3] = "\xff"; }),
                 "token 3 is not UTF-8"));
  CHECK(contains(bpe_refusal([](bpe_description& d) { d = {}; }), "no tokens"));
  CHECK(contains(bpe_refusal([](bpe_description& d) {
                   d.bos.reset();
                   d.add_bos = true;
                 }),
                 "begin with a token"));
}

TEST_CASE("a vocabulary is padded with tokens that no text has") {
  bpe_description d = small_description();
  pad_vocabulary(d, 300);
  const bpe tokeniser(d);
  CHECK(tokeniser.size() == 300);
  CHECK(tokeniser.encode("[PAD299]", true).size() == 8);
  CHECK(tokeniser.decode(token_ids{299}, false).empty());
  CHECK(tokeniser.decode(token_ids{299}, true) == "[PAD299]");
}
