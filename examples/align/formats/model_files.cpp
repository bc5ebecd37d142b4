// See model_files.hpp.
#include "formats/model_files.hpp"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string_view>

#include "files.hpp"
#include "formats/llama_gguf.hpp"
#include "formats/llama_hugging_face.hpp"
#include "formats/safetensors.hpp"
#include "sha256.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

constexpr std::array<const char*, 9> tokenizer_file_names{"tokenizer.json",
                                                          "tokenizer_config.json",
                                                          "tokenizer.model",
                                                          "vocab.json",
                                                          "merges.txt",
                                                          "added_tokens.json",
                                                          "chat_template.jinja",
                                                          "special_tokens_map.json",
                                                          "generation_config.json"};

bool is_gguf(const fs::path& path) { return path.extension() == ".gguf"; }

bool is_gain(const weight_place& place) { return place.name.ends_with("norm.weight"); }

// A vector has one dimension in files.
tensor_shape shape_in_files(const weight_place& place) {
  const auto rows = static_cast<std::size_t>(place.rows);
  const auto columns = static_cast<std::size_t>(place.columns);
  return is_gain(place) ? tensor_shape{columns} : tensor_shape{rows, columns};
}

// Gains are few and matter; a row that is no whole number of blocks goes without them.
element_type type_in_gguf(const weight_place& place, element_type type) {
  if (is_gain(place)) return element_type::f32;
  return byte_count(type, shape_in_files(place)) ? type : element_type::f16;
}

using name_in_file = std::string (*)(std::string_view);

// All weights of the shape, each as large as it must be, and nothing else.
std::map<std::string, stored_tensor> match(const model_shape& shape,
                                           const std::vector<stored_tensor>& tensors,
                                           const std::string& file, name_in_file rename) {
  const auto fail = [&](const std::string& what) { throw std::runtime_error(file + ": " + what); };
  // Before anything is made as large as the sizes say.
  if (static_cast<std::size_t>(std::max(shape.layers, 0)) > tensors.size()) {
    fail("the model has fewer tensors than layers");
  }
  try {
    require_valid(shape);
  } catch (const std::invalid_argument& e) {
    fail(e.what());
  }
  const std::vector<weight_place> places = weights_of(shape);
  std::map<std::string, const weight_place*> expected;
  for (const weight_place& place : places) expected.emplace(rename(place.name), &place);

  std::map<std::string, stored_tensor> matched;
  for (const stored_tensor& t : tensors) {
    const auto found = expected.find(t.name);
    if (found == expected.end()) fail("the tensor " + t.name + " is none of a plain Llama model");
    const tensor_shape wanted = shape_in_files(*found->second);
    if (t.shape != wanted) {
      fail("the tensor " + t.name + " has the shape " + to_string(t.shape) + " instead of " +
           to_string(wanted));
    }
    if (!matched.emplace(found->second->name, t).second) fail(t.name + " is there twice");
  }
  for (const auto& [name, place] : expected) {
    if (!matched.contains(place->name)) fail("the tensor " + name + " is missing");
  }
  return matched;
}

loaded_model open_gguf(const fs::path& path) {
  gguf_file read = read_gguf(path);
  std::vector<stored_tensor>& tensors = read.contents.tensors;
  loaded_model model;
  model.path = path;
  model.shape = shape_of(read.contents);
  std::erase_if(tensors, [](const stored_tensor& t) { return t.name == rope_divisors_name; });
  model.stored = match(model.shape, tensors, path.string(),
                       [](std::string_view name) { return std::string(name); });
  model.files.push_back(std::move(read.file));
  model.origin.metadata = std::move(read.contents.metadata);
  return model;
}

loaded_model open_folder(const fs::path& path) {
  const fs::path config = path / "config.json";
  loaded_model model;
  model.path = path;
  model.halves_apart = true;
  model.origin.config = read_file(config);
  model.shape = shape_of_config(model.origin.config, config.string());
  safetensors_folder read = read_safetensors(path);
  // What Hugging Face's own loader passes over: tables that old files repeat, and a tied head.
  std::erase_if(read.tensors, [&](const stored_tensor& t) {
    return t.name.ends_with(".rotary_emb.inv_freq") ||
           (model.shape.tied_head && t.name == "lm_head.weight");
  });
  model.stored = match(model.shape, read.tensors, path.string(), hugging_face_name);
  model.files = std::move(read.files);
  for (const char* name : tokenizer_file_names) {
    std::error_code error;
    if (!fs::is_regular_file(path / name, error)) continue;
    model.origin.tokenizer_files.emplace_back(name, read_file(path / name));
  }
  return model;
}

