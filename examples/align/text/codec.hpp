// The seam between texts and tokens: what loads feedback knows only this, whether the tokens are
// the words of a small vocabulary or those of a real model's tokeniser.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/message.hpp"
#include "text/words.hpp"

namespace align {

struct codec {
  int vocabulary = 0;               // every token is below it
  std::optional<token> begin = {};  // what every prompt starts with, and no cut takes away
  token end = 0;                    // what a whole answer ends with

  // All that stands before the answer, `begin` and every markup included.
  std::function<std::vector<token>(std::span<const message>)> prompt;

  // The answer alone, without its end.
  std::function<std::vector<token>(std::string_view)> completion;

  // For people: markup left out.
  std::function<std::string(std::span<const token>)> decode;
};

// A prompt as words. One message says who speaks by standing there; of several, each starts with
// its speaker.
words prompt_words(std::span<const message> prompt);

// begin, the prompt's words, separator; then the answer's words.
codec word_codec(vocabulary known);

}  // namespace align
