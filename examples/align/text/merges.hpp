// Which pairs of tokens become one, and in which order: the inner loop of BPE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

#include "text/words.hpp"

namespace align {

class merge_table {
 public:
  void reserve(std::size_t count) { merges_.reserve(count); }

  // The next pair in order of urgency; false when it has come before.
  bool add(token left, token right, token result);

  // Merges until no pair is left: the most urgent first, of equals the leftmost. In time
  // n log n, however long the word.
  void apply(std::vector<token>& word) const;

 private:
  struct merge {
    std::uint32_t rank = 0;
    token result = 0;
  };

  struct hash {
    std::size_t operator()(std::uint64_t pair) const {
      return static_cast<std::size_t>((pair * 0x9e3779b97f4a7c15U) >> 17U);
    }
  };

  const merge* find(token left, token right) const;
  void apply_to_short(std::vector<token>& word) const;
  void apply_to_long(std::vector<token>& word) const;

  std::unordered_map<std::uint64_t, merge, hash> merges_;
};

}  // namespace align
