// Measuring a model on held-out feedback: how well its implicit reward ranks what humans judged,
// how far it drifted from the reference, and what it writes.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data.hpp"
#include "model.hpp"
#include "report.hpp"
#include "train.hpp"

namespace align {

// Summed log-probability of every row's completion, end included, in nats.
std::vector<double> log_probs(const language_model& model, std::span<const row> rows, int threads);

struct sample {
  std::vector<token> completion;
  double log_prob = 0;
  bool ended = false;  // false: cut off where the context ends
};

// One completion per prompt at temperature 1. Each depends on its place in the list and the seed,
// not on the others.
std::vector<sample> write_completions(const language_model& model,
                                      std::span<const std::vector<token>> prompts,
                                      std::uint64_t seed, int threads);

struct evaluation {
  seed_outcome outcome;                  // all but seed and steps
  double pair_accuracy = not_measured;   // share of held-out pairs ranked as the human did
  double judge_accuracy = not_measured;  // on train rows, which it never saw
  std::vector<sample_text> examples;
};

// Compares both models on the held-out part of `data`.
evaluation evaluate(const language_model& reference, const language_model& aligned,
                    const dataset& data, const feedback& held_out, int threads);

}  // namespace align
