// See llama_gguf.hpp.
#include "formats/llama_gguf.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace align {
namespace {

constexpr const char* architecture = "llama";

// Those that decide something are read below; the others say how a file came about.
constexpr std::array<std::string_view, 21> known_keys{"llama.block_count",
                                                      "llama.context_length",
                                                      "llama.embedding_length",
                                                      "llama.feed_forward_length",
                                                      "llama.attention.head_count",
                                                      "llama.attention.head_count_kv",
                                                      "llama.attention.key_length",
                                                      "llama.attention.value_length",
                                                      "llama.attention.layer_norm_rms_epsilon",
                                                      "llama.rope.freq_base",
                                                      "llama.rope.dimension_count",
                                                      "llama.rope.scaling.type",
                                                      "llama.rope.scaling.factor",
                                                      "llama.rope.scaling.original_context_length",
                                                      "llama.rope.scaling.finetuned",
                                                      "llama.rope.scale_linear",
                                                      "llama.expert_count",
                                                      "llama.expert_used_count",
                                                      "llama.vocab_size",
                                                      "llama.tensor_data_layout"};

class lookup {
 public:
  explicit lookup(const gguf_metadata& metadata) : metadata_(metadata) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(metadata_.file() + ": " + what);
  }

  int size(const char* key) const {
    const std::uint64_t value = metadata_.whole(key);
    if (value > (1U << 24U)) fail(std::string(key) + " is " + std::to_string(value));
    return static_cast<int>(value);
  }
  int size(const char* key, int otherwise) const {
    return metadata_.find(key) == nullptr ? otherwise : size(key);
  }
  double real(const char* key, double otherwise) const {
    return metadata_.find(key) == nullptr ? otherwise : metadata_.real(key);
  }
  std::string text(const char* key, const char* otherwise) const {
    return metadata_.find(key) == nullptr ? otherwise : metadata_.text(key);
  }

 private:
  const gguf_metadata& metadata_;
};

void require_llama(const lookup& in, const gguf_metadata& metadata) {
  const std::string& found = metadata.text("general.architecture");
  if (found != architecture)
    in.fail("the model's architecture is " + found + ", and only llama is read");
  if (in.size("split.count", 1) > 1) in.fail("the model is split over several files");
  for (const auto& [key, value] : metadata.entries()) {
    const bool known = std::find(known_keys.begin(), known_keys.end(), key) != known_keys.end();
    if (key.starts_with("llama.") && !known) in.fail(key + " has no meaning here");
  }
  const std::string scaling = in.text("llama.rope.scaling.type", "none");
  if (scaling != "none") in.fail("RoPE is scaled by " + scaling + ", which is not computed here");
  if (in.real("llama.rope.scale_linear", 1) != 1) {
    in.fail("RoPE is scaled linearly, which is not computed here");
  }
  if (in.size("llama.expert_count", 0) > 0) in.fail("the model is a mixture of experts");
}

const stored_tensor* find(const gguf_contents& contents, std::string_view name) {
  const auto& all = contents.tensors;
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const stored_tensor& t) { return t.name == name; });
  return found == all.end() ? nullptr : &*found;
}

std::vector<float> read_divisors(const stored_tensor& stored, int head_width, const lookup& in) {
  const auto count = static_cast<std::size_t>(head_width / 2);
  if (stored.shape != tensor_shape{count}) {
    in.fail(std::string(rope_divisors_name) + " has the shape " + to_string(stored.shape) +
            " instead of " + to_string({count}));
  }
  std::vector<float> divisors(count);
  decode(stored.type, stored.bytes, divisors);
  for (const float d : divisors) {
    if (!std::isfinite(d) || d <= 0) in.fail("RoPE has a divisor that is not positive");
  }
  return divisors;
}

std::uint32_t file_type(element_type type) {
  switch (type) {
    case element_type::f32:
      return 0;
    case element_type::q8_0:
      return 7;
    case element_type::bf16:
      return 32;
    default:
      return 1;
  }
}

}  // namespace

model_shape shape_of(const gguf_contents& contents) {
  const lookup in(contents.metadata);
  require_llama(in, contents.metadata);
  const stored_tensor* embeddings = find(contents, "token_embd.weight");
  if (embeddings == nullptr) in.fail("the tensor token_embd.weight is missing");

  model_shape s;
  s.vocabulary = static_cast<int>(std::min(embeddings->shape.front(), std::size_t{1} << 25U));
  s.context = in.size("llama.context_length");
  s.width = in.size("llama.embedding_length");
  s.layers = in.size("llama.block_count");
  s.heads = in.size("llama.attention.head_count");
  s.key_value_heads = in.size("llama.attention.head_count_kv", s.heads);
  s.feed_forward = in.size("llama.feed_forward_length");
  s.rope_base = in.real("llama.rope.freq_base", s.rope_base);
  s.norm_epsilon = contents.metadata.real("llama.attention.layer_norm_rms_epsilon");
  s.tied_head = find(contents, "output.weight") == nullptr;
  if (s.heads < 1) in.fail("the model has no heads");
  s.head_width = in.size("llama.attention.key_length", s.width / s.heads);
  if (in.size("llama.attention.value_length", s.head_width) != s.head_width) {
    in.fail("keys and values differ in width");
  }
  if (in.size("llama.rope.dimension_count", s.head_width) != s.head_width) {
    in.fail("RoPE turns only a part of each head");
  }
  if (const auto* stored = find(contents, rope_divisors_name)) {
    s.rope_divisors = read_divisors(*stored, s.head_width, in);
  }
  return s;
}

gguf_metadata metadata_of(const model_shape& s, element_type type, const gguf_metadata& origin) {
  gguf_metadata metadata;
  const auto size = [](int value) { return gguf_value(static_cast<std::uint32_t>(value)); };
  const auto real = [](double value) { return gguf_value(static_cast<float>(value)); };
  metadata.append("general.architecture", std::string(architecture));
  for (const auto& [key, value] : origin.entries()) {
    const bool ours = key == "general.architecture" || key == "general.alignment" ||
                      key == "general.file_type" || key == "general.quantization_version";
    if (key.starts_with("general.") && !ours) metadata.append(key, value);
  }
  metadata.append("general.file_type", file_type(type));
  if (type == element_type::q8_0) {
    metadata.append("general.quantization_version", std::uint32_t{2});
  }
  metadata.append("llama.block_count", size(s.layers));
  metadata.append("llama.context_length", size(s.context));
  metadata.append("llama.embedding_length", size(s.width));
  metadata.append("llama.feed_forward_length", size(s.feed_forward));
  metadata.append("llama.attention.head_count", size(s.heads));
  metadata.append("llama.attention.head_count_kv", size(s.key_value_heads));
  metadata.append("llama.attention.key_length", size(s.head_width));
  metadata.append("llama.attention.value_length", size(s.head_width));
  metadata.append("llama.attention.layer_norm_rms_epsilon", real(s.norm_epsilon));
  metadata.append("llama.rope.freq_base", real(s.rope_base));
  metadata.append("llama.rope.dimension_count", size(s.head_width));
  metadata.append("llama.vocab_size", size(s.vocabulary));
  for (const auto& [key, value] : origin.entries()) {
    if (key.starts_with("tokenizer.")) metadata.append(key, value);
  }
  return metadata;
}

}  // namespace align
