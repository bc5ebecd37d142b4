// A tokeniser as a Hugging Face folder keeps it: tokenizer.json, and beside it
// tokenizer_config.json and perhaps chat_template.jinja.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "text/bpe_description.hpp"

namespace align {

struct tokenizer_files {
  std::string tokenizer = {};  // the text of tokenizer.json
  std::string config = {};     // of tokenizer_config.json; may be empty
  std::string chat_template =
      {};  // of chat_template.jinja; may be empty, and goes before the config's
};

// Throws std::runtime_error, in one sentence, for what is not byte-level BPE: whatever the file
// asks for and we do not do is refused by its name.
bpe_description from_tokenizer_files(const tokenizer_files& files);

// What `tokenizers` and `transformers` load again as the same tokeniser.
tokenizer_files to_tokenizer_files(const bpe_description& description);

bpe_description read_tokenizer_folder(const std::filesystem::path& folder);
void write_tokenizer_folder(const bpe_description& description,
                            const std::filesystem::path& folder);

}  // namespace align
