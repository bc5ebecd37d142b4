// See pre_tokeniser.hpp.
#include "text/pre_tokeniser.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <new>
#include <stdexcept>

#include "text/regex_dialect.hpp"
#include "text/utf8.hpp"

namespace align {

constexpr std::string_view gpt2_regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view single_digits_regex = R"(\p{N})";

namespace {

constexpr std::string_view llama3_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view qwen2_regex =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

struct named_cut {
  std::string_view name, first, second;  // `first` may be empty
};

// Of several names for one cut, the one that files are written with comes first.
constexpr std::array<named_cut, 8> cuts = {{
    {"smollm", single_digits_regex, gpt2_regex},
    {"gpt-2", "", gpt2_regex},
    {"gpt2", "", gpt2_regex},
    {"default", "", gpt2_regex},
    {"llama-bpe", "", llama3_regex},
    {"llama3", "", llama3_regex},
    {"llama-v3", "", llama3_regex},
    {"qwen2", "", qwen2_regex},
}};

std::vector<std::string> regexes_of(const named_cut& cut) {
  std::vector<std::string> regexes;
  if (!cut.first.empty()) regexes.emplace_back(cut.first);
  regexes.emplace_back(cut.second);
  return regexes;
}

std::string known_names() {
  std::string names;
  for (const named_cut& cut : cuts) {
    if (!names.empty()) names += ", ";
    names += cut.name;
  }
  return names;
}

std::string complaint_of(int error) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(error, text.data(), text.size());
  return {text.begin(), std::find(text.begin(), text.end(), PCRE2_UCHAR{0})};
}

std::shared_ptr<const pcre2_code> compiled(std::string_view regex) {
  const std::string pattern = to_pcre2(regex);
  require_utf8(pattern);
  int error = 0;
  PCRE2_SIZE where = 0;
  std::shared_ptr<pcre2_code> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr),
      pcre2_code_free);
  if (!code)
    throw std::runtime_error("the pre-tokeniser's regex " + std::string(regex) +
                             " cannot be compiled: " + complaint_of(error));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without it the same is found, more slowly
  return code;
}

class matcher {
 public:
  explicit matcher(const pcre2_code& code)
      : code_(code),
        found_(pcre2_match_data_create_from_pattern(&code, nullptr), pcre2_match_data_free) {
    if (!found_) throw std::bad_alloc();
  }

  // Empty at the end of the text when there is none, or none that is not empty.
  std::string_view next(std::string_view text, std::size_t from) const {
    while (from < text.size()) {
      const int count =
          pcre2_match(&code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                      PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, found_.get(), nullptr);
      if (count == PCRE2_ERROR_NOMATCH) break;
      if (count < 0)
        throw std::runtime_error("a pre-tokeniser's regex gives up on a text of " +
                                 std::to_string(text.size()) + " bytes: " + complaint_of(count));
      const PCRE2_SIZE* span = pcre2_get_ovector_pointer(found_.get());
      if (span[1] > span[0] && span[0] >= from) return text.substr(span[0], span[1] - span[0]);
      from += first_code_point(text.substr(from)).size;
    }
    return text.substr(text.size());
  }

 private:
  const pcre2_code& code_;
  std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> found_;
};

void cut(std::string_view text, const matcher& matches, std::vector<std::string_view>& pieces) {
  std::size_t done = 0;
  while (done < text.size()) {
    const std::string_view match = matches.next(text, done);
    const auto begin = static_cast<std::size_t>(match.data() - text.data());
    if (begin > done) pieces.push_back(text.substr(done, begin - done));
    if (!match.empty()) pieces.push_back(match);
    done = begin + match.size();
  }
}

}  // namespace

pre_tokeniser::pre_tokeniser(std::span<const std::string> regexes) {
  for (const std::string& regex : regexes) steps_.push_back(compiled(regex));
}

std::vector<std::string_view> pre_tokeniser::split(std::string_view text) const {
  std::vector<std::string_view> pieces, finer;
  if (!text.empty()) pieces.push_back(text);
  for (const auto& step : steps_) {
    const matcher matches(*step);
    finer.clear();
    for (const std::string_view piece : pieces) cut(piece, matches, finer);
    pieces.swap(finer);
  }
  return pieces;
}

std::vector<std::string> regexes_named(std::string_view name) {
  for (const named_cut& cut : cuts)
    if (cut.name == name) return regexes_of(cut);
  throw std::runtime_error("the pre-tokeniser \"" + std::string(name) +
                           "\" is not known; known are " + known_names());
}

std::string name_of_regexes(std::span<const std::string> regexes) {
  for (const named_cut& cut : cuts)
    if (std::ranges::equal(regexes, regexes_of(cut))) return std::string(cut.name);
  throw std::runtime_error(
      "the tokeniser's regexes have no name that a GGUF file could give; named are " +
      known_names());
}

}  // namespace align
