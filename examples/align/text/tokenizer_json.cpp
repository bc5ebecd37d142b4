// Reading; see tokenizer_json.hpp.
#include "text/tokenizer_json.hpp"

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "files.hpp"
#include "text/byte_level.hpp"
#include "text/pre_tokeniser.hpp"

namespace align {
namespace {

using json = nlohmann::json;

constexpr std::int64_t largest_vocabulary = 1'000'000;

[[noreturn]] void refuse(const std::string& what) {
  throw std::runtime_error("tokenizer.json " + what);
}

// A key that is absent is null.
const json& at(const json& object, const char* key) {
  static const json null;
  const auto found = object.find(key);
  return found == object.end() ? null : *found;
}

bool is_on(const json& object, const char* key, bool otherwise = false) {
  const json& value = at(object, key);
  return value.is_null() ? otherwise : value.get<bool>();
}

std::string text_at(const json& object, const char* key) {
  const json& value = at(object, key);
  return value.is_null() ? "" : value.get<std::string>();
}

void refuse_unless_null(const json& object, const char* key) {
  const json& value = at(object, key);
  if (!value.is_null())
    refuse("has a " + std::string(key) + " of the type \"" + text_at(value, "type") +
           "\", which is not supported");
}

// ------------------------------------------------------------------------------- vocabulary ---

void put_token(bpe_description& d, const json& given, const std::string& text, token_type type) {
  if (!given.is_number_integer())
    refuse("gives the token \"" + text + "\" the id " + given.dump() + ", which is no integer");
  const auto id = given.get<std::int64_t>();
  if (id < 0 || id >= largest_vocabulary)
    refuse("gives the token \"" + text + "\" the id " + std::to_string(id) +
           ", which is not between 0 and " + std::to_string(largest_vocabulary));
  const auto i = static_cast<std::size_t>(id);
  if (i >= d.tokens.size()) pad_vocabulary(d, i + 1);
  const bool is_free = d.types[i] == token_type::unused;
  if (!is_free && d.tokens[i] != text)
    refuse("gives the id " + std::to_string(id) + " to two tokens, \"" + d.tokens[i] + "\" and \"" +
           text + "\"");
  d.tokens[i] = text;
  d.types[i] = type;
}

void read_added_token(bpe_description& d, const json& added) {
  const std::string text = added.at("content").get<std::string>();
  for (const char* key : {"single_word", "lstrip", "rstrip"})
    if (is_on(added, key))
      refuse("has the added token \"" + text + "\" with " + key + ", which is not supported");
  put_token(d, added.at("id"), text,
            is_on(added, "special") ? token_type::control : token_type::user_defined);
}

std::string merge_of(const json& merge) {
  if (merge.is_string()) return merge.get<std::string>();
  if (!merge.is_array() || merge.size() != 2) refuse("has a merge that is not of two tokens");
  return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
}

std::optional<token> id_of(const bpe_description& d, const std::string& text) {
  for (std::size_t i = 0; i < d.tokens.size(); ++i)
    if (d.tokens[i] == text) return static_cast<token>(i);
  return std::nullopt;
}

void read_model(bpe_description& d, const json& model) {
  if (const std::string type = text_at(model, "type"); !type.empty() && type != "BPE")
    refuse("has a model of the type \"" + type + "\"; only BPE is supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!text_at(model, key).empty())
      refuse(std::string("has a ") + key + ", which is not supported");
  for (const char* key : {"byte_fallback", "fuse_unk"})
    if (is_on(model, key)) refuse(std::string("has ") + key + " on, which is not supported");
  if (const json& dropout = at(model, "dropout"); !dropout.is_null() && dropout.get<double>() != 0)
    refuse("has a dropout, which is not supported");
  for (const auto& [text, id] : model.at("vocab").items())
    put_token(d, id, text, token_type::normal);
  for (const json& merge : model.at("merges")) d.merges.push_back(merge_of(merge));
  d.ignore_merges = is_on(model, "ignore_merges");
  if (const std::string unknown = text_at(model, "unk_token"); !unknown.empty())
    d.missing_byte = id_of(d, unknown);
}

// ---------------------------------------------------------------------------- pre-tokenising ---

void read_byte_level(bpe_description& d, const json& step) {
  if (is_on(step, "add_prefix_space", true))
    refuse("has a ByteLevel pre_tokenizer with add_prefix_space, which is not supported");
  if (is_on(step, "use_regex", true)) d.regexes.emplace_back(gpt2_regex);
}

void read_split(bpe_description& d, const json& step) {
  const json& pattern = step.at("pattern");
  const std::string regex = text_at(pattern, "Regex"), behaviour = text_at(step, "behavior");
  if (regex.empty()) refuse("has a Split pre_tokenizer without a Regex, which is not supported");
  if (behaviour != "Isolated" || is_on(step, "invert"))
    refuse("has a Split pre_tokenizer of the behavior \"" + behaviour +
           "\" or inverted; only Isolated is supported");
  d.regexes.push_back(regex);
}

void read_pre_tokenizer(bpe_description& d, const json& whole) {
  const bool several = text_at(whole, "type") == "Sequence";
  const json steps = several ? whole.at("pretokenizers") : json::array({whole});
  bool byte_level = false;
  for (const json& step : steps) {
    const std::string type = text_at(step, "type");
    if (byte_level) refuse("has a pre_tokenizer after ByteLevel, which is not supported");
    if (type == "ByteLevel")
      read_byte_level(d, step);
    else if (type == "Digits")
      d.regexes.emplace_back(is_on(step, "individual_digits") ? std::string(single_digits_regex)
                                                              : R"(\p{N}+)");
    else if (type == "Split")
      read_split(d, step);
    else
      refuse("has a pre_tokenizer of the type \"" + type +
             "\"; only ByteLevel, Digits, Split and a Sequence of them are supported");
    byte_level = type == "ByteLevel";
  }
  if (!byte_level) refuse("has no ByteLevel pre_tokenizer, and only byte-level BPE is supported");
}

// ------------------------------------------------------------------ first and last, and names ---

void read_template(bpe_description& d, const json& processor) {
  bool text_came = false;
  for (const json& part : processor.at("single")) {
    if (part.contains("Sequence")) {
      text_came = true;
      continue;
    }
    const std::string name = part.at("SpecialToken").at("id").get<std::string>();
    const std::optional<token> id = id_of(d, name);
    bool& added = text_came ? d.add_eos : d.add_bos;
    if (!id || added)
      refuse("has a post_processor that adds \"" + name +
             "\", which is more than one token at either end or no token at all");
    added = true;
    (text_came ? d.eos : d.bos) = id;
  }
}

void read_post_processor(bpe_description& d, const json& whole) {
  if (whole.is_null()) return;
  const bool several = text_at(whole, "type") == "Sequence";
  const json steps = several ? whole.at("processors") : json::array({whole});
  for (const json& step : steps) {
    const std::string type = text_at(step, "type");
    if (type == "TemplateProcessing")
      read_template(d, step);
    else if (type != "ByteLevel")  // which only trims offsets
      refuse("has a post_processor of the type \"" + type + "\", which is not supported");
  }
}

// A string, or an object with the string in it.
std::optional<token> named_token(const bpe_description& d, const json& config, const char* key) {
  const json& value = at(config, key);
  if (value.is_null()) return std::nullopt;
  return id_of(d, value.is_object() ? text_at(value, "content") : value.get<std::string>());
}

// A text, or several by name, of which "default" counts.
std::string chat_template_of(const json& config) {
  const json& value = at(config, "chat_template");
  if (!value.is_array()) return text_at(config, "chat_template");
  for (const json& one : value)
    if (text_at(one, "name") == "default") return text_at(one, "template");
  return "";
}

void read_config(bpe_description& d, const json& config) {
  const auto name = [&](std::optional<token>& id, const char* key) {
    if (const std::optional<token> named = named_token(d, config, key)) id = named;
  };
  name(d.bos, "bos_token");
  name(d.eos, "eos_token");
  name(d.pad, "pad_token");
  name(d.unknown, "unk_token");
  d.add_bos = is_on(config, "add_bos_token", d.add_bos) && d.bos;
  d.add_eos = is_on(config, "add_eos_token", d.add_eos) && d.eos;
  d.chat_template = chat_template_of(config);
}

bpe_description described(const json& tokenizer, const json& config) {
  bpe_description d;
  read_model(d, tokenizer.at("model"));
  for (const json& added : at(tokenizer, "added_tokens")) read_added_token(d, added);
  refuse_unless_null(tokenizer, "normalizer");
  read_pre_tokenizer(d, at(tokenizer, "pre_tokenizer"));
  if (const std::string type = text_at(at(tokenizer, "decoder"), "type"); type != "ByteLevel")
    refuse("has a decoder of the type \"" + type + "\"; only ByteLevel is supported");
  read_post_processor(d, at(tokenizer, "post_processor"));
  read_config(d, config);
  return d;
}

}  // namespace

bpe_description from_tokenizer_files(const tokenizer_files& files) {
  bpe_description d;
  try {
    d = described(json::parse(files.tokenizer),
                  files.config.empty() ? json::object() : json::parse(files.config));
  } catch (const json::exception& e) {
    throw std::runtime_error(
        std::string("the tokenizer.json or its config cannot be understood: ") + e.what());
  }
  if (!files.chat_template.empty()) d.chat_template = files.chat_template;
  require_valid(d);
  return d;
}

bpe_description read_tokenizer_folder(const std::filesystem::path& folder) {
  const auto read = [&](const char* name, bool needed) {
    const std::filesystem::path path = folder / name;
    return needed || std::filesystem::exists(path) ? read_file(path) : std::string();
  };
  return from_tokenizer_files({.tokenizer = read("tokenizer.json", true),
                               .config = read("tokenizer_config.json", false),
                               .chat_template = read("chat_template.jinja", false)});
}

}  // namespace align
