// align_tokenise TOKENISER [specials]: the ids of every text on stdin, which is a JSON string a
// line, as a JSON array a line. TOKENISER is a Hugging Face folder, or a file with the metadata of
// a GGUF file as JSON. With `specials` control tokens are found in the text. A text whose bytes all
// have a token must come back from its ids byte for byte; the program ends with 1 where one does
// not.
//
// align_tokenise TOKENISER chat [TEMPLATE]: the same for conversations, each an array of messages,
// and answers with {"text", "ids"}; those that a user ends get a generation prompt.
//
// align_tokenise TOKENISER save FOLDER: writes a Hugging Face folder.
#include <algorithm>
#include <exception>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "files.hpp"
#include "text/bpe.hpp"
#include "text/chat_template.hpp"
#include "text/gguf_tokeniser.hpp"
#include "text/tokenizer_json.hpp"

namespace {

using align::bpe;
using nlohmann::json;

template <class Value>
void take(const json& metadata, const std::string& key, Value& to) {
  if (metadata.contains(key)) to = metadata[key].template get<Value>();
}

template <class Value>
void take(const json& metadata, const std::string& key, std::optional<Value>& to) {
  if (metadata.contains(key)) to = metadata[key].template get<Value>();
}

align::bpe_description read_metadata(const std::filesystem::path& path) {
  const json metadata = json::parse(align::read_file(path));
  align::gguf_tokeniser t;
  const std::string prefix = "tokenizer.ggml.";
  take(metadata, prefix + "model", t.model);
  take(metadata, prefix + "pre", t.pre);
  take(metadata, prefix + "tokens", t.tokens);
  take(metadata, prefix + "token_type", t.token_type);
  take(metadata, prefix + "merges", t.merges);
  take(metadata, prefix + "bos_token_id", t.bos_token_id);
  take(metadata, prefix + "eos_token_id", t.eos_token_id);
  take(metadata, prefix + "eot_token_id", t.eot_token_id);
  take(metadata, prefix + "padding_token_id", t.padding_token_id);
  take(metadata, prefix + "unknown_token_id", t.unknown_token_id);
  take(metadata, prefix + "add_bos_token", t.add_bos_token);
  take(metadata, prefix + "add_eos_token", t.add_eos_token);
  take(metadata, "tokenizer.chat_template", t.chat_template);
  return align::from_gguf(t);
}

// Without the bytes that the vocabulary has no token for.
std::string kept(const bpe& tokeniser, std::string text) {
  std::erase_if(text, [&](char c) { return !tokeniser.has_byte(static_cast<unsigned char>(c)); });
  return text;
}

void tokenise(const bpe& tokeniser, const std::string& line, bool specials) {
  const std::string text = json::parse(line).get<std::string>();
  const std::vector<align::token> ids = tokeniser.encode(text, specials);
  if (tokeniser.decode(ids, true) != kept(tokeniser, text))
    throw std::runtime_error("decoding does not give the text back: " + line);
  std::cout << json(ids) << "\n";
}

void render(const bpe& tokeniser, const align::chat_format& format, const std::string& line) {
  std::vector<align::message> conversation;
  for (const json& turn : json::parse(line))
    conversation.push_back({.role = turn.at("role"), .content = turn.at("content")});
  const bool prompt = !conversation.empty() && conversation.back().role == "user";
  std::string text;
  for (const auto& part : align::render_chat(format, conversation, prompt)) text += part.text;
  std::cout << json{{"text", text},
                    {"ids", align::encode_chat(tokeniser, format, conversation, prompt)}}
            << "\n";
}

void run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw std::runtime_error("usage: align_tokenise TOKENISER [specials]");
  const std::filesystem::path path = arguments[0];
  const std::string mode = arguments.size() > 1 ? arguments[1] : "";
  const std::string option = arguments.size() > 2 ? arguments[2] : "";
  const bpe tokeniser(std::filesystem::is_directory(path) ? align::read_tokenizer_folder(path)
                                                          : read_metadata(path));
  if (mode == "save") return align::write_tokenizer_folder(tokeniser.description(), option);
  align::chat_format format;
  if (mode == "chat")
    format = option.empty() ? align::recognised_chat_format(tokeniser)
                            : align::named_chat_format(option, tokeniser);
  for (std::string line; std::getline(std::cin, line);) {
    if (mode == "chat")
      render(tokeniser, format, line);
    else
      tokenise(tokeniser, line, mode == "specials");
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    run({arguments + 1, arguments + count});
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "align_tokenise: " << e.what() << "\n";
    return 1;
  }
}
