// What the trainer sees of Prospect: nothing that needs C++20.
#pragma once

#include <vector>

struct alignment {
  double loss = 0;
  std::vector<float> d_chosen, d_rejected;  // dL / d log-probability of each completion
};

// Sums of log-probabilities, one for each pair. Throws std::invalid_argument.
alignment align(const std::vector<float>& chosen, const std::vector<float>& rejected,
                const std::vector<float>& reference_chosen,
                const std::vector<float>& reference_rejected);
