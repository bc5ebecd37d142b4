// safetensors files: a header in JSON and the tensors' bytes, alone or as a folder of several files
// with an index. Every refusal is a std::runtime_error of one sentence that begins with the name.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "formats/mapped_file.hpp"
#include "formats/stored_tensor.hpp"

namespace align {

// In the order of their bytes, which they point into; `name` is for sentences.
std::vector<stored_tensor> parse_safetensors(std::span<const std::byte> bytes,
                                             const std::string& name);

struct safetensors_folder {
  std::vector<mapped_file> files;
  std::vector<stored_tensor> tensors;  // of all files
};

// Of a folder with a model.safetensors, or else with the files of its model.safetensors.index.json.
safetensors_folder read_safetensors(const std::filesystem::path& folder);

// Of f32, f16 and bf16.
void write_safetensors(const std::filesystem::path& path, std::span<const planned_tensor> tensors,
                       const row_source& source);

}  // namespace align
