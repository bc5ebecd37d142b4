// Measuring a model on held-out feedback: how well its implicit reward ranks what humans judged,
// how far it drifted from the reference, and what it writes.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/data.hpp"
#include "model/decoder.hpp"
#include "model/language_model.hpp"
#include "report/report.hpp"
#include "training/plan.hpp"

namespace align {

struct evaluation_plan {
  std::size_t samples = 600;        // prompts that are answered
  std::size_t longest_sample = 56;  // tokens
  std::size_t quoted = 6;           // of the samples: the first ones, whatever they say
};

// Told how far a phase is, and the tokens it took; false ends it.
using evaluation_progress = std::function<bool(std::string_view phase, std::size_t done,
                                               std::size_t of, std::size_t tokens)>;

// What one model makes of the held-out part.
struct measured_model {
  std::vector<double> log_probs;  // of every held-out row, nats
  std::vector<std::vector<token>> prompts;
  std::vector<sample> samples;  // one for each prompt
};

// Nothing where `shown` ended it.
std::optional<measured_model> measure(const language_model& model, const dataset& data,
                                      const feedback& held_out, const evaluation_plan& plan,
                                      workers& on, const evaluation_progress& shown);

// Log-probabilities that a model gives to what one wrote, nats. `adapted` false: without adapters.
std::optional<std::vector<double>> sample_log_probs(const language_model& model,
                                                    const measured_model& wrote, workers& on,
                                                    const evaluation_progress& shown,
                                                    bool adapted = true);

// Shares of held-out pairs, ties counted half.
struct pair_ranking {
  double right = not_measured;  // the implicit reward ranks them as the human did
  // The same for what is left of the reward's margin when the part that is proportional to the
  // difference of lengths is taken out (least squares over the pairs).
  double right_at_equal_length = not_measured;
  double shorter_is_right = not_measured;  // the human preferred the shorter answer
  std::size_t pairs = 0;
};

// Share of three tokens in a row that the same text had before.
double repetition(std::span<const token> text);

pair_ranking rank_pairs(std::span<const row> rows, std::span<const double> rewards);

struct evaluation {
  seed_outcome outcome;                  // all but seed, steps and divergence
  double judge_accuracy = not_measured;  // on train rows, which it never saw
  std::vector<sample_text> examples;
};

evaluation compare(const measured_model& reference, const measured_model& aligned,
                   const dataset& data, const feedback& held_out, const evaluation_plan& plan);

}  // namespace align
