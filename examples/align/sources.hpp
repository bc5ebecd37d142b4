// The formats that feedback comes in, and how each becomes plain words: rt-polarity, Anthropic's
// HH transcripts, and the user's own JSON lines. No numbers, no split: that is data.cpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text.hpp"

namespace align {

struct worded_row {
  words prompt, completion;
  bool desirable = false;
};

struct worded_duel {
  words prompt, chosen, rejected;
};

// Either rows or duels.
struct worded_feedback {
  std::string name;
  std::vector<worded_row> rows;
  std::vector<worded_duel> duels;
  std::vector<std::string> notes;
  std::size_t vocabulary_limit = 4096;
  bool quotable = true;
};

// A folder that holds one of the known sets, or a .jsonl or .jsonl.gz file. The published files
// are checked against their SHA-256.
worded_feedback read_feedback(const std::filesystem::path& path);

// One snippet per line; the first two tokens are the prompt.
worded_feedback parse_polarity(std::string_view positive, std::string_view negative);

// One JSON object per line, by the keys of the first line:
//   {"prompt", "completion", "label"}  unpaired: true or 1 is a thumb up
//   {"prompt", "chosen", "rejected"}   paired
//   {"chosen", "rejected"}             paired HH transcripts; the last assistant turn is the answer
// `path` is only named in messages.
worded_feedback parse_json_lines(std::string_view text, const std::filesystem::path& path);

}  // namespace align
