// The sizes of a model in GGUF metadata.
#include "formats/llama_gguf.hpp"

#include "catch.hpp"
#include "tiny_model.hpp"

using namespace align;

namespace {

// The tiny model as its file would be parsed, with what `change` makes of it.
template <class Change>
std::string objection_to(Change change) {
  const std::string bytes = tiny_gguf();
  gguf_contents contents = parse_gguf(as_span(bytes), "x.gguf");
  change(contents);
  return complaint([&] { shape_of(contents); });
}

std::string objection_to(const char* key, gguf_value value) {
  return objection_to([&](gguf_contents& c) { c.metadata.set(key, std::move(value)); });
}

gguf_metadata without(const gguf_metadata& all, std::string_view key) {
  gguf_metadata kept(all.file());
  for (const auto& [name, value] : all.entries()) {
    if (name != key) kept.append(name, value);
  }
  return kept;
}

}  // namespace

TEST_CASE("metadata say the shape that they were made of") {
  const std::string bytes = tiny_gguf();
  CHECK(shape_of(parse_gguf(as_span(bytes), "x.gguf")) == tiny_shape());
}

TEST_CASE("what metadata may leave out has a default") {
  const std::string bytes = tiny_gguf();
  gguf_contents contents = parse_gguf(as_span(bytes), "x.gguf");
  for (const char* key :
       {"llama.attention.head_count_kv", "llama.attention.key_length",
        "llama.attention.value_length", "llama.rope.freq_base", "llama.rope.dimension_count"}) {
    contents.metadata = without(contents.metadata, key);
  }
  model_shape expected = tiny_shape();
  expected.key_value_heads = expected.heads;
  CHECK(shape_of(contents) == expected);
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.attention.layer_norm_rms_epsilon", "general.architecture"}) {
    const auto drop = [&](gguf_contents& c) { c.metadata = without(c.metadata, key); };
    CHECK(objection_to(drop) == std::string("x.gguf: the metadata lack ") + key);
  }
}

TEST_CASE("what would be computed otherwise is refused by name") {
  CHECK(objection_to("general.architecture", std::string("qwen2")) ==
        "x.gguf: the model's architecture is qwen2, and only llama is read");
  CHECK(objection_to("llama.rope.scaling.type", std::string("none")).empty());
  CHECK(objection_to("llama.rope.scaling.type", std::string("yarn")) ==
        "x.gguf: RoPE is scaled by yarn, which is not computed here");
  CHECK(contains(objection_to("llama.rope.scale_linear", 2.0F), "RoPE is scaled linearly"));
  CHECK(objection_to("llama.expert_count", std::uint32_t{0}).empty());
  CHECK(contains(objection_to("llama.expert_count", std::uint32_t{8}), "a mixture of experts"));
  CHECK(objection_to("llama.logit_scale", 2.0F) == "x.gguf: llama.logit_scale has no meaning here");
  CHECK(contains(objection_to("split.count", std::uint16_t{2}), "is split over several files"));
  CHECK(
      contains(objection_to("llama.attention.value_length", std::uint32_t{8}), "differ in width"));
  CHECK(contains(objection_to("llama.rope.dimension_count", std::uint32_t{2}), "only a part of"));
  CHECK(contains(objection_to("llama.attention.head_count", std::uint32_t{0}), "has no heads"));
  CHECK(
      contains(objection_to("llama.embedding_length", std::uint64_t{1} << 40U), "length is 10995"));
  CHECK(contains(objection_to("llama.block_count", std::string("2")), "must be a whole number"));
  CHECK(
      contains(objection_to([](gguf_contents& c) { c.tensors.clear(); }), "token_embd.weight is"));
}

TEST_CASE("divisors of RoPE are a tensor, one for each pair, and positive") {
  const auto with_divisors = [](std::vector<float> divisors) {
    return objection_to([&](gguf_contents& c) {
      c.tensors.push_back({.name = rope_divisors_name,
                           .shape = {divisors.size()},
                           .bytes = std::as_bytes(std::span(divisors))});
    });
  };
  CHECK(with_divisors({1, 8}).empty());
  CHECK(contains(with_divisors({1}), "rope_freqs.weight has the shape [1] instead of [2]"));
  CHECK(contains(with_divisors({1, 0}), "a divisor that is not positive"));
}

TEST_CASE("metadata of others are passed on in order, the rest is made anew") {
  gguf_metadata origin = tiny_metadata();
  origin.append("general.alignment", std::uint32_t{64});
  origin.append("general.file_type", std::uint32_t{3});
  origin.append("llama.block_count", std::uint32_t{99});
  const gguf_metadata made = metadata_of(tiny_shape(), element_type::q8_0, origin);
  CHECK(made.entries().front().first == "general.architecture");
  CHECK(made.text("general.name") == "tiny");
  CHECK(made.whole("general.file_type") == 7);
  CHECK(made.whole("general.quantization_version") == 2);
  CHECK(made.whole("llama.block_count") == 2);
  CHECK(made.find("general.alignment") == nullptr);
  CHECK(made.array<std::string>("tokenizer.ggml.tokens").size() == 5);
  const auto type_of = [](element_type type) {
    return metadata_of(tiny_shape(), type, gguf_metadata()).whole("general.file_type");
  };
  CHECK(type_of(element_type::f32) == 0);
  CHECK(type_of(element_type::f16) == 1);
  CHECK(type_of(element_type::bf16) == 32);
}
