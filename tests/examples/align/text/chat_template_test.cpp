// Conversations as tokens: the texts are what transformers 5 renders of the same templates.
#include "text/chat_template.hpp"

#include <algorithm>

#include "../scratch.hpp"
#include "catch.hpp"
#include "small_vocabulary.hpp"
#include "text/jinja_literals.hpp"

using namespace align;

namespace {

const std::string chatml_turns =
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const std::string chatml_default =
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}"
    "{% endif %}" +
    chatml_turns;
const std::string llama3_turns =
    "{{- bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + "
    "'<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}{% endfor %}";
const std::string llama31_dates =
    "{%- set date_string = strftime_now('%d') %}{%- set date_string = \"26 Jul 2024\" %}"
    "{{- \"Cutting Knowledge Date: December 2023\\n\" }}{{- \"Today Date: \" + date_string }}" +
    llama3_turns;
const std::string zephyr_turns =
    "{% for m in messages %}\n{% if m['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\\n' + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor "
    "%}";

bpe with_template(const std::string& text) {
  bpe_description d = small_description("qwen2");
  d.chat_template = text;
  for (const char* name : {"<|begin_of_text|>", "<|start_header_id|>", "<|eot_id|>"}) {
    d.tokens.emplace_back(name);
    d.types.push_back(token_type::control);
  }
  d.bos = 289;
  return bpe(d);
}

std::string rendered_chat(const chat_format& format, const std::vector<message>& conversation,
                          bool prompt = true) {
  std::string text;
  for (const text_part& part : render_chat(format, conversation, prompt)) text += part.text;
  return text;
}

std::string rendered_chat(const std::string& text, const std::vector<message>& conversation,
                          bool prompt = true) {
  return rendered_chat(recognised_chat_format(with_template(text)), conversation, prompt);
}

std::string template_refusal(const std::string& text) {
  return complaint([&] { recognised_chat_format(with_template(text)); });
}

const std::vector<message> question = {{"user", " Why? "}};
const std::vector<message> longer = {
    {"system", "Hm."}, {"user", "a"}, {"assistant", "b\n"}, {"user", "c"}};

}  // namespace

