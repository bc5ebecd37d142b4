// A job small enough for a test: a few synthetic rows, a narrow model, and its training.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "data/grammar.hpp"
#include "training/train.hpp"

namespace align {

// How a model's weights are stored and which of them are trained.
struct model_kind {
  storage_type storage = storage_type::f32;
  lora_settings lora = {};
};

inline constexpr model_kind full_f32{}, full_bf16{.storage = storage_type::bf16},
    lora_f32{.lora = {.rank = 2, .alpha = 4}},
    lora_bf16{.storage = storage_type::bf16, .lora = {.rank = 2, .alpha = 4}},
    lora_head_bf16{.storage = storage_type::bf16, .lora = {.rank = 2, .alpha = 4, .head = true}};

struct small_job {
  feedback data;
  model_shape shape;
  aligned_vector<float> start;  // all weights, after a little next-token training

  language_model model(const model_kind& kind = full_f32) const {
    language_model made(shape, kind.storage, kind.lora);
    made.load([&](const weight_place& place, std::span<float> values) {
      std::copy_n(start.begin() + static_cast<std::ptrdiff_t>(place.offset), values.size(),
                  values.begin());
    });
    initialise_adapters(made, 1);
    return made;
  }
};

inline void run_to_end(trainer& train, training_state& state) {
  train.run(
      state, [] { return false; }, [](const training_state&) {});
}

inline small_job make_small_job(bool paired) {
  const dataset source = synthetic_feedback(paired, {.train = 200, .held_out = 40});
  small_job job;
  job.data = {paired ? split_duels(source.train.duels) : source.train.rows, paired};
  job.shape = {.vocabulary = source.text.vocabulary,
               .context = 40,
               .width = 16,
               .layers = 2,
               .heads = 2,
               .key_value_heads = 1,
               .head_width = 8,
               .feed_forward = 24,
               .tied_head = false};
  language_model model(job.shape, storage_type::f32);
  initialise(model, 1);
  training_state state{model.trained().size()};
  const feedback corpus{source.corpus, false};
  const objective next_token = next_token_objective();
  const schedule plan{.steps = 20, .batch = 16, .learning_rate = 5e-3, .seed = 1};
  workers on{2};
  trainer train(model, corpus, next_token, plan, nullptr, on);
  run_to_end(train, state);
  job.start.assign(model.trained().begin(), model.trained().end());
  return job;
}

inline bool go_on(std::size_t, std::size_t) { return true; }

// What the model gives all that training on the job measures against its reference.
inline reference_scores reference_of(const small_job& job, const language_model& model,
                                     const objective& goal, const schedule& plan, workers& on) {
  reference_scores scores(model, job.data.rows, measured_by(job.data, plan, goal));
  scores.compute(on, go_on);
  return scores;
}

struct trained_model {
  language_model model;
  training_state state;
  aligned_vector<float> trained;  // of the model
};

inline trained_model train_on(const small_job& job, const objective& goal, const schedule& plan,
                              int threads = 2, const model_kind& kind = full_f32) {
  workers on{threads};
  language_model model = job.model(kind);
  const reference_scores reference = reference_of(job, model, goal, plan, on);
  training_state state{model.trained().size()};
  trainer train(model, job.data, goal, plan, &reference, on);
  run_to_end(train, state);
  aligned_vector<float> trained{model.trained().begin(), model.trained().end()};
  return {std::move(model), std::move(state), std::move(trained)};
}

// Between vectors, by their norms.
template <class A, class B>
double relative_difference(const A& a, const B& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    difference += (double{a[i]} - double{b[i]}) * (double{a[i]} - double{b[i]});
    norm += double{b[i]} * double{b[i]};
  }
  return std::sqrt(difference / norm);
}

}  // namespace align
