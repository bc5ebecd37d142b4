// A tokeniser as the metadata of a GGUF file describes it, and the two ways between that and our
// description.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/bpe_description.hpp"

namespace align {

// Named after the keys, without "tokenizer.ggml."; the last one is tokenizer.chat_template.
struct gguf_tokeniser {
  std::string model = {};  // "gpt2": byte-level BPE
  std::string pre = {};
  std::vector<std::string> tokens = {};
  std::vector<std::int32_t> token_type = {};  // empty: all normal
  std::vector<std::string> merges = {};
  std::optional<std::int64_t> bos_token_id = {};
  std::optional<std::int64_t> eos_token_id = {};
  std::optional<std::int64_t> eot_token_id = {};
  std::optional<std::int64_t> padding_token_id = {};
  std::optional<std::int64_t> unknown_token_id = {};
  std::optional<bool> add_bos_token = {};
  std::optional<bool> add_eos_token = {};
  std::string chat_template = {};
};

// Both throw std::runtime_error for what the other side cannot say.
bpe_description from_gguf(gguf_tokeniser metadata);
gguf_tokeniser to_gguf(const bpe_description& description);

}  // namespace align
