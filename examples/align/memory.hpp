// What a run will take of the machine's memory, told before it starts.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string>

#include "model/language_model.hpp"
#include "objective.hpp"
#include "training/plan.hpp"

namespace align {

struct memory_need {
  std::size_t weights = 0;    // as stored, and what is trained in fp32
  std::size_t optimiser = 0;  // the gradient and two moments

  // Beside them, one after the other.
  std::size_t activations = 0;  // of the largest batch, or part of one
  std::size_t head = 0;         // what stands in for the logits meanwhile
  std::size_t scoring = 0;      // of texts that are only measured
  std::size_t writing = 0;      // of samples

  std::size_t total() const {
    return weights + optimiser + std::max({activations + head, scoring, writing});
  }
  std::string sentence() const;
};

// `longest_sample`: tokens of a completion that the model writes.
memory_need memory_needed(const language_model& model, const feedback& train,
                          const feedback& held_out, const schedule& plan, const objective& goal,
                          std::size_t longest_sample);

}  // namespace align
