// One optimiser step after another: batches in an order drawn from the seed, forward and backward
// pass, AdamW. Which loss is trained is the objective's business, how the model computes its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/data.hpp"
#include "model/language_model.hpp"
#include "objective.hpp"
#include "report/report.hpp"
#include "training/adam.hpp"
#include "training/plan.hpp"
#include "training/reference.hpp"

namespace align {

// Everything but the model's trained numbers that changes while a stage runs: a checkpoint holds
// both.
struct training_state {
  adam optimiser;
  int step = 0;
  point_memory memory;
  std::vector<step_record> records;

  explicit training_state(std::size_t trained) : optimiser(trained) {}
};

class trainer {
 public:
  // All arguments must outlive the trainer; next-token training has no reference.
  trainer(language_model& model, const feedback& data, const objective& goal, const schedule& plan,
          const reference_scores* reference, workers& on);

  // Runs until the plan is done or `stop` says so, between two steps. Returns whether it is done.
  bool run(training_state& state, const std::function<bool()>& stop,
           const std::function<void(const training_state&)>& after_step);

 private:
  step_record step(training_state& state);
  void lay_out(std::span<const std::size_t> rows);
  scored_batch score_all(std::span<const std::size_t> rows);
  double add_gradients(std::span<const double> coefficients);
  void update(training_state& state, double norm);
  purpose training_purpose() const;

  language_model& model_;
  const feedback& data_;
  const objective& goal_;
  const schedule& plan_;
  const reference_scores* reference_;
  workers& on_;
  batch_order order_;

  // A batch goes through the model in parts, each with an equal share of its sequences.
  struct part {
    std::size_t first = 0;  // of its sequences in the batch
    packed_batch batch, mismatched;
  };
  std::vector<part> parts_;
  scoring_pass pass_, mismatched_pass_;
  aligned_vector<float> gradient_;
};

}  // namespace align
