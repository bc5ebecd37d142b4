// See llama_hugging_face.hpp.
#include "formats/llama_hugging_face.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "formats/json_reading.hpp"

namespace align {
namespace {

using json = nlohmann::json;

// Llama 3.1's stretching of RoPE: long waves by the factor, short ones not at all, and those
// between by something between.
struct llama3_scaling {
  double factor = 1, low_frequency = 1, high_frequency = 4, original_context = 8192;
};

std::vector<float> divisors_of(const llama3_scaling& scaling, double base, int head_width) {
  std::vector<float> divisors;
  for (int i = 0; i < head_width / 2; ++i) {
    const double wave = 2 * std::numbers::pi * std::pow(base, 2.0 * i / head_width);
    const double turns = scaling.original_context / wave;
    const double share = std::clamp(
        (turns - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency), 0.0,
        1.0);
    divisors.push_back(static_cast<float>(1 / ((1 - share) / scaling.factor + share)));
  }
  return divisors;
}

std::optional<llama3_scaling> read_scaling(const json& object, const json_lookup& config,
                                           const std::string& name) {
  if (!object.is_object()) config.fail("the scaling of RoPE must be a JSON object");
  const json_lookup in(object, name);
  const char* key = in.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = in.find(key) != nullptr ? in.text(key) : "default";
  if (type == "default") return std::nullopt;
  if (type != "llama3") in.fail("RoPE is scaled by " + type + ", which is not computed here");
  const llama3_scaling scaling{.factor = in.real("factor"),
                               .low_frequency = in.real("low_freq_factor"),
                               .high_frequency = in.real("high_freq_factor"),
                               .original_context = in.real("original_max_position_embeddings")};
  if (!(scaling.factor > 0 && scaling.high_frequency > scaling.low_frequency &&
        scaling.original_context > 0)) {
    in.fail("the scaling of RoPE is impossible");
  }
  return scaling;
}

// Since version 5 of the libraries, all of it is in "rope_parameters".
std::optional<llama3_scaling> read_rope(const json_lookup& in, const std::string& name,
                                        double& base) {
  const json* all = in.find("rope_parameters");
  const json* scaling = all != nullptr ? all : in.find("rope_scaling");
  if (in.find("rope_theta") != nullptr) base = in.real("rope_theta");
  if (scaling == nullptr) return std::nullopt;
  const auto read = read_scaling(*scaling, in, name);
  const json_lookup inner(*scaling, name);
  if (inner.find("rope_theta") != nullptr) base = inner.real("rope_theta");
  return read;
}

void require_llama(const json_lookup& in) {
  const std::string type = in.text("model_type");
  if (type != "llama" && type != "mistral") {
    in.fail("the model's type is " + type + ", and only llama and mistral are read");
  }
  if (in.find("sliding_window") != nullptr &&
      in.whole("sliding_window") < in.whole("max_position_embeddings")) {
    in.fail("attention slides over the sequence, which is not computed here");
  }
  if (in.find("hidden_act") != nullptr && in.text("hidden_act") != "silu") {
    in.fail("the activation is " + in.text("hidden_act") + " instead of silu");
  }
  for (const char* bias : {"attention_bias", "mlp_bias"}) {
    if (in.flag(bias, false)) in.fail("the model has biases (" + std::string(bias) + ")");
  }
  if (in.find("partial_rotary_factor") != nullptr && in.real("partial_rotary_factor") != 1) {
    in.fail("RoPE turns only a part of each head");
  }
  if (in.flag("rope_interleaved", false)) in.fail("the pairs of RoPE are interleaved");
  if (in.find("quantization_config") != nullptr) in.fail("the weights are quantised");
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 9> block_names{{
    {"attn_norm", "input_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
}};

constexpr std::array<std::pair<const char*, const char*>, 3> special_tokens{{
    {"bos_token_id", "tokenizer.ggml.bos_token_id"},
    {"eos_token_id", "tokenizer.ggml.eos_token_id"},
    {"pad_token_id", "tokenizer.ggml.padding_token_id"},
}};

// The scaling that gives these divisors: that of the origin, or Llama 3.1's with their own factor.
json scaling_of(const model_shape& shape, const std::optional<llama3_scaling>& origin) {
  if (shape.rope_divisors.empty()) return nullptr;
  const auto most = std::max_element(shape.rope_divisors.begin(), shape.rope_divisors.end());
  const llama3_scaling scaling = origin ? *origin : llama3_scaling{.factor = *most};
  const std::vector<float> made = divisors_of(scaling, shape.rope_base, shape.head_width);
  for (std::size_t i = 0; i < made.size(); ++i) {
    if (!(std::abs(made[i] - shape.rope_divisors[i]) <= 1e-4F * made[i])) {
      throw std::runtime_error("the model's divisors of RoPE cannot be said in a config.json");
    }
  }
  return {{"rope_type", "llama3"},
          {"factor", scaling.factor},
          {"low_freq_factor", scaling.low_frequency},
          {"high_freq_factor", scaling.high_frequency},
          {"original_max_position_embeddings", static_cast<long>(scaling.original_context)}};
}

}  // namespace

model_shape shape_of_config(std::string_view config, const std::string& name) {
  const json object = parse_json_object(config, name);
  const json_lookup in(object, name);
  require_llama(in);
  const auto size = [&](const char* key) {
    const std::uint64_t value = in.whole(key);
    if (value > (1U << 24U)) in.fail("\"" + std::string(key) + "\" is " + std::to_string(value));
    return static_cast<int>(value);
  };
  model_shape s;
  s.vocabulary = size("vocab_size");
  s.context = size("max_position_embeddings");
  s.width = size("hidden_size");
  s.layers = size("num_hidden_layers");
  s.heads = size("num_attention_heads");
  s.key_value_heads =
      in.find("num_key_value_heads") != nullptr ? size("num_key_value_heads") : s.heads;
  if (s.heads < 1) in.fail("the model has no heads");
  s.head_width = in.find("head_dim") != nullptr ? size("head_dim") : s.width / s.heads;
  if (s.head_width > 1 << 16) in.fail("the heads are too wide");  // before there is a table of it
  s.feed_forward = size("intermediate_size");
  s.norm_epsilon = in.real("rms_norm_eps");
  s.tied_head = in.flag("tie_word_embeddings", false);
  const auto scaling = read_rope(in, name, s.rope_base);
  if (scaling) s.rope_divisors = divisors_of(*scaling, s.rope_base, s.head_width);
  return s;
}

std::string config_of(const model_shape& s, element_type type, std::string_view origin,
                      const gguf_metadata& metadata) {
  json config{{"architectures", {"LlamaForCausalLM"}},
              {"model_type", "llama"},
              {"vocab_size", s.vocabulary},
              {"max_position_embeddings", s.context},
              {"hidden_size", s.width},
              {"num_hidden_layers", s.layers},
              {"num_attention_heads", s.heads},
              {"num_key_value_heads", s.key_value_heads},
              {"head_dim", s.head_width},
              {"intermediate_size", s.feed_forward},
              {"hidden_act", "silu"},
              {"attention_bias", false},
              {"mlp_bias", false},
              {"rms_norm_eps", s.norm_epsilon},
              {"rope_theta", s.rope_base},
              {"tie_word_embeddings", s.tied_head}};
  config["torch_dtype"] = type == element_type::f32   ? "float32"
                          : type == element_type::f16 ? "float16"
                                                      : "bfloat16";
  for (const auto& [key, in_metadata] : special_tokens) {
    if (metadata.find(in_metadata) != nullptr) config[key] = metadata.whole(in_metadata);
  }
  std::optional<llama3_scaling> scaling;
  if (!origin.empty()) {
    const std::string name = "config.json of the model's origin";
    const json before = parse_json_object(origin, name);
    for (const auto& [key, in_metadata] : special_tokens) {
      if (before.contains(key)) config[key] = before[key];
    }
    double base = 0;
    scaling = read_rope(json_lookup(before, name), name, base);
  }
  config["rope_scaling"] = scaling_of(s, scaling);
  return config.dump(2) + "\n";
}

std::string hugging_face_name(std::string_view name) {
  if (name == "token_embd.weight") return "model.embed_tokens.weight";
  if (name == "output_norm.weight") return "model.norm.weight";
  if (name == "output.weight") return "lm_head.weight";
  const std::size_t number = name.find('.') + 1, part = name.find('.', number) + 1;
  const std::string_view kind = name.substr(part, name.rfind('.') - part);
  const auto found = std::find_if(block_names.begin(), block_names.end(),
                                  [&](const auto& names) { return names.first == kind; });
  if (found == block_names.end()) {
    throw std::invalid_argument("there is no weight " + std::string(name));
  }
  return "model.layers." + std::string(name.substr(number, part - number)) +
         std::string(found->second) + ".weight";
}

bool has_turned_rows(std::string_view name) {
  return name.ends_with(".attn_q.weight") || name.ends_with(".attn_k.weight");
}

std::size_t hugging_face_row(std::size_t row, std::size_t head_width) {
  const std::size_t within = row % head_width;
  return row - within + within % 2 * (head_width / 2) + within / 2;
}

}  // namespace align