void save_gguf(const fs::path& path, const model_shape& shape, const weight_source& weights,
               element_type type, const model_origin& origin) {
  const std::vector<weight_place> places = weights_of(shape);
  std::vector<planned_tensor> plans;
  for (const weight_place& place : places) {
    plans.push_back(
        {.name = place.name, .type = type_in_gguf(place, type), .shape = shape_in_files(place)});
  }
  if (!shape.rope_divisors.empty()) {
    plans.push_back({.name = rope_divisors_name, .shape = {shape.rope_divisors.size()}});
  }
  write_gguf(path, metadata_of(shape, type, origin.metadata), plans,
             [&](std::size_t tensor, std::size_t first, std::span<float> rows) {
               if (tensor < places.size()) return weights(places[tensor], first, rows);
               std::copy(shape.rope_divisors.begin(), shape.rope_divisors.end(), rows.begin());
             });
}

void save_folder(const fs::path& path, const model_shape& shape, const weight_source& weights,
                 element_type type, const model_origin& origin) {
  const std::string config = config_of(shape, type, origin.config, origin.metadata);
  const std::vector<weight_place> places = weights_of(shape);
  std::vector<planned_tensor> plans;
  for (const weight_place& place : places) {
    plans.push_back(
        {.name = hugging_face_name(place.name), .type = type, .shape = shape_in_files(place)});
  }
  std::error_code error;
  fs::create_directories(path, error);
  if (!fs::is_directory(path, error))
    throw std::runtime_error("cannot make the folder " + path.string());

  // Row i of the file is the row of ours that lies at i there: found head by head.
  const auto head = static_cast<std::size_t>(shape.head_width);
  std::vector<std::size_t> ours(head);
  for (std::size_t i = 0; i < head; ++i) ours[hugging_face_row(i, head)] = i;
  write_safetensors(path / "model.safetensors", plans,
                    [&](std::size_t tensor, std::size_t first, std::span<float> rows) {
                      const weight_place& place = places[tensor];
                      if (!has_turned_rows(place.name)) return weights(place, first, rows);
                      const auto columns = static_cast<std::size_t>(place.columns);
                      for (; !rows.empty(); rows = rows.subspan(columns), ++first) {
                        weights(place, first - first % head + ours[first % head],
                                rows.first(columns));
                      }
                    });
  write_atomically(path / "config.json", config);
  for (const auto& [name, content] : origin.tokenizer_files) write_atomically(path / name, content);
}

}  // namespace

void loaded_model::read(const weight_place& place, std::span<float> out) const {
  const bool tied = shape.tied_head && place.name == "output.weight";
  const stored_tensor& from = stored.at(tied ? "token_embd.weight" : place.name);
  if (out.size() != place.size()) throw std::invalid_argument(place.name + " has another size");
  if (!halves_apart || !has_turned_rows(place.name)) return decode(from.type, from.bytes, out);
  const auto head = static_cast<std::size_t>(shape.head_width);
  const std::size_t columns = from.shape.back();
  const std::size_t row_bytes = from.bytes.size() / from.shape.front();
  for (std::size_t row = 0; row < from.shape.front(); ++row) {
    const std::size_t there = hugging_face_row(row, head);
    decode(from.type, from.bytes.subspan(there * row_bytes, row_bytes),
           out.subspan(row * columns, columns));
  }
}

loaded_model open_model(const fs::path& path) {
  std::error_code error;
  return fs::is_directory(path, error) ? open_folder(path) : open_gguf(path);
}

void save_model(const fs::path& path, const model_shape& shape, const weight_source& source,
                element_type type, const model_origin& origin) {
  require_valid(shape);
  (is_gguf(path) ? save_gguf : save_folder)(path, shape, source, type, origin);
}

void save_model(const fs::path& path, const model_shape& shape, std::span<const float> weights,
                element_type type, const model_origin& origin) {
  if (weights.size() != parameter_count(shape)) {
    throw std::invalid_argument("save_model: the weights are not as many as the shape says");
  }
  const weight_source rows = [&](const weight_place& place, std::size_t first,
                                 std::span<float> out) {
    const auto columns = static_cast<std::size_t>(place.columns);
    const auto from = weights.subspan(place.offset + first * columns, out.size());
    std::copy(from.begin(), from.end(), out.begin());
  };
  save_model(path, shape, rows, type, origin);
}

}  // namespace align
