// A made-up vocabulary for the tests: all bytes, a few merges, markup. The ids that tests expect of
// it are those that `tokenizers` 0.23 gives for the same tokens and merges.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/bpe.hpp"
#include "text/byte_level.hpp"
#include "text/pre_tokeniser.hpp"

namespace align {

inline bpe_description small_description(std::string_view cut = "gpt-2") {
  bpe_description d;
  d.regexes = regexes_named(cut);
  const auto add = [&](std::string text, token_type type) {
    d.tokens.push_back(std::move(text));
    d.types.push_back(type);
    return static_cast<token>(d.tokens.size() - 1);
  };
  for (int byte = 0; byte < 256; ++byte)
    add(spelled_bytes(std::string(1, static_cast<char>(byte))), token_type::normal);
  d.merges = {"l l",  "h e",  "he ll", "hell o", "Ġ w",   "o r", "Ġw or", "l d", "Ġwor ld",
              "1 2",  "12 3", "Ġ Ġ",   "ĠĠ ĠĠ",  "' s",   "' S", "Ċ Ċ",   "! Ċ", "a a",
              "aa a", "Ġ 1",  "ð Ł",   "ðŁ ĺ",   "ðŁĺ Ģ", "Ã ©", "Ġ h",   "b c", "a b"};
  for (std::string merge : d.merges) add(merge.erase(merge.find(' '), 1), token_type::normal);
  add("abc", token_type::normal);  // 283: no merges lead to it
  d.eos = add("<|endoftext|>", token_type::control);
  d.bos = add("<|im_start|>", token_type::control);
  d.eot = add("<|im_end|>", token_type::control);
  add("<tool>", token_type::user_defined);
  add("<tool>>", token_type::user_defined);
  d.pad = d.unknown = d.eos;
  return d;
}

}  // namespace align
