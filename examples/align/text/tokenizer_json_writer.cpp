// Writing; see tokenizer_json.hpp.
#include <cstddef>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "files.hpp"
#include "text/pre_tokeniser.hpp"
#include "text/tokenizer_json.hpp"

namespace align {
namespace {

using json = nlohmann::ordered_json;

bool is_added(token_type type) { return type != token_type::normal && type != token_type::unused; }

json added_tokens_of(const bpe_description& d) {
  json added = json::array();
  for (std::size_t i = 0; i < d.tokens.size(); ++i) {
    if (!is_added(d.types[i])) continue;
    const bool special = d.types[i] != token_type::user_defined;
    added.push_back({{"id", i},
                     {"content", d.tokens[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", !special},
                     {"special", special}});
  }
  return added;
}

json model_of(const bpe_description& d) {
  // Unused tokens stay in the vocabulary: whoever loads it finds as many tokens as the model has
  // rows.
  json::object_t vocabulary;  // filled past its search for twins, which would look at every key
  json merges = json::array();
  for (std::size_t i = 0; i < d.tokens.size(); ++i) vocabulary.emplace_back(d.tokens[i], i);
  for (const std::string& merge : d.merges) {
    const std::size_t space = merge.find(' ');
    merges.push_back(json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", d.missing_byte ? json(d.tokens[static_cast<std::size_t>(*d.missing_byte)])
                                       : json(nullptr)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", false},
          {"byte_fallback", false},
          {"ignore_merges", d.ignore_merges},
          {"vocab", std::move(vocabulary)},
          {"merges", std::move(merges)}};
}

json byte_level(bool use_regex) {
  return {{"type", "ByteLevel"},
          {"add_prefix_space", false},
          {"trim_offsets", true},
          {"use_regex", use_regex}};
}

json split(const std::string& regex) {
  if (regex == single_digits_regex) return {{"type", "Digits"}, {"individual_digits", true}};
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", "Isolated"},
          {"invert", false}};
}

json pre_tokenizer_of(const bpe_description& d) {
  json steps = json::array();
  const bool ends_as_gpt2 = !d.regexes.empty() && d.regexes.back() == gpt2_regex;
  const std::size_t splits = d.regexes.size() - (ends_as_gpt2 ? 1 : 0);
  for (std::size_t i = 0; i < splits; ++i) steps.push_back(split(d.regexes[i]));
  steps.push_back(byte_level(ends_as_gpt2));
  if (steps.size() == 1) return steps.front();
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

json post_processor_of(const bpe_description& d) {
  if (!d.add_bos && !d.add_eos) return byte_level(true);
  json single = json::array(), pair = json::array(), specials = json::object();
  const auto special = [&](json& to, token id, int type) {
    const std::string& text = d.tokens[static_cast<std::size_t>(id)];
    to.push_back({{"SpecialToken", {{"id", text}, {"type_id", type}}}});
    specials[text] = {{"id", text}, {"ids", json::array({id})}, {"tokens", json::array({text})}};
  };
  const auto framed = [&](json& to, const char* name, int type) {
    if (d.add_bos) special(to, *d.bos, type);
    to.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (d.add_eos) special(to, *d.eos, type);
  };
  framed(single, "A", 0);
  framed(pair, "A", 0);
  framed(pair, "B", 1);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(specials)}};
}

json config_of(const bpe_description& d) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, std::optional<token> id) {
    if (id) config[key] = d.tokens[static_cast<std::size_t>(*id)];
  };
  name("bos_token", d.bos);
  name("eos_token", d.eos);
  name("pad_token", d.pad);
  name("unk_token", d.unknown);
  config["add_bos_token"] = d.add_bos;
  config["add_eos_token"] = d.add_eos;
  if (!d.chat_template.empty()) config["chat_template"] = d.chat_template;
  return config;
}

}  // namespace

tokenizer_files to_tokenizer_files(const bpe_description& d) {
  require_valid(d);
  const json tokenizer = {{"version", "1.0"},
                          {"truncation", nullptr},
                          {"padding", nullptr},
                          {"added_tokens", added_tokens_of(d)},
                          {"normalizer", nullptr},
                          {"pre_tokenizer", pre_tokenizer_of(d)},
                          {"post_processor", post_processor_of(d)},
                          {"decoder", byte_level(true)},
                          {"model", model_of(d)}};
  return {.tokenizer = tokenizer.dump(2) + "\n", .config = config_of(d).dump(2) + "\n"};
}

void write_tokenizer_folder(const bpe_description& d, const std::filesystem::path& folder) {
  const tokenizer_files files = to_tokenizer_files(d);
  std::filesystem::create_directories(folder);
  write_atomically(folder / "tokenizer.json", files.tokenizer);
  write_atomically(folder / "tokenizer_config.json", files.config);
}

}  // namespace align
