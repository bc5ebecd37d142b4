// Rendering; see chat_template.hpp. Recognising is in chat_formats.cpp.
#include "text/chat_template.hpp"

#include <stdexcept>

#include "text/utf8.hpp"

namespace align {
namespace {

// What Python's str.strip() drops, which is what a template's `trim` does: White_Space and the four
// separators of ASCII.
bool is_space(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
         c == 0x205f || c == 0x3000;
}

std::string_view trimmed(std::string_view text) {
  std::size_t begin = 0, end = 0;  // `end`: behind the last character that stays
  bool started = false;
  for (std::size_t at = 0; at < text.size();) {
    const code_point c = first_code_point(text.substr(at));
    if (!is_space(c.value)) {
      if (!started) begin = at;
      started = true;
      end = at + c.size;
    }
    at += c.size;
  }
  return text.substr(begin, end - begin);
}

std::string content_of(const chat_format& format, std::string_view content) {
  require_utf8(content);
  return std::string(format.trims ? trimmed(content) : content);
}

void require_valid(std::span<const message> conversation, bool generation_prompt) {
  if (conversation.empty()) throw std::runtime_error("the conversation has no messages");
  for (const message& turn : conversation)
    if (turn.role != "system" && turn.role != "user" && turn.role != "assistant")
      throw std::runtime_error("the role \"" + turn.role +
                               "\" is not known to the chat template; known are system, user and "
                               "assistant");
  if (generation_prompt && conversation.back().role != "user")
    throw std::runtime_error("the conversation ends with the role " + conversation.back().role +
                             ", but only a user can be answered");
}

class rendering {
 public:
  explicit rendering(const chat_format& format) : format_(format) {}

  void markup(const std::string& text) { add(text, true); }

  void open(const std::string& role) {
    if (!format_.names_roles) return;
    markup(format_.before_role + role + format_.after_role);
  }

  void turn(const std::string& role, const std::string& before, std::string_view content) {
    open(role);
    markup(before);
    add(content_of(format_, content), false);
    if (format_.names_roles) markup(format_.end_of_turn + format_.after_turn);
  }

  std::vector<text_part> parts() && { return std::move(parts_); }

 private:
  void add(const std::string& text, bool is_markup) {
    if (text.empty()) return;
    if (!parts_.empty() && parts_.back().markup && is_markup)
      parts_.back().text += text;
    else
      parts_.push_back({.text = text, .markup = is_markup});
  }

  const chat_format& format_;
  std::vector<text_part> parts_;
};

}  // namespace

std::vector<text_part> render_chat(const chat_format& format, std::span<const message> conversation,
                                   bool generation_prompt) {
  require_valid(conversation, generation_prompt);
  rendering out(format);
  out.markup(format.begin);
  if (conversation.front().role == "system") {
    out.turn("system", format.before_system, conversation.front().content);
    conversation = conversation.subspan(1);
  } else if (format.default_system) {
    out.turn("system", format.before_system, *format.default_system);
  }
  for (const message& turn : conversation) out.turn(turn.role, "", turn.content);
  if (generation_prompt) out.open("assistant");
  return std::move(out).parts();
}

std::vector<token> encode_chat(const bpe& tokeniser, const chat_format& format,
                               std::span<const message> conversation, bool generation_prompt) {
  return tokeniser.encode(render_chat(format, conversation, generation_prompt));
}

std::vector<token> encode_answer(const bpe& tokeniser, const chat_format& format,
                                 std::string_view content) {
  std::vector<token> ids = tokeniser.encode(content_of(format, content), false);
  ids.push_back(end_of_answer(tokeniser, format));
  return ids;
}

token end_of_answer(const bpe& tokeniser, const chat_format& format) {
  const std::optional<token> id = tokeniser.id(format.end_of_turn);
  if (!id)
    throw std::runtime_error("the vocabulary has no token \"" + format.end_of_turn +
                             "\", by which the chat template ends an answer");
  return *id;
}

}  // namespace align
