// Conversations as the token sequences that a chat model was trained on. A model's template is a
// Jinja program; there is no Jinja engine in the distributions that we build on, so the usual
// templates are recognised by their text and any other is refused.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe.hpp"
#include "text/message.hpp"

namespace align {

// A turn is before_role, the role, after_role, the content, end_of_turn, after_turn.
struct chat_format {
  std::string begin = {};  // of a conversation
  std::string before_role = {};
  std::string after_role = {};
  std::string end_of_turn = {};  // one token, by which a model ends its answer
  std::string after_turn = {};
  std::optional<std::string> default_system = {};  // the system message of a conversation without
  std::string before_system = {};                  // goes before the content of the first of them
  bool trims = false;                              // white space around contents is dropped
  bool names_roles = true;                         // else a turn is its content

  friend bool operator==(const chat_format&, const chat_format&) = default;
};

// By the text of the model's template; or by a name: "chatml", "llama3", or "plain", which joins
// contents without any markup. Both throw std::runtime_error where there is no such format, or
// where the vocabulary lacks the format's markup.
chat_format recognised_chat_format(const bpe& tokeniser);
chat_format named_chat_format(std::string_view name, const bpe& tokeniser);

// The generation prompt is the start of an assistant's turn; it wants a user's turn before it.
// Throws std::runtime_error for a conversation that the format does not have.
std::vector<text_part> render_chat(const chat_format& format, std::span<const message> conversation,
                                   bool generation_prompt);

std::vector<token> encode_chat(const bpe& tokeniser, const chat_format& format,
                               std::span<const message> conversation, bool generation_prompt);

// What the model is to say after a generation prompt: the content and the token that ends it.
std::vector<token> encode_answer(const bpe& tokeniser, const chat_format& format,
                                 std::string_view content);

token end_of_answer(const bpe& tokeniser, const chat_format& format);

}  // namespace align
