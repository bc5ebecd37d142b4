// A job small enough for a test: a few synthetic rows, a narrow model, and its training.
#pragma once

#include <cstddef>
#include <vector>

#include "evaluate.hpp"
#include "grammar.hpp"
#include "train.hpp"

namespace align {

struct small_job {
  feedback data;
  model_shape shape;
  aligned_vector<float> start;  // after a little next-token training
  std::vector<double> reference_log_probs;

  reference_model reference() const { return {start, reference_log_probs}; }
};

inline void run_to_end(trainer& train, training_state& state) {
  train.run(
      state, [] { return false; }, [](const training_state&) {});
}

inline small_job make_small_job(bool paired) {
  const dataset source = synthetic_feedback(paired, {.train = 200, .held_out = 40});
  small_job job;
  job.data = {paired ? split_duels(source.train.duels) : source.train.rows, paired};
  job.shape = {
      .vocabulary = source.text.vocabulary, .context = 40, .width = 16, .layers = 2, .heads = 2};
  training_state state{initial_parameters(job.shape, 1)};
  const feedback corpus{source.corpus, false};
  const objective next_token = next_token_objective();
  const schedule plan{.steps = 20, .batch = 16, .learning_rate = 5e-3, .seed = 1};
  trainer train(job.shape, corpus, next_token, plan, {}, 2);
  run_to_end(train, state);
  job.start = state.parameters;
  job.reference_log_probs = log_probs({job.shape, job.start}, job.data.rows, 2);
  return job;
}

inline training_state train_on(const small_job& job, const objective& goal, const schedule& plan,
                               int threads = 2) {
  training_state state{job.start};
  trainer train(job.shape, job.data, goal, plan, job.reference(), threads);
  run_to_end(train, state);
  return state;
}

}  // namespace align
