// Fuzzes the tokeniser: what is UTF-8 comes back from its tokens byte for byte, and what is not is
// refused. An input that starts with { is read as a tokenizer.json, which is refused or usable.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "small_vocabulary.hpp"
#include "text/bpe.hpp"
#include "text/jinja_literals.hpp"
#include "text/tokenizer_json.hpp"
#include "text/utf8.hpp"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// The small vocabulary under each cut.
const std::vector<align::bpe>& tokenisers() {
  static const std::vector<align::bpe> all = [] {
    std::vector<align::bpe> made;
    for (const char* cut : {"gpt-2", "smollm", "llama-bpe", "qwen2"})
      made.emplace_back(align::small_description(cut));
    return made;
  }();
  return all;
}

void check_text(const align::bpe& tokeniser, const std::string& text) {
  const bool is_text = align::well_formed_size(text) == text.size();
  for (const bool specials : {false, true}) {
    try {
      const std::vector<align::token> ids = tokeniser.encode(text, specials);
      require(is_text);
      require(tokeniser.decode(ids, true) == text);
    } catch (const std::runtime_error&) {
      require(!is_text);
    }
  }
  align::jinja_literals(text);
}

void check_file(const std::string& file) {
  try {
    const align::bpe_description read = align::from_tokenizer_files({.tokenizer = file});
    const align::bpe tokeniser(read);
    const std::string text = "It's 12  tests\n\n\xc3\xa9 \xf0\x9f\x98\x80";
    tokeniser.decode(tokeniser.encode(text, true), true);
    align::bpe again(align::from_tokenizer_files(align::to_tokenizer_files(read)));
    require(again.size() == tokeniser.size());
    require(again.encode(text, true) == tokeniser.encode(text, true));
  } catch (const std::runtime_error&) {
    return;  // refused in a sentence
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string bytes(data + 1, data + size);
  if (data[0] == '{')
    check_file("{" + bytes);
  else
    check_text(tokenisers()[data[0] % tokenisers().size()], bytes);
  return 0;
}
