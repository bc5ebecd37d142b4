// What a byte-level BPE tokeniser is made of, as plain data: the metadata of a GGUF file or the
// content of a tokenizer.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/words.hpp"

namespace align {

enum class token_type : std::int32_t {  // the numbers are those of tokenizer.ggml.token_type
  normal = 1,
  unknown = 2,
  control = 3,       // markup: only what asks for it gets it from a text
  user_defined = 4,  // always found as a whole, before any cutting
  unused = 5,
  byte = 6,  // of vocabularies that are not byte-level
};

struct bpe_description {
  // Normal tokens are spelled in the alphabet of byte_level.hpp, all others as they are.
  std::vector<std::string> tokens = {};
  std::vector<token_type> types = {};
  std::vector<std::string> merges = {};   // "a b", the most urgent first
  std::vector<std::string> regexes = {};  // of the pre-tokeniser, in order
  bool ignore_merges = false;             // a word that is a token needs no merges
  bool add_bos = false;
  bool add_eos = false;
  std::optional<token> bos = {};
  std::optional<token> eos = {};
  std::optional<token> eot = {};
  std::optional<token> pad = {};
  std::optional<token> unknown = {};
  std::optional<token> missing_byte = {};  // stands for a byte without a token; none: left out
  std::string chat_template = {};

  friend bool operator==(const bpe_description&, const bpe_description&) = default;
};

// Throws std::runtime_error, in one sentence, for what is no vocabulary: an id that is no token's,
// a type that does not fit, a text that is not UTF-8. Merges are checked where they are used.
void require_valid(const bpe_description& description);

// Unused tokens at the end until there are `size`: models often have more rows than tokens.
void pad_vocabulary(bpe_description& description, std::size_t size);

}  // namespace align
