// How a text is cut into words before merging: regexes, one after another, each of which cuts the
// pieces that the one before has left. Every match is a piece, and so is what lies between matches.
// Which characters are letters is the Unicode of the PCRE2 that is linked (14 in Debian 12); the
// package `tokenizers` may know newer ones.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct pcre2_real_code_8;  // PCRE2's name for what it has compiled

namespace align {

class pre_tokeniser {
 public:
  // Regexes as `tokenizers` writes them (see regex_dialect.hpp). Throws std::runtime_error.
  explicit pre_tokeniser(std::span<const std::string> regexes);

  // The text is well-formed UTF-8; the pieces point into it, in order, and leave nothing out.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  std::vector<std::shared_ptr<const pcre2_real_code_8>> steps_;
};

// GPT-2's cut, which `tokenizers` calls ByteLevel; and each digit by itself.
extern const std::string_view gpt2_regex;
extern const std::string_view single_digits_regex;

// By the name that GGUF files give (tokenizer.ggml.pre). Throws std::runtime_error for a name that
// is not known. Texts are taken as they are; Qwen's own tokeniser composes characters (NFC) first.
std::vector<std::string> regexes_named(std::string_view name);

// The way back: the name of exactly these regexes.
std::string name_of_regexes(std::span<const std::string> regexes);

}  // namespace align
