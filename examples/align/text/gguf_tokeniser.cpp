// See gguf_tokeniser.hpp.
#include "text/gguf_tokeniser.hpp"

#include <limits>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "text/pre_tokeniser.hpp"

namespace align {
namespace {

constexpr std::string_view byte_level_model = "gpt2";

std::optional<token> id_of(std::optional<std::int64_t> id) {
  if (!id) return std::nullopt;
  if (*id < 0 || *id > std::numeric_limits<token>::max())
    throw std::runtime_error("the GGUF file names a special token by the id " +
                             std::to_string(*id) + ", which is none");
  return static_cast<token>(*id);
}

// Whether Llama 3's words need no merges is not written in the file; it goes with its cut.
bool ignores_merges(std::string_view pre) {
  return pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3";
}

}  // namespace

bpe_description from_gguf(gguf_tokeniser metadata) {
  if (metadata.model != byte_level_model)
    throw std::runtime_error("the tokeniser of the GGUF file is of the model \"" + metadata.model +
                             "\"; only \"gpt2\", which is byte-level BPE, is supported");
  bpe_description d;
  d.regexes = regexes_named(metadata.pre.empty() ? "default" : metadata.pre);
  d.ignore_merges = ignores_merges(metadata.pre);
  d.tokens = std::move(metadata.tokens);
  d.types.assign(d.tokens.size(), token_type::normal);
  if (!metadata.token_type.empty()) {
    d.types.clear();
    for (const std::int32_t type : metadata.token_type)
      d.types.push_back(static_cast<token_type>(type));
  }
  d.merges = std::move(metadata.merges);
  d.bos = id_of(metadata.bos_token_id);
  d.eos = id_of(metadata.eos_token_id);
  d.eot = id_of(metadata.eot_token_id);
  d.pad = id_of(metadata.padding_token_id);
  d.unknown = id_of(metadata.unknown_token_id);
  d.add_bos = metadata.add_bos_token.value_or(ignores_merges(metadata.pre));
  d.add_eos = metadata.add_eos_token.value_or(false);
  d.chat_template = std::move(metadata.chat_template);
  require_valid(d);
  return d;
}

gguf_tokeniser to_gguf(const bpe_description& d) {
  gguf_tokeniser metadata;
  metadata.model = byte_level_model;
  metadata.pre = name_of_regexes(d.regexes);
  if (ignores_merges(metadata.pre) != d.ignore_merges)
    throw std::runtime_error("a GGUF file of the pre-tokeniser " + metadata.pre +
                             " cannot say whether words that are tokens need merges");
  metadata.tokens = d.tokens;
  for (const token_type type : d.types)
    metadata.token_type.push_back(static_cast<std::int32_t>(type));
  metadata.merges = d.merges;
  metadata.bos_token_id = d.bos;
  metadata.eos_token_id = d.eos;
  metadata.eot_token_id = d.eot;
  metadata.padding_token_id = d.pad;
  metadata.unknown_token_id = d.unknown;
  metadata.add_bos_token = d.add_bos;
  metadata.add_eos_token = d.add_eos;
  metadata.chat_template = d.chat_template;
  return metadata;
}

}  // namespace align
