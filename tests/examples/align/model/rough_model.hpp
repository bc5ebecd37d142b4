// A model of some hundred weights that are far from any initial state, for tests.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model/language_model.hpp"
#include "random_source.hpp"

namespace align {

inline model_shape rough_shape(bool tied_head = false) {
  return {.vocabulary = 11,
          .context = 14,
          .width = 8,
          .layers = 2,
          .heads = 4,
          .key_value_heads = 2,
          .head_width = 4,
          .feed_forward = 6,
          .rope_base = 50,
          .tied_head = tied_head};
}

inline std::vector<float> rough_weights(std::size_t count, std::uint64_t seed) {
  random_source random{seed};
  std::vector<float> weights(count);
  for (float& w : weights) w = static_cast<float>(1.2 * random.uniform() - 0.6);
  return weights;
}

inline void load_weights(language_model& model, std::span<const float> weights) {
  model.load([&](const weight_place& place, std::span<float> values) {
    std::ranges::copy(weights.subspan(place.offset, place.size()), values.begin());
  });
}

// With adapters, A and B alike, where the settings have some.
inline language_model rough_model(const model_shape& shape, storage_type storage,
                                  const lora_settings& lora = {}) {
  language_model model(shape, storage, lora);
  load_weights(model, rough_weights(parameter_count(shape), 7));
  if (lora.rank > 0) {
    std::ranges::copy(rough_weights(model.trained().size(), 8), model.trained().begin());
    model.renew();
  }
  return model;
}

inline packed_batch three_sequences() {
  packed_batch batch;
  batch.append(std::vector<token>{1, 4, 2}, std::vector<token>{5, 6, 7, 3});
  batch.append(std::vector<token>{1, 8, 4, 2}, std::vector<token>{4, 5});
  batch.append(std::vector<token>{9}, std::vector<token>{10, 0, 5, 6, 7, 3});
  return batch;
}

inline double norm_of(const std::vector<float>& x) {
  double squares = 0;
  for (const float v : x) squares += double{v} * double{v};
  return std::sqrt(squares);
}

// Every weight as `read` gives it.
inline std::vector<float> all_of(const language_model& model) {
  std::vector<float> all(parameter_count(model.shape()));
  for (const weight_place& place : weights_of(model.shape())) {
    model.read(place, 0, std::span{all}.subspan(place.offset, place.size()));
  }
  return all;
}

inline std::vector<float> rounded_to_bf16(std::vector<float> values) {
  for (float& x : values) x = static_cast<float>(bfloat16(x));
  return values;
}

}  // namespace align
