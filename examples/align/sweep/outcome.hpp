// What a finished run left in its JSON file.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sweep/grid.hpp"

namespace align {

struct run_outcome {
  swept_loss loss;
  swept_value value;
  std::uint64_t seed;
  // All that the file says about the seed, in its order, and "nll_drift"; what it does not know is
  // NaN. Kept by name, so that a figure which the trainer learns to measure is swept as well.
  std::vector<std::pair<std::string, double>> figures;
  std::vector<std::string> warnings;
  std::string data;  // its name

  double figure(std::string_view name) const;  // NaN where there is none
};

// Empty unless the file is there, whole, and this run's.
std::optional<run_outcome> read_outcome(const sweep_run& run);

// "COLLAPSE" of "COLLAPSE: the model is forgetting how to write: ..."
std::string verdict_of(std::string_view warning);

}  // namespace align
