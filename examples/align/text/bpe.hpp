// Byte-level BPE, the tokeniser of the models that are trained from GGUF files and Hugging Face
// folders: a text is cut into words, and a word's bytes merge, pair by pair, into tokens.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "text/added_tokens.hpp"
#include "text/bpe_description.hpp"
#include "text/merges.hpp"
#include "text/pre_tokeniser.hpp"
#include "text/words.hpp"

namespace align {

// Of a text that is put together from markup and from what people wrote. Only markup may hold
// control tokens: what a user writes never becomes one, even where it reads like one.
struct text_part {
  std::string text;
  bool markup = false;

  friend bool operator==(const text_part&, const text_part&) = default;
};

class bpe {
 public:
  // Throws std::runtime_error where the description contradicts itself.
  explicit bpe(bpe_description description);

  const bpe_description& description() const { return description_; }
  std::size_t size() const { return description_.tokens.size(); }

  // As the vocabulary spells it.
  std::optional<token> id(std::string_view spelling) const;

  // Throws std::runtime_error for a text that is not UTF-8. Adds neither a first nor a last token.
  // A byte that the vocabulary has no token for is left out, as `tokenizers` does, unless the
  // description names one for it.
  std::vector<token> encode(std::string_view text, bool parse_specials) const;

  // The parts as one text: words may reach across their borders, as they do in what a chat template
  // makes of a conversation.
  std::vector<token> encode(std::span<const text_part> parts) const;

  bool has_byte(unsigned char byte) const { return byte_ids_[byte] >= 0; }

  // Byte for byte; what is not a whole character at either end stays so. Control, unknown and
  // unused tokens are written only with `keep_specials`. Throws std::runtime_error for what is no
  // token.
  std::string decode(std::span<const token> ids, bool keep_specials) const;

 private:
  void add_token(token id);
  void add_merges();
  void add_whole_words();
  void encode_plain(std::string_view text, std::vector<token>& ids) const;
  void encode_pieces(std::string_view text, std::vector<token>& ids) const;
  void encode_word(std::string_view word, std::vector<token>& ids) const;
  std::vector<token> merged(std::string_view word) const;

  bpe_description description_;
  pre_tokeniser pre_tokeniser_;
  table_of_texts<token> ids_;          // by spelling
  table_of_texts<token> whole_words_;  // by bytes: words that merging makes one token
  std::vector<std::string> bytes_;     // of each token
  std::array<token, 256> byte_ids_{};  // -1: none
  merge_table merges_;
  added_tokens markup_;        // control and user-defined tokens
  added_tokens user_defined_;  // only those
};

}  // namespace align
