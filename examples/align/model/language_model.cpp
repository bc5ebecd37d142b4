// See language_model.hpp.
#include "model/language_model.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>

#include "random_source.hpp"
#include "sha256.hpp"

namespace align {
namespace {

double normal(random_source& random) {  // Box and Muller
  const double radius = std::sqrt(-2 * std::log1p(-random.uniform()));
  return radius * std::cos(2 * std::numbers::pi * random.uniform());
}

head_use head_for(const language_model& model, purpose why) {
  if (why == purpose::evaluation) return head_use::evaluation;
  return model.lora().rank > 0 && !model.lora().head ? head_use::frozen : head_use::trained;
}

leave left_by(purpose why) {
  switch (why) {
    case purpose::evaluation:
      return leave::nothing;
    case purpose::training:
      return leave::everything;
    case purpose::training_with_less_memory:
      return leave::inputs;
  }
  return leave::nothing;
}

// rows += scale B A, for rows from `first` on of the matrix at `place`, if it has an adapter.
void merge_adapter(const model_shape& shape, const lora_settings& lora,
                   std::span<const float> adapters, const weight_place& place, std::size_t first,
                   std::span<float> rows) {
  const std::string stem = place.name.substr(0, place.name.rfind(".weight"));
  const float *down = nullptr, *up = nullptr;
  for (const weight_place& p : adapters_of(shape, lora)) {
    if (p.name == stem + ".lora_a") down = adapters.data() + p.offset;
    if (p.name == stem + ".lora_b") up = adapters.data() + p.offset;
  }
  if (down == nullptr || up == nullptr) return;
  const auto scale = static_cast<float>(lora.scale());
  const auto columns = static_cast<std::size_t>(place.columns);
  const auto rank = static_cast<std::size_t>(lora.rank);
  for (std::size_t i = 0; i < rows.size() / columns; ++i) {
    auto to = array_of(rows.data() + i * columns, place.columns);
    for (std::size_t r = 0; r < rank; ++r) {
      to += scale * up[(first + i) * rank + r] * array_of(down + r * columns, place.columns);
    }
  }
}

}  // namespace

language_model::language_model(const model_shape& shape, storage_type storage,
                               const lora_settings& lora)
    : shape_(shape), storage_(storage), lora_(lora) {
  require_valid(shape);
  if (lora.rank < 0) throw std::invalid_argument("LoRA: the rank must be at least 0");
  if (lora.head && (lora.rank == 0 || shape.tied_head)) {
    throw std::invalid_argument("LoRA: an adapted head needs a rank, and a matrix of its own");
  }
  const bool adapted = lora.rank > 0, narrow = storage == storage_type::bf16;
  trained_.resize(adapted ? adapter_count(shape, lora) : parameter_count(shape));
  if (narrow) narrow_trained_.resize(trained_.size());
  if (adapted) {
    narrow ? narrow_base_.resize(parameter_count(shape)) : base_.resize(parameter_count(shape));
  }
}

void language_model::load(
    const std::function<void(const weight_place&, std::span<float>)>& weight) {
  std::vector<float> values;
  for (const weight_place& place : weights_of(shape_)) {
    if (lora_.rank == 0) {
      weight(place, std::span{trained_}.subspan(place.offset, place.size()));
    } else if (storage_ == storage_type::f32) {
      weight(place, std::span{base_}.subspan(place.offset, place.size()));
    } else {
      values.resize(place.size());
      weight(place, values);
      std::ranges::transform(values,
                             narrow_base_.begin() + static_cast<std::ptrdiff_t>(place.offset),
                             [](float x) { return bfloat16(x); });
    }
  }
  renew();
}

void language_model::renew(std::size_t first, std::size_t last) {
  if (storage_ == storage_type::f32) return;
  for (std::size_t i = first; i < last; ++i) narrow_trained_[i] = bfloat16(trained_[i]);
}

void language_model::read(const weight_place& place, std::size_t first,
                          std::span<float> rows) const {
  const std::size_t offset = place.offset + first * static_cast<std::size_t>(place.columns);
  const auto copy = [&](const auto& from) {
    const auto begin = from.begin() + static_cast<std::ptrdiff_t>(offset);
    std::transform(begin, begin + std::ssize(rows), rows.begin(),
                   [](auto x) { return static_cast<float>(x); });
  };
  if (lora_.rank == 0) return copy(trained_);
  storage_ == storage_type::f32 ? copy(base_) : copy(narrow_base_);
  merge_adapter(shape_, lora_, trained_, place, first, rows);
}

std::string language_model::fingerprint() const {
  sha256_stream hash;
  hash.add(described(shape_));
  visit(
      [&](const auto& model) {
        const auto bytes = std::as_bytes(model.parameters);
        hash.add({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      },
      false);
  return hash.digits();
}

std::size_t language_model::bytes() const {
  return sizeof(float) * (trained_.size() + base_.size()) +
         sizeof(bfloat16) * (narrow_trained_.size() + narrow_base_.size());
}

void initialise(language_model& model, std::uint64_t seed) {
  random_source random{seed};
  constexpr double deviation = 0.02;
  const double residual = deviation / std::sqrt(2.0 * model.shape().layers);
  model.load([&](const weight_place& place, std::span<float> values) {
    if (place.name.ends_with("norm.weight")) return void(std::ranges::fill(values, 1.0F));
    const bool into_stream =
        place.name.ends_with("attn_output.weight") || place.name.ends_with("ffn_down.weight");
    for (float& x : values) {
      x = static_cast<float>((into_stream ? residual : deviation) * normal(random));
    }
  });
}

void initialise_adapters(language_model& model, std::uint64_t seed) {
  random_source random{seed};
  const std::span<float> all = model.trained();
  for (const weight_place& place : adapters_of(model.shape(), model.lora())) {
    const double bound = place.name.ends_with("lora_a") ? 1 / std::sqrt(place.columns) : 0;
    for (float& x : all.subspan(place.offset, place.size())) {
      x = static_cast<float>(bound * (2 * random.uniform() - 1));
    }
  }
  model.renew();
}

std::span<const double> scoring_pass::score(const language_model& model, const packed_batch& batch,
                                            purpose why, workers& on, bool adapted) {
  return model.visit(
      [&]<class W>(const model_view<W>& view) -> std::span<const double> {
        auto& [blocks, scores] = std::get<memory<W>>(memory_);
        forward<W>(view, batch, left_by(why), blocks, on);
        const matrix<const W> hidden = std::as_const(blocks.hidden).view();
        const head_use use = head_for(model, why);
        const matrix<W> d_hidden = use == head_use::evaluation
                                       ? matrix<W>{}
                                       : blocks.d_hidden.reshape(hidden.rows, hidden.columns);
        align::score<W>(hidden, head_of(view), batch, use, scores, d_hidden, on);
        return scores.sequence;
      },
      adapted);
}

std::span<const float> scoring_pass::tokens() const {
  return std::visit([](const auto& m) { return std::span<const float>{m.scores.log_prob}; },
                    memory_);
}

void scoring_pass::add_gradient(const language_model& model, const packed_batch& batch,
                                std::span<const double> coefficients, std::span<float> gradient,
                                workers& on) {
  model.visit([&]<class W>(const model_view<W>& view) {
    auto& [blocks, scores] = std::get<memory<W>>(memory_);
    const auto into = model.lora().rank > 0
                          ? model_gradient<float>{.parameters = {}, .adapters = gradient}
                          : model_gradient<float>{.parameters = gradient, .adapters = {}};
    backpropagate<W>(std::as_const(blocks.hidden).view(), head_of(view), batch,
                     head_for(model, purpose::training), scores, coefficients,
                     blocks.d_hidden.view(), head_of(view, into), on);
    backward<W>(view, batch, blocks, into, on);
  });
}

std::size_t scoring_pass::bytes(const language_model& model, std::size_t tokens, std::size_t scored,
                                purpose why) {
  return model.visit([&]<class W>(const model_view<W>& view) {
    return activation_bytes<W>(view.shape, view.lora, tokens, scored, left_by(why)) +
           scored * (sizeof(float) + sizeof(double));
  });
}

std::size_t scoring_pass::head_bytes() { return head_workspace_bytes; }

std::size_t scoring_pass::bytes() const {
  return std::visit(
      [](const auto& m) {
        return m.blocks.bytes() + m.scores.log_prob.capacity() * sizeof(float) +
               m.scores.lse.capacity() * sizeof(double);
      },
      memory_);
}

}  // namespace align
