// The metadata of GGUF files and our description, both ways.
#include "text/gguf_tokeniser.hpp"

#include "../scratch.hpp"
#include "catch.hpp"
#include "small_vocabulary.hpp"

using namespace align;

namespace {

std::string metadata_refusal(const gguf_tokeniser& metadata) {
  return complaint([&] { from_gguf(metadata); });
}

}  // namespace

TEST_CASE("a description comes back from a GGUF file's metadata") {
  for (const char* cut : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    bpe_description d = small_description(cut);
    d.ignore_merges = d.add_bos = std::string(cut) == "llama-bpe";
    d.chat_template = "T";
    const gguf_tokeniser metadata = to_gguf(d);
    CHECK(metadata.model == "gpt2");
    CHECK(metadata.pre == cut);
    CHECK(metadata.token_type[0] == 1);
    CHECK(metadata.token_type[286] == 3);
    CHECK(from_gguf(metadata) == d);
  }
}

TEST_CASE("what a file leaves out is what its kind of tokeniser does") {
  const gguf_tokeniser plain = {.model = "gpt2", .tokens = {"a", "b"}};
  const bpe_description d = from_gguf(plain);
  CHECK(d.types == std::vector<token_type>(2, token_type::normal));
  CHECK(d.regexes == regexes_named("gpt-2"));
  CHECK_FALSE(d.add_bos);
  const bpe_description llama3 =
      from_gguf({.model = "gpt2", .pre = "llama-bpe", .tokens = {"a", "b"}, .bos_token_id = 1});
  CHECK(llama3.ignore_merges);
  CHECK(llama3.add_bos);
}

TEST_CASE("metadata of another tokeniser, or that contradicts itself, is refused") {
  CHECK(contains(metadata_refusal({.model = "llama", .tokens = {"a"}}), "of the model \"llama\""));
  CHECK(contains(metadata_refusal({.model = "gpt2", .pre = "falcon", .tokens = {"a"}}),
                 "\"falcon\""));
  CHECK(contains(metadata_refusal({.model = "gpt2"}), "no tokens"));
  CHECK(contains(metadata_refusal({.model = "gpt2", .tokens = {"a"}, .token_type = {1, 1}}),
                 "2 types"));
  CHECK(contains(metadata_refusal({.model = "gpt2", .tokens = {"a"}, .token_type = {7}}),
                 "the type 7"));
  CHECK(contains(metadata_refusal({.model = "gpt2", .tokens = {"a"}, .eos_token_id = 4294967295}),
                 "4294967295"));
  CHECK(contains(metadata_refusal({.model = "gpt2", .tokens = {"a"}, .eos_token_id = 1}),
                 "the id 1"));
}

TEST_CASE("a tokeniser that a GGUF file cannot describe is refused") {
  bpe_description d = small_description();
  d.ignore_merges = true;
  CHECK(contains(complaint([&] { to_gguf(d); }), "cannot say whether"));
  d.regexes = {"x"};
  CHECK(contains(complaint([&] { to_gguf(d); }), "no name"));
}
