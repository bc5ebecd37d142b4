// config.json, names and rows as Hugging Face has them.
#include "formats/llama_hugging_face.hpp"

#include <set>

#include "catch.hpp"
#include "reading.hpp"

using namespace align;

namespace {

model_shape shape_in(const std::string& config) { return shape_of_config(config, "config.json"); }

std::string objection_with(const std::string& from, const std::string& to) {
  return complaint([&] { shape_in(replaced(tiny_config(), from, to)); });
}

// What is added stands first.
std::string objection_with(const std::string& member) {
  return objection_with("{", "{" + member + ",");
}

std::string with_scaling(const std::string& scaling) {
  std::string config = tiny_config();
  const std::size_t first = config.find(R"("rope_scaling")");
  return config.substr(0, first) + scaling + "}";
}

}  // namespace

TEST_CASE("config.json says the shape") {
  model_shape expected = tiny_shape();
  expected.rope_divisors = {1, 1};  // only waves as long as the context are stretched
  CHECK(shape_in(tiny_config()) == expected);
  expected.rope_divisors = {};
  CHECK(shape_in(with_scaling(R"("rope_scaling":null)")) == expected);
  CHECK(shape_in(with_scaling(R"("rope_scaling":{"type":"default"})")) == expected);
  expected.rope_base = 5e5;
  CHECK(shape_in(with_scaling(
            R"("rope_parameters":{"rope_theta":500000.0,"rope_type":"default"})")) == expected);
}

TEST_CASE("what config.json may leave out has a default") {
  std::string config = with_scaling(R"("x":0)");
  for (const char* member : {R"("num_key_value_heads":1,)", R"("head_dim":4,)",
                             R"("tie_word_embeddings":true,)", R"("rope_theta":10000.0,)"}) {
    config = replaced(config, member, "");
  }
  model_shape expected = tiny_shape();
  expected.key_value_heads = 2;
  expected.tied_head = false;
  CHECK(shape_in(config) == expected);
  CHECK(objection_with(R"("hidden_size":8,)", "") == "config.json: \"hidden_size\" is missing");
}

TEST_CASE("the scaling of Llama 3.1 becomes divisors") {
  // Llama 3.2 1B: 64 wide, base 500000, factor 32. The values are those of transformers 5.24,
  // 1 / (inv_freq * base^(2i / 64)) of LlamaRotaryEmbedding.
  std::string config = replaced(tiny_config(), R"("head_dim":4)", R"("head_dim":64)");
  config = replaced(config, "10000.0", "500000.0");
  config = replaced(config, R"("factor":8.0)", R"("factor":32.0)");
  const std::vector<float> divisors = shape_in(config).rope_divisors;
  REQUIRE(divisors.size() == 32);
  CHECK(divisors[0] == 1);
  CHECK(divisors[14] == 1);
  CHECK_THAT(divisors[15], WithinRel(1.65132914F, 1e-6F));
  CHECK_THAT(divisors[16], WithinRel(3.29226280F, 1e-6F));
  CHECK_THAT(divisors[17], WithinRel(9.66673054F, 1e-6F));
  CHECK(divisors[18] == 32);
  CHECK(divisors[31] == 32);
}

TEST_CASE("what Hugging Face would compute otherwise is refused by name") {
  CHECK(objection_with("llama", "qwen2") ==
        "config.json: the model's type is qwen2, and only llama and mistral are read");
  CHECK(objection_with("\"llama\"", "\"mistral\"").empty());
  CHECK(objection_with(R"("sliding_window":null)").empty());
  CHECK(objection_with(R"("sliding_window":16)").empty());
  CHECK(contains(objection_with(R"("sliding_window":15)"), "attention slides"));
  CHECK(contains(objection_with("silu", "gelu"), "the activation is gelu instead of silu"));
  CHECK(contains(objection_with(R"("attention_bias":false)", R"("attention_bias":true)"),
                 "the model has biases (attention_bias)"));
  CHECK(contains(objection_with(R"("mlp_bias":true)"), "the model has biases (mlp_bias)"));
  CHECK(contains(objection_with(R"("partial_rotary_factor":0.5)"), "only a part of each head"));
  CHECK(contains(objection_with(R"("rope_interleaved":true)"), "interleaved"));
  CHECK(contains(objection_with(R"("quantization_config":{})"), "the weights are quantised"));
  CHECK(contains(objection_with("llama3", "yarn"), "RoPE is scaled by yarn, which is not"));
  CHECK(contains(objection_with(R"("factor":8.0)", R"("factor":0)"), "RoPE is impossible"));
  CHECK(contains(objection_with(R"("factor":8.0,)", ""), "\"factor\" is missing"));
  CHECK(contains(objection_with(R"("vocab_size":5)", R"("vocab_size":-5)"), "a whole number"));
  CHECK(contains(objection_with(R"("vocab_size":5)", R"("vocab_size":99999999)"), "is 99999999"));
  CHECK(contains(objection_with("8", "8,"), "not valid JSON at byte"));
}

TEST_CASE("a config.json that is written is read again, with the origin's special tokens") {
  model_shape shape = tiny_shape();
  shape.norm_epsilon = 1e-6;
  const std::string plain = config_of(shape, element_type::f32, "", gguf_metadata());
  CHECK(shape_in(plain) == shape);
  CHECK_FALSE(contains(plain, "token_id"));
  CHECK(contains(config_of(shape, element_type::f32, "", tiny_metadata()), "\"eos_token_id\": 4"));
  const std::string ids = R"({"eos_token_id":[7,9],"bos_token_id":null})";
  const std::string taken = config_of(shape, element_type::f32, ids, gguf_metadata());
  CHECK(contains(taken, "\"bos_token_id\": null"));
  CHECK(contains(taken, "7,\n    9\n"));
}

TEST_CASE("divisors are said as the scaling that makes them, if there is one") {
  model_shape shape = shape_in(replaced(tiny_config(), R"("head_dim":4)", R"("head_dim":64)"));
  shape.rope_base = 10000;
  const auto made = [&](std::string_view origin) {
    return config_of(shape, element_type::f16, origin, gguf_metadata());
  };
  CHECK(shape_in(made("")) == shape);  // 8, 1, 4, 8192 are Llama 3.1's own
  CHECK(shape_in(made(tiny_config())) == shape);
  shape.rope_divisors[5] += 1;
  CHECK(complaint([&] { made(""); }) ==
        "the model's divisors of RoPE cannot be said in a config.json");
}

TEST_CASE("every weight has a name of its own there") {
  model_shape shape = tiny_shape();
  shape.tied_head = false;
  std::set<std::string> names;
  for (const weight_place& place : weights_of(shape)) names.insert(hugging_face_name(place.name));
  CHECK(names.size() == weights_of(shape).size());
  CHECK(hugging_face_name("blk.12.ffn_gate.weight") == "model.layers.12.mlp.gate_proj.weight");
  CHECK(hugging_face_name("output.weight") == "lm_head.weight");
  CHECK_THROWS_AS(hugging_face_name("blk.0.attn_q.bias.weight"), std::invalid_argument);
}

TEST_CASE("the halves of pairs lie apart there") {
  CHECK(has_turned_rows("blk.0.attn_q.weight"));
  CHECK(has_turned_rows("blk.0.attn_k.weight"));
  CHECK_FALSE(has_turned_rows("blk.0.attn_v.weight"));
  const std::vector<std::size_t> expected{0, 3, 1, 4, 2, 5, 6, 9};
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(hugging_face_row(i, 6) == expected[i]);
}
