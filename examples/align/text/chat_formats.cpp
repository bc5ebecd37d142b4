// Recognising; see chat_template.hpp.
#include <algorithm>
#include <array>
#include <stdexcept>

#include "text/chat_template.hpp"
#include "text/jinja_literals.hpp"

namespace align {
namespace {

constexpr std::string_view chatml_start = "<|im_start|>", chatml_end = "<|im_end|>";
constexpr std::string_view llama3_start = "<|start_header_id|>", llama3_end = "<|eot_id|>";

bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

[[noreturn]] void refuse(std::string_view why) {
  throw std::runtime_error("the model's chat template " + std::string(why) +
                           "; known are ChatML, Llama 3 and Zephyr, and one can be named: chatml, "
                           "llama3 or plain");
}

// The spelling of a token that the description may name.
std::string spelling(const bpe& tokeniser, std::optional<token> id) {
  return id ? tokeniser.description().tokens[static_cast<std::size_t>(*id)] : "";
}

chat_format chatml() {
  return {.before_role = std::string(chatml_start),
          .after_role = "\n",
          .end_of_turn = std::string(chatml_end),
          .after_turn = "\n"};
}

chat_format llama3() {
  return {.before_role = std::string(llama3_start),
          .after_role = "<|end_header_id|>\n\n",
          .end_of_turn = std::string(llama3_end),
          .trims = true};
}

// ---------------------------------------------------------------------------------- ChatML ---

// The content of a literal that is a whole system turn; several must agree.
std::optional<std::string> default_system_of(std::string_view text) {
  const std::string head = std::string(chatml_start) + "system\n";
  std::optional<std::string> content;
  for (const std::string& literal : jinja_literals(text)) {
    const std::size_t end = literal.find(chatml_end);
    if (!literal.starts_with(head) || end == std::string::npos) continue;
    if (const std::string_view rest = std::string_view(literal).substr(end + chatml_end.size());
        !rest.empty() && rest != "\n")
      refuse("has a system turn that is not ChatML's");
    const std::string found = literal.substr(head.size(), end - head.size());
    if (content && *content != found) refuse("has two system messages of its own");
    content = found;
  }
  return content;
}

chat_format recognised_chatml(const bpe& tokeniser, std::string_view text) {
  // Each of these changes what is rendered in a way that ChatML alone does not tell.
  constexpr std::array<std::string_view, 7> beyond = {
      "<think>", "<|im_sep|>", "trim", "strip(", "] + messages", "reasoning_content", "split("};
  for (const std::string_view part : beyond)
    if (has(text, part)) refuse("is like ChatML but has " + std::string(part));
  chat_format format = chatml();
  if (has(text, "bos_token")) format.begin = spelling(tokeniser, tokeniser.description().bos);
  format.default_system = default_system_of(text);
  return format;
}

// --------------------------------------------------------------------------------- Llama 3 ---

// From 3.1 on the system turn tells dates, and is always there. Where the template would ask for
// today's date it also has one for programs without a clock; a training run has none.
std::string date_of(std::string_view text) {
  constexpr std::string_view assigned = "date_string = ";
  for (std::size_t at = text.find(assigned); at != std::string_view::npos;
       at = text.find(assigned, at + 1)) {
    const std::string_view value = text.substr(at + assigned.size());
    if (!value.starts_with('"') && !value.starts_with('\'')) continue;
    const std::size_t end = value.find(value.front(), 1);
    if (end != std::string_view::npos) return std::string(value.substr(1, end - 1));
  }
  refuse("is like Llama 3.1's but names no date");
}

std::string literal_of(std::string_view text, std::string_view start) {
  for (const std::string& literal : jinja_literals(text))
    if (literal.starts_with(start)) return literal;
  refuse("is like Llama 3.1's but has no " + std::string(start));
}

chat_format recognised_llama3(const bpe& tokeniser, std::string_view text) {
  chat_format format = llama3();
  format.trims = has(text, "| trim") || has(text, "|trim");
  if (has(text, "bos_token")) format.begin = spelling(tokeniser, tokeniser.description().bos);
  if (has(text, "Cutting Knowledge Date")) {
    format.default_system = "";
    format.before_system = literal_of(text, "Cutting Knowledge Date");
    format.before_system += literal_of(text, "Today Date");
    format.before_system += date_of(text) + "\n\n";
  }
  return format;
}

// ---------------------------------------------------------------------------------- Zephyr ---

// Three roles, each on a line of its own, each content followed by the last token and a line's end.
bool is_zephyr(std::string_view text) {
  constexpr std::string_view ending = "+ eos_token }}\n";
  int turns = 0;
  for (std::size_t at = text.find(ending); at != std::string_view::npos;
       at = text.find(ending, at + 1))
    ++turns;
  const std::vector<std::string> literals = jinja_literals(text);
  const auto all_there = [&](auto... wanted) {
    return ((std::ranges::find(literals, wanted) != literals.end()) && ...);
  };
  return turns == 3 && all_there("<|user|>\n", "<|system|>\n", "<|assistant|>\n", "<|assistant|>");
}

chat_format zephyr(const bpe& tokeniser) {
  return {.before_role = "<|",
          .after_role = "|>\n",
          .end_of_turn = spelling(tokeniser, tokeniser.description().eos),
          .after_turn = "\n"};
}

chat_format checked(const chat_format& format, const bpe& tokeniser) {
  end_of_answer(tokeniser, format);
  if (format.before_role.ends_with("|>") && !tokeniser.id(format.before_role))
    throw std::runtime_error("the vocabulary has no token \"" + format.before_role +
                             "\", by which the chat template starts a turn");
  return format;
}

}  // namespace

chat_format recognised_chat_format(const bpe& tokeniser) {
  const std::string& text = tokeniser.description().chat_template;
  if (text.empty()) refuse("is not there");
  if (has(text, chatml_start) && has(text, chatml_end))
    return checked(recognised_chatml(tokeniser, text), tokeniser);
  if (has(text, llama3_start) && has(text, llama3_end))
    return checked(recognised_llama3(tokeniser, text), tokeniser);
  if (is_zephyr(text)) return checked(zephyr(tokeniser), tokeniser);
  refuse("is not known");
}

chat_format named_chat_format(std::string_view name, const bpe& tokeniser) {
  const bpe_description& d = tokeniser.description();
  if (name == "chatml") return checked(chatml(), tokeniser);
  if (name == "llama3") {
    chat_format format = llama3();
    format.begin = spelling(tokeniser, d.bos);
    return checked(format, tokeniser);
  }
  if (name == "plain")
    return checked({.begin = d.add_bos ? spelling(tokeniser, d.bos) : "",
                    .end_of_turn = spelling(tokeniser, d.eos),
                    .names_roles = false},
                   tokeniser);
  throw std::runtime_error("the chat template \"" + std::string(name) +
                           "\" is not known; known are chatml, llama3 and plain");
}

}  // namespace align
