// Hugging Face folders: reading, writing, and what is refused.
#include "text/tokenizer_json.hpp"

#include "../scratch.hpp"
#include "catch.hpp"
#include "small_vocabulary.hpp"

using namespace align;

namespace {

const std::string byte_level_step =
    R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true})";

struct file_parts {
  std::string model = R"("type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"])";
  std::string added = R"({"id":3,"content":"<s>","special":true},{"id":4,"content":"<x>"})";
  std::string pre_tokenizer = byte_level_step;
  std::string post_processor = "null";
  std::string decoder = byte_level_step;
  std::string normalizer = "null";
  std::string config = "{}";
  std::string chat_template = {};
};

bpe_description read_parts(const file_parts& p) {
  return from_tokenizer_files({.tokenizer = "{\"model\":{" + p.model + "},\"added_tokens\":[" +
                                            p.added + "],\"pre_tokenizer\":" + p.pre_tokenizer +
                                            ",\"post_processor\":" + p.post_processor +
                                            ",\"decoder\":" + p.decoder +
                                            ",\"normalizer\":" + p.normalizer + "}",
                               .config = p.config,
                               .chat_template = p.chat_template});
}

std::string file_refusal(const file_parts& p) {
  return complaint([&] { read_parts(p); });
}

}  // namespace

TEST_CASE("a tokenizer.json is read") {
  const bpe_description d = read_parts({});
  CHECK(d.tokens == std::vector<std::string>{"a", "b", "ab", "<s>", "<x>"});
  CHECK(d.types == std::vector<token_type>{token_type::normal, token_type::normal,
                                           token_type::normal, token_type::control,
                                           token_type::user_defined});
  CHECK(d.merges == std::vector<std::string>{"a b"});
  CHECK(d.regexes == regexes_named("gpt-2"));
  CHECK_FALSE(d.ignore_merges);
  CHECK_FALSE(d.add_bos);
  CHECK_FALSE(d.missing_byte);
  const file_parts pairs = {
      .model =
          R"("vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]],"ignore_merges":true,"unk_token":"b")"};
  CHECK(read_parts(pairs).merges == d.merges);
  CHECK(read_parts(pairs).ignore_merges);
  CHECK(read_parts(pairs).missing_byte == 1);
}

TEST_CASE("the ways to cut are read") {
  const std::string no_regex = R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false})";
  const auto sequence = [](const std::string& first, const std::string& then) {
    return read_parts({.pre_tokenizer =
                           R"({"type":"Sequence","pretokenizers":[)" + first + "," + then + "]}"})
        .regexes;
  };
  CHECK(sequence(R"({"type":"Digits","individual_digits":true})", byte_level_step) ==
        regexes_named("smollm"));
  CHECK(sequence(R"({"type":"Digits","individual_digits":false})", no_regex) ==
        std::vector<std::string>{R"(\p{N}+)"});
  CHECK(
      sequence(R"({"type":"Split","pattern":{"Regex":"x+"},"behavior":"Isolated","invert":false})",
               no_regex) == std::vector<std::string>{"x+"});
}

TEST_CASE("the config names tokens, by text or by object, and the template") {
  const bpe_description d =
      read_parts({.config = R"({"bos_token":"<s>","eos_token":{"content":"<x>"},"pad_token":null,
                     "unk_token":"absent","add_bos_token":true,"chat_template":"T"})"});
  CHECK(d.bos == 3);
  CHECK(d.eos == 4);
  CHECK_FALSE(d.pad);
  CHECK_FALSE(d.unknown);
  CHECK(d.add_bos);
  CHECK_FALSE(d.add_eos);
  CHECK(d.chat_template == "T");
  CHECK(read_parts({.config = R"({"chat_template":[{"name":"tools","template":"A"},
                            {"name":"default","template":"B"}]})"})
            .chat_template == "B");
  CHECK(read_parts({.config = R"({"chat_template":"T"})", .chat_template = "F"}).chat_template ==
        "F");
  CHECK(read_parts({.config = ""}).chat_template.empty());
}

