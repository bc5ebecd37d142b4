// The whole job for one seed after another: load feedback, train by next-token loss, align by a
// preference loss, measure both models on held-out feedback.
#pragma once

#include <functional>
#include <iosfwd>
#include <stdexcept>
#include <vector>

#include "doctor.hpp"
#include "objective.hpp"
#include "options.hpp"
#include "report.hpp"

namespace align {

// Thrown where `stop` ended a run; the checkpoint is written, and the sentence says how far it got.
struct interrupted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// The loss that the options ask for. Where they say "auto", the weight that the counts suggest;
// `advice` says how it was found. Throws std::invalid_argument for what does not exist.
loss_choice choose_loss(const options& given, std::size_t n_desirable, std::size_t n_undesirable,
                        std::string* advice = nullptr);

// Progress goes to `log`. `command` is how to repeat the run.
run_report run_experiment(const options& given, const std::string& command,
                          const std::function<bool()>& stop, std::ostream& log);

// What can be known to go wrong before the run that the options ask for.
std::vector<finding> check_experiment(const options& given);

}  // namespace align
