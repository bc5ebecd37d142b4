// What a stage of training goes through, known before it starts: how many steps at what rate, and
// which rows each of them takes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "data/data.hpp"
#include "objective.hpp"
#include "training/adam.hpp"

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
  double warm_up = 0.1;    // share of the steps
  decline shape = decline::cosine;
  double weight_decay = 0;
  double longest_gradient = 1;  // clipped by its global norm
  int together = 0;             // sequences at a time, where memory is short; 0: the batch
  bool recompute = false;       // blocks, in the backward pass
};

// Batches of one pass over the data; the remainder waits for the next pass and its other order.
// `balanced`: half of every batch desirable, so the smaller class limits the pass.
std::vector<std::vector<std::size_t>> batches_of_epoch(const feedback& data, int batch,
                                                       bool balanced, std::uint64_t seed,
                                                       int epoch);

// The rows of one step after another. They depend on nothing but the seed and the step, so an
// interrupted run finds its place.
class batch_order {
 public:
  // The data must outlive this.
  batch_order(const feedback& data, const schedule& plan, bool balanced);

  // Of a pair, the chosen ones come first, then their partners.
  std::vector<std::size_t> rows_of_step(int step);

 private:
  const feedback& data_;
  int batch_;
  std::uint64_t seed_;
  bool balanced_;
  int epoch_ = 0;
  std::vector<std::vector<std::size_t>> batches_;
};

// The parts, [first, last), in which a batch of so many sequences goes through the model.
std::vector<std::pair<std::size_t, std::size_t>> parts_of(std::size_t sequences,
                                                          const schedule& plan);

// A prompt and a completion, by the rows they come from.
struct prompt_completion {
  std::size_t prompt = 0, completion = 0;
  friend auto operator<=>(const prompt_completion&, const prompt_completion&) = default;
};

// All that a stage measures against its reference, each once, in the order of first use: the rows
// of its steps, and the mismatched ones where the objective asks for them.
std::vector<prompt_completion> measured_by(const feedback& data, const schedule& plan,
                                           const objective& goal);

}  // namespace align