TEST_CASE("what a post_processor adds is read") {
  const bpe_description d = read_parts(
      {.post_processor =
           R"({"type":"Sequence","processors":[)" + byte_level_step +
           R"(,{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},
           {"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"<x>","type_id":0}}]}]})"});
  CHECK(d.add_bos);
  CHECK(d.bos == 3);
  CHECK(d.add_eos);
  CHECK(d.eos == 4);
}

TEST_CASE("an id that no token has is an unused one") {
  const bpe_description d = read_parts({.added = R"({"id":5,"content":"<s>","special":true})"});
  CHECK(d.tokens.size() == 6);
  CHECK(d.tokens[4] == "[PAD4]");
  CHECK(d.types[4] == token_type::unused);
}

TEST_CASE("what is not supported is refused by name") {
  CHECK(contains(file_refusal({.normalizer = R"({"type":"NFC"})"}),
                 "normalizer of the type \"NFC\""));
  CHECK(contains(file_refusal({.model = R"("type":"Unigram","vocab":{})"}), "\"Unigram\""));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":0},"merges":[],"byte_fallback":true)"}),
                 "byte_fallback"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":0},"merges":[],"fuse_unk":true)"}),
                 "fuse_unk"));
  CHECK(
      contains(file_refusal({.model = R"("vocab":{"a":0},"merges":[],"dropout":0.1)"}), "dropout"));
  CHECK(contains(
      file_refusal({.model = R"("vocab":{"a":0},"merges":[],"end_of_word_suffix":"</w>")"}),
      "end_of_word_suffix"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":0},"merges":[["a"]])"}),
                 "not of two tokens"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":0,"b":0},"merges":[])"}), "to two tokens"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":-1},"merges":[])"}), "the id -1"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":99999999},"merges":[])"}),
                 "the id 99999999"));
  for (const char* id : {"6.6e73", "1.5", "\"0\"", "[0]", "null"}) {
    CHECK(
        contains(file_refusal({.model = R"("vocab":{"a":)" + std::string(id) + R"(},"merges":[])"}),
                 "no integer"));
  }
  CHECK(contains(file_refusal({.added = R"({"id":6.6e73,"content":"<m>"})"}), "no integer"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":18446744073709551615},"merges":[])"}),
                 "not between 0"));
  CHECK(contains(file_refusal({.added = R"({"id":3,"content":"<m>","lstrip":true})"}), "lstrip"));
  CHECK(contains(file_refusal({.pre_tokenizer = R"({"type":"Metaspace"})"}), "\"Metaspace\""));
  CHECK(contains(file_refusal({.pre_tokenizer = R"({"type":"ByteLevel"})"}), "add_prefix_space"));
  CHECK(contains(file_refusal({.pre_tokenizer = R"({"type":"Digits"})"}), "no ByteLevel"));
  const auto split = [](const std::string& rest) {
    return file_refusal({.pre_tokenizer = R"({"type":"Split","pattern":)" + rest + "}"});
  };
  CHECK(contains(split(R"({"String":"x"},"behavior":"Isolated")"), "without a Regex"));
  CHECK(contains(split(R"({"Regex":"x"},"behavior":"Removed")"), "\"Removed\""));
  CHECK(contains(file_refusal({.post_processor = R"({"type":"RobertaProcessing"})"}),
                 "RobertaProcessing"));
  CHECK(contains(file_refusal({.decoder = R"({"type":"Metaspace"})"}), "a decoder of the type"));
  CHECK(contains(file_refusal({.decoder = "null"}), "a decoder of the type"));
}

TEST_CASE("what is no such file is refused in one sentence") {
  CHECK(contains(complaint([] { from_tokenizer_files({.tokenizer = "{"}); }),
                 "cannot be understood"));
  CHECK(contains(complaint([] { from_tokenizer_files({.tokenizer = "[]"}); }),
                 "cannot be understood"));
  CHECK(contains(file_refusal({.config = "[}"}), "cannot be understood"));
  CHECK(contains(file_refusal({.model = R"("vocab":{"a":0})"}), "cannot be understood"));
  CHECK(contains(file_refusal({.model = R"("vocab":{},"merges":[])", .added = ""}), "no tokens"));
}

TEST_CASE("what is written is read again as it was") {
  const scratch place;
  for (const char* cut : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    bpe_description d = small_description(cut);
    d.eot.reset();  // no file of Hugging Face's names it
    d.ignore_merges = d.add_bos = d.add_eos = true;
    d.missing_byte = d.eos;
    d.chat_template = "{{ 'T\\n' }}\n";
    const std::filesystem::path folder = place.folder() / cut;
    write_tokenizer_folder(d, folder);
    CHECK(read_tokenizer_folder(folder) == d);
  }
  bpe_description plain = small_description();
  plain.eot.reset();
  const tokenizer_files files = to_tokenizer_files(plain);
  CHECK(from_tokenizer_files(files) == plain);
  CHECK(contains(complaint([&] { read_tokenizer_folder(place.folder() / "absent"); }),
                 "tokenizer.json"));
}
