// Models of the Llama family on disk: a .gguf file, or a folder as Hugging Face's libraries write
// it. What such a file says is checked against the sizes that it states; what the trainer could not
// compute (biases, experts, other kinds of RoPE, other architectures) is refused by name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf.hpp"
#include "model/shape.hpp"

namespace align {

// What a model takes over, when it is saved, from the one that it was trained from. It is held in
// memory, so that a model can be saved hours later, whatever became of the files.
struct model_origin {
  gguf_metadata metadata;  // of a GGUF file, its tokenizer among them
  std::string config;      // config.json of a folder, and beside it files of the tokenizer:
  std::vector<std::pair<std::string, std::string>> tokenizer_files = {};  // names and contents
};

struct loaded_model {
  std::filesystem::path path;
  model_shape shape;
  model_origin origin;

  // Decodes one of weights_of(shape), its rows in the order that shape.hpp states; the head of a
  // file that ties it is its table of words. Threads may read at the same time.
  void read(const weight_place& place, std::span<float> out) const;

  std::vector<mapped_file> files;
  std::map<std::string, stored_tensor> stored;  // by the names of weights_of(shape)
  bool halves_apart = false;  // rows of queries and keys are in Hugging Face's order
};

// Throws std::runtime_error with one sentence for what is no such model.
loaded_model open_model(const std::filesystem::path& path);

// Fills `rows`, whole rows from row `first` on.
using weight_source =
    std::function<void(const weight_place& place, std::size_t first, std::span<float> rows)>;

// To a GGUF file if the path ends in .gguf (as f32, f16, bf16 or q8_0; gains are always f32, and
// where q8_0 does not divide a row it is f16), else to a folder (f32, f16 or bf16). The tokenizer
// comes along only within its format: a GGUF file has one if origin.metadata has, a folder if
// origin.tokenizer_files has. Each file appears when it is complete.
void save_model(const std::filesystem::path& path, const model_shape& shape,
                const weight_source& source, element_type type, const model_origin& origin);
void save_model(const std::filesystem::path& path, const model_shape& shape,
                std::span<const float> weights, element_type type, const model_origin& origin);

}  // namespace align
