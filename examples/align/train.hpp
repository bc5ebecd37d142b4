// One optimiser step after another: batches in an order drawn from the seed, forward and backward
// pass split into shards, Adam. Which loss is trained is the objective's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "adam.hpp"
#include "data.hpp"
#include "model.hpp"
#include "objective.hpp"
#include "report.hpp"

namespace align {

// What one stage learns from. A unit is what a batch counts: a row, or a pair of rows.
struct feedback {
  std::vector<row> rows;  // paired: all chosen ones, then their rejected partners in the same order
  bool paired = false;

  std::size_t units() const { return paired ? rows.size() / 2 : rows.size(); }
};

struct schedule {
  int steps = 0;
  int batch = 32;  // units
  double learning_rate = 0;
  std::uint64_t seed = 0;  // of the order
};

// Batches of one pass over the data; the remainder waits for the next pass and its other order.
// `balanced`: half of every batch desirable, so the smaller class limits the pass.
std::vector<std::vector<std::size_t>> batches_of_epoch(const feedback& data, int batch,
                                                       bool balanced, std::uint64_t seed,
                                                       int epoch);

// Everything that changes while a stage runs, and thus all that a checkpoint holds.
struct training_state {
  aligned_vector<float> parameters;
  adam optimiser;
  int step = 0;
  point_memory memory;
  std::vector<step_record> records;

  explicit training_state(aligned_vector<float> start)
      : parameters(std::move(start)), optimiser(parameters.size()) {}
};

// The frozen model that an objective measures against.
struct reference_model {
  std::span<const float> parameters;
  std::span<const double> log_probs;  // of the rows of the feedback
};

class trainer {
 public:
  // All arguments must outlive the trainer; next-token training has no reference.
  trainer(const model_shape& shape, const feedback& data, const objective& goal,
          const schedule& plan, const reference_model& reference, int threads);

  // Runs until the plan is done or `stop` says so, between two steps. Returns whether it is done.
  bool run(training_state& state, const std::function<bool()>& stop,
           const std::function<void(const training_state&)>& after_step);

 private:
  // A fixed part of every batch, with memory of its own.
  struct shard {
    std::size_t first = 0;  // of its sequences in the batch
    packed_batch batch, mismatched;
    activations<float> memory, mismatched_memory;
    token_scores scores, mismatched_scores;
    aligned_vector<float> gradient;
  };

  step_record step(training_state& state);
  std::vector<std::size_t> rows_of_step(int step);
  void lay_out(std::span<const std::size_t> rows);
  scored_batch forward_all(std::span<const std::size_t> rows, std::span<const float> parameters);
  void backward_all(std::span<const float> parameters, std::span<const double> coefficients);
  double sum_gradients();

  const model_shape& shape_;
  const feedback& data_;
  const objective& goal_;
  const schedule& plan_;
  reference_model reference_;
  int threads_;

  int epoch_ = -1;
  std::vector<std::vector<std::size_t>> epoch_batches_;
  std::vector<shard> shards_;
};

}  // namespace align
