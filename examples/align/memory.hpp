// What a run will take of the machine's memory, told before it starts.
#pragma once

#include <cstddef>
#include <string>

#include "model/language_model.hpp"
#include "objective.hpp"
#include "training/plan.hpp"

namespace align {

struct memory_need {
  std::size_t weights = 0;      // as stored, and what is trained in fp32
  std::size_t optimiser = 0;    // the gradient and two moments
  std::size_t activations = 0;  // of the largest batch, or part of one
  std::size_t head = 0;         // what stands in for the logits

  std::size_t total() const { return weights + optimiser + activations + head; }
  std::string sentence() const;
};

memory_need memory_needed(const language_model& model, const feedback& data, const schedule& plan,
                          const objective& goal);

}  // namespace align
