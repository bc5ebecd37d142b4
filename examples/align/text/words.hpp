// Words and numbers: how a text becomes tokens, and which number stands for which token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace align {

using token = std::int32_t;
using words = std::vector<std::string>;

// Lower-cased words [a-z]+('[a-z]+)?, numbers [0-9]+, and single marks of .,;:!?()-'" . Bytes
// outside ASCII are removed first; everything else only separates.
words tokenise(std::string_view text);

// Number <-> word. Four special tokens come first, then the words, most frequent first.
class vocabulary {
 public:
  static constexpr token unknown = 0;
  static constexpr token begin = 1;
  static constexpr token separator = 2;  // between prompt and completion
  static constexpr token end = 3;
  static constexpr int specials = 4;

  vocabulary() : vocabulary(words{}) {}

  // Exactly these words, in this order; each must be new.
  explicit vocabulary(const words& in_order);

  // The `limit` most frequent words of the texts; equally frequent ones in alphabetical order.
  static vocabulary most_frequent(std::span<const words> texts, std::size_t limit);

  int size() const { return static_cast<int>(words_.size()); }  // specials included
  token id(std::string_view word) const;                        // `unknown` when it is not here
  const std::string& word(token id) const { return words_.at(static_cast<std::size_t>(id)); }

  std::vector<token> encode(std::span<const std::string> text) const;
  std::string decode(std::span<const token> ids) const;  // joined by spaces; specials left out

  friend bool operator==(const vocabulary& a, const vocabulary& b) { return a.words_ == b.words_; }

 private:
  words words_;
  std::unordered_map<std::string, token> ids_;
};

}  // namespace align