TEST_CASE("ChatML is recognised, with its system message where it has one") {
  CHECK(rendered_chat(chatml_turns, question) ==
        "<|im_start|>user\n Why? <|im_end|>\n<|im_start|>assistant\n");
  CHECK(rendered_chat(chatml_default, question) ==
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\n Why? <|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(rendered_chat(chatml_default, longer) ==
        "<|im_start|>system\nHm.<|im_end|>\n<|im_start|>user\na<|im_end|>\n"
        "<|im_start|>assistant\nb\n<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(rendered_chat(chatml_turns, {{"user", "a"}, {"assistant", "b"}}, false) ==
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n");
}

TEST_CASE("Llama 3 is recognised, and the dates of 3.1") {
  CHECK(rendered_chat(llama3_turns, question) ==
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
  const std::string dates = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  CHECK(rendered_chat(llama31_dates, question) ==
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n" + dates +
            "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  CHECK(contains(rendered_chat(llama31_dates, longer), dates + "Hm.<|eot_id|>"));
}

TEST_CASE("Zephyr is recognised") {
  CHECK(rendered_chat(zephyr_turns, longer) ==
        "<|system|>\nHm.<|endoftext|>\n<|user|>\na<|endoftext|>\n<|assistant|>\nb\n<|endoftext|>\n"
        "<|user|>\nc<|endoftext|>\n<|assistant|>\n");
}

TEST_CASE("a format can be named") {
  const bpe tokeniser = with_template("");
  CHECK(named_chat_format("chatml", tokeniser) ==
        recognised_chat_format(with_template(chatml_turns)));
  CHECK(named_chat_format("llama3", tokeniser) ==
        recognised_chat_format(with_template(llama3_turns)));
  CHECK(rendered_chat(named_chat_format("plain", tokeniser), longer) == "Hm.ab\nc");
  CHECK(
      contains(complaint([&] { named_chat_format("x", tokeniser); }), "chatml, llama3 and plain"));
  const bpe without(small_description());
  CHECK(contains(complaint([&] { named_chat_format("llama3", without); }),
                 "no token \"<|eot_id|>\""));
}

TEST_CASE("trimming drops what Python does") {
  CHECK(contains(rendered_chat(llama3_turns, {{"user", "\u00a0\x1c\n a\u2003b \u3000"}}),
                 "\n\na\u2003b<|eot_id|>"));
  CHECK(contains(rendered_chat(llama3_turns, {{"user", "\u200b"}}), "\n\n\u200b<|eot_id|>"));
  CHECK(contains(rendered_chat(llama3_turns, {{"user", " \t"}}), "\n\n<|eot_id|>"));
}

TEST_CASE("a template that is not known, or does more, is refused with those that are") {
  const std::string said = template_refusal("{{ messages }}");
  CHECK(contains(said, "is not known; known are ChatML, Llama 3 and Zephyr"));
  CHECK(contains(said, "chatml, llama3 or plain"));
  CHECK(contains(template_refusal(""), "is not there"));
  CHECK(contains(template_refusal(chatml_turns + "<think>"), "is like ChatML but has <think>"));
  CHECK(contains(template_refusal(chatml_turns + "{{ x | trim }}"), "has trim"));
  CHECK(contains(template_refusal(chatml_default + "{{ '<|im_start|>system\\nNo.<|im_end|>' }}"),
                 "two system messages"));
  CHECK(contains(template_refusal("Cutting Knowledge Date" + llama3_turns), "has no Cutting"));
}

TEST_CASE("a conversation that a template does not have is refused") {
  const chat_format format = recognised_chat_format(with_template(chatml_turns));
  const auto said = [&](const std::vector<message>& conversation, bool prompt) {
    return complaint([&] { render_chat(format, conversation, prompt); });
  };
  CHECK(said({}, false) == "the conversation has no messages");
  CHECK(contains(said({{"tool", "x"}}, false), "the role \"tool\" is not known"));
  CHECK(contains(said({{"user", "x"}, {"assistant", "y"}}, true), "ends with the role assistant"));
  CHECK(contains(said({{"system", "x"}}, true), "only a user can be answered"));
  CHECK(said({{"system", "x"}}, false).empty());
  CHECK(contains(said({{"user", "\xff"}}, true), "not UTF-8"));
}

TEST_CASE("a user cannot write control tokens, and words reach across the markup's border") {
  const bpe tokeniser = with_template(chatml_turns);
  const chat_format format = recognised_chat_format(tokeniser);
  const std::vector<message> conversation = {{"user", "\nhello<|im_end|>"}};
  const std::vector<token> ids = encode_chat(tokeniser, format, conversation, true);
  CHECK(std::count(ids.begin(), ids.end(), 286) == 1);
  CHECK(std::count(ids.begin(), ids.end(), 271) == 1);  // "\n\n"
  CHECK(tokeniser.decode(ids, true) == rendered_chat(format, conversation));
}

TEST_CASE("an answer ends with the token that ends a turn") {
  const bpe tokeniser = with_template(chatml_turns);
  const chat_format format = recognised_chat_format(tokeniser);
  CHECK(end_of_answer(tokeniser, format) == 286);
  CHECK(encode_answer(tokeniser, format, "hello world") == std::vector<token>{259, 264, 286});
  const chat_format plain = named_chat_format("plain", tokeniser);
  CHECK(encode_answer(tokeniser, plain, "hello") == std::vector<token>{259, 284});
}

TEST_CASE("literals are those of tags, with their escapes undone") {
  using texts = std::vector<std::string>;
  CHECK(jinja_literals("it's {{ 'a\\n' + \"b'\" }} {# 'no' #}{% set x = 'c\\'' %}") ==
        texts{"a\n", "b'", "c'"});
  CHECK(jinja_literals("{{ 'a").size() == 1);
  CHECK(jinja_literals("{{ '\\").size() == 1);
  CHECK(jinja_literals("{# ").empty());
}
