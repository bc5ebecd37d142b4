// Where feedback comes from: rt-polarity, Anthropic's HH transcripts, and the user's own JSON
// lines, each as plain text. No tokens, no split: that is data.cpp.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "text/message.hpp"

namespace align {

struct text_row {
  std::vector<message> prompt;
  std::string completion;
  bool desirable = false;
  std::size_t line = 0;  // in its file, from 1
};

struct text_duel {
  std::vector<message> prompt;
  std::string chosen, rejected;
  std::size_t line = 0;
};

// Either rows or duels.
struct text_feedback {
  std::string name;
  std::vector<text_row> rows;
  std::vector<text_duel> duels;
  std::vector<std::string> notes;
  std::size_t vocabulary_limit = 4096;  // for a vocabulary of words
  bool quotable = true;
};

// A folder that holds one of the known sets, or a file of JSON lines (see json_lines.hpp), which
// may be packed by gzip. The published files are checked against their SHA-256.
text_feedback read_feedback(const std::filesystem::path& path);

// One snippet per line; its first two words are the prompt.
text_feedback parse_polarity(std::string_view positive, std::string_view negative);

}  // namespace align
