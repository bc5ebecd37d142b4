// See chat_codec.hpp.
#include "text/chat_codec.hpp"

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <utility>

#include "text/chat_template.hpp"
#include "text/gguf_tokeniser.hpp"
#include "text/tokenizer_json.hpp"

namespace align {
namespace {

gguf_tokeniser gguf_tokeniser_of(const gguf_metadata& metadata) {
  const std::string prefix = "tokenizer.ggml.";
  const auto has = [&](const std::string& key) { return metadata.find(prefix + key) != nullptr; };
  const auto id = [&](const std::string& key) -> std::optional<std::int64_t> {
    if (!has(key)) return {};
    return static_cast<std::int64_t>(metadata.whole(prefix + key));
  };
  const auto flag = [&](const std::string& key) -> std::optional<bool> {
    if (!has(key)) return {};
    return metadata.flag(prefix + key);
  };
  gguf_tokeniser made;
  made.model = metadata.text(prefix + "model");
  if (has("pre")) made.pre = metadata.text(prefix + "pre");
  made.tokens = metadata.array<std::string>(prefix + "tokens");
  if (has("token_type")) made.token_type = metadata.array<std::int32_t>(prefix + "token_type");
  if (has("merges")) made.merges = metadata.array<std::string>(prefix + "merges");
  made.bos_token_id = id("bos_token_id");
  made.eos_token_id = id("eos_token_id");
  made.eot_token_id = id("eot_token_id");
  made.padding_token_id = id("padding_token_id");
  made.unknown_token_id = id("unknown_token_id");
  made.add_bos_token = flag("add_bos_token");
  made.add_eos_token = flag("add_eos_token");
  if (metadata.find("tokenizer.chat_template") != nullptr) {
    made.chat_template = metadata.text("tokenizer.chat_template");
  }
  return made;
}

tokenizer_files tokenizer_files_of(const model_origin& origin) {
  tokenizer_files files;
  for (const auto& [name, content] : origin.tokenizer_files) {
    if (name == "tokenizer.json") files.tokenizer = content;
    if (name == "tokenizer_config.json") files.config = content;
    if (name == "chat_template.jinja") files.chat_template = content;
  }
  if (files.tokenizer.empty()) {
    throw std::runtime_error("the folder of the model has no tokenizer.json");
  }
  return files;
}

void add_to_metadata(const gguf_tokeniser& from, gguf_metadata& to) {
  const auto set = [&](const std::string& key, gguf_value value) {
    to.set("tokenizer.ggml." + key, std::move(value));
  };
  const auto set_id = [&](const std::string& key, const std::optional<std::int64_t>& id) {
    if (id) set(key, static_cast<std::uint32_t>(*id));
  };
  const auto set_flag = [&](const std::string& key, const std::optional<bool>& flag) {
    if (flag) set(key, *flag);
  };
  set("model", from.model);
  set("pre", from.pre);
  set("tokens", gguf_array{from.tokens});
  set("token_type", gguf_array{from.token_type});
  set("merges", gguf_array{from.merges});
  set_id("bos_token_id", from.bos_token_id);
  set_id("eos_token_id", from.eos_token_id);
  set_id("eot_token_id", from.eot_token_id);
  set_id("padding_token_id", from.padding_token_id);
  set_id("unknown_token_id", from.unknown_token_id);
  set_flag("add_bos_token", from.add_bos_token);
  set_flag("add_eos_token", from.add_eos_token);
  if (!from.chat_template.empty()) to.set("tokenizer.chat_template", from.chat_template);
}

}  // namespace

model_origin with_tokeniser(model_origin origin) {
  if (origin.metadata.find("tokenizer.ggml.tokens") != nullptr) {
    const tokenizer_files files = to_tokenizer_files(from_gguf(gguf_tokeniser_of(origin.metadata)));
    origin.tokenizer_files = {{"tokenizer.json", files.tokenizer},
                              {"tokenizer_config.json", files.config}};
    if (!files.chat_template.empty()) {
      origin.tokenizer_files.emplace_back("chat_template.jinja", files.chat_template);
    }
  } else if (!origin.tokenizer_files.empty()) {
    add_to_metadata(to_gguf(from_tokenizer_files(tokenizer_files_of(origin))), origin.metadata);
  }
  return origin;
}

codec chat_codec(const model_origin& origin, const std::string& format) {
  const auto tokeniser = std::make_shared<const bpe>(
      origin.metadata.entries().empty() ? from_tokenizer_files(tokenizer_files_of(origin))
                                        : from_gguf(gguf_tokeniser_of(origin.metadata)));
  const chat_format chat =
      format.empty() ? recognised_chat_format(*tokeniser) : named_chat_format(format, *tokeniser);
  codec made;
  made.vocabulary = static_cast<int>(tokeniser->size());
  if (!chat.begin.empty()) made.begin = tokeniser->id(chat.begin);
  made.end = end_of_answer(*tokeniser, chat);
  made.prompt = [=](std::span<const message> conversation) {
    // No format lets an assistant begin; a user who says nothing comes closest.
    const std::vector<message> nothing{{"user", ""}};
    return encode_chat(*tokeniser, chat, conversation.empty() ? nothing : conversation, true);
  };
  made.completion = [=](std::string_view text) {
    std::vector<token> answer = encode_answer(*tokeniser, chat, text);
    answer.pop_back();  // its end, which whoever cuts answers adds
    return answer;
  };
  made.decode = [=](std::span<const token> ids) { return tokeniser->decode(ids, false); };
  return made;
}

}  // namespace align
