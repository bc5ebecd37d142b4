// Adam with bias correction (Kingma and Ba 2015, algorithm 1), and the schedule of its step size.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <span>

#include "tensor.hpp"

namespace align {

struct adam {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;

  aligned_vector<float> mean, variance;  // of the gradient, so far

  explicit adam(std::size_t parameters) : mean(parameters), variance(parameters) {}

  // Updates elements [first, last), which no other element depends on. `step` counts from 1.
  void update(std::size_t first, std::size_t last, std::span<float> parameters,
              std::span<const float> gradient, double learning_rate, int step) {
    const auto b1 = static_cast<float>(beta1), b2 = static_cast<float>(beta2);
    // Both bias corrections folded into the step size and epsilon: one division per element.
    const double correction = std::sqrt(1 - std::pow(beta2, step));
    const auto rate = static_cast<float>(learning_rate * correction / (1 - std::pow(beta1, step)));
    const auto floor = static_cast<float>(epsilon * correction);
    for (std::size_t i = first; i < last; ++i) {
      const float g = gradient[i];
      mean[i] = b1 * mean[i] + (1 - b1) * g;
      variance[i] = b2 * variance[i] + (1 - b2) * g * g;
      parameters[i] -= rate * mean[i] / (std::sqrt(variance[i]) + floor);
    }
  }
};

// Linear warm-up over the first tenth of the steps, then half a cosine down to a tenth.
inline double scheduled(double learning_rate, int step, int steps) {
  const double warm_up = std::max(1.0, 0.1 * steps);
  if (step <= warm_up) return learning_rate * step / warm_up;
  const double done = (step - warm_up) / std::max(1.0, steps - warm_up);
  return learning_rate * (0.55 + 0.45 * std::cos(std::numbers::pi * done));
}

}  // namespace align
