// One stage of training from its first step, or from where a checkpoint left it, to its last.
#pragma once

#include <string>

#include "model/language_model.hpp"
#include "objective.hpp"
#include "session.hpp"
#include "training/plan.hpp"
#include "training/reference.hpp"
#include "training/train.hpp"

namespace align {

struct stage {
  std::string name;
  std::string label;  // for people
  const feedback& data;
  const objective& goal;
  const schedule& plan;
  const reference_scores* reference;
  std::string settings;  // everything that decides the result
};

// Changes the model, and saves now and then. `reuse_finished`: a finished stage of the same
// settings is taken over even where nobody asked to resume. Throws `interrupted`.
training_state run_stage(const session& in, const stage& s, language_model& model,
                         bool reuse_finished);

}  // namespace align
