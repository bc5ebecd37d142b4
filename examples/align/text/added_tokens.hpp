// Tokens that are found in a text as they are, before it is cut into words.
#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/words.hpp"

namespace align {

// Looks a std::string_view up in a table of std::string.
struct text_hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const {
    return std::hash<std::string_view>{}(text);
  }
};
template <class Value>
using table_of_texts = std::unordered_map<std::string, Value, text_hash, std::equal_to<>>;

class added_tokens {
 public:
  struct place {
    std::size_t begin = 0, size = 0;
    token id = 0;
  };

  void add(const std::string& text, token id);

  // The leftmost at or after `from`; of several there, the longest.
  std::optional<place> find(std::string_view text, std::size_t from) const;

 private:
  std::array<bool, 256> starts_{};
  std::vector<std::size_t> sizes_;  // the longest first
  table_of_texts<token> ids_;
};

}  // namespace align
