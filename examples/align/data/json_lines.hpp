// The user's own feedback: one JSON object per line. Every line of a file is of one kind, which the
// keys of the first line tell:
//   {"prompt", "completion", "label"}  one answer, one thumb
//   {"messages", "label"}              the same as a conversation; its last message is the answer
//   {"prompt", "chosen", "rejected"}   two answers, one choice
//   {"chosen", "rejected"}             the same as two conversations that differ in their last
//                                      message, or as two transcripts with the turns "\n\nHuman:"
//                                      and "\n\nAssistant:" (Anthropic's HH)
// A prompt is a text, which is one turn of the user, or a list of messages {"role", "content"}. An
// answer is a text, or a list of messages whose last is the assistant's; what that list holds
// before it belongs to the prompt, which it may repeat. A label is true, false, 1 or 0. Other keys
// are allowed and ignored.
#pragma once

#include <filesystem>
#include <string_view>

#include "data/sources.hpp"

namespace align {

// Throws std::runtime_error with the file, the line and what is wrong with it; `path` is only
// named. Rows that teach nothing are left out and noted.
text_feedback parse_json_lines(std::string_view text, const std::filesystem::path& path);

}  // namespace align
