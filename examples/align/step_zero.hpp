// What the first step of a run shows before it is made: whether the policy is the reference, what
// the loss is then, and what memory and time the run will take.
#pragma once

#include <vector>

#include "doctor.hpp"
#include "job.hpp"
#include "model/language_model.hpp"
#include "threads.hpp"

namespace align {

// Scores the rows of the first step, and differentiates them once.
std::vector<finding> look_at_step_zero(const language_model& model, const job& from,
                                       const schedule& plan, std::size_t longest_sample,
                                       workers& on);

}  // namespace align
