// AdamW: Adam with bias correction (Kingma and Ba 2015, arXiv 1412.6980, algorithm 1) and decoupled
// weight decay (Loshchilov and Hutter 2019, arXiv 1711.05101), and the schedule of its step size.
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

  // Updates elements [first, last), which no other element depends on, by `gradient` times `scale`.
  // `step` counts from 1. Decay draws parameters towards 0 by the rate times `decay`.
  void update(std::size_t first, std::size_t last, std::span<float> parameters,
              std::span<const float> gradient, float scale, double learning_rate, double decay,
              int step) {
    const auto b1 = static_cast<float>(beta1), b2 = static_cast<float>(beta2);
    // Both bias corrections folded into the step size and epsilon: one division per element.
    const double correction = std::sqrt(1 - std::pow(beta2, step));
    const auto rate = static_cast<float>(learning_rate * correction / (1 - std::pow(beta1, step)));
    const auto floor = static_cast<float>(epsilon * correction);
    const auto kept = static_cast<float>(1 - learning_rate * decay);
    for (std::size_t i = first; i < last; ++i) {
      const float g = scale * gradient[i];
      mean[i] = b1 * mean[i] + (1 - b1) * g;
      variance[i] = b2 * variance[i] + (1 - b2) * g * g;
      parameters[i] = kept * parameters[i] - rate * mean[i] / (std::sqrt(variance[i]) + floor);
    }
  }
};

enum class decline { cosine, constant };

// Linear warm-up over the first `warm_up` of the steps, then half a cosine down to a tenth, or
// nothing.
inline double scheduled(double learning_rate, int step, int steps, double warm_up = 0.1,
                        decline shape = decline::cosine) {
  const double warm = std::max(1.0, warm_up * steps);
  if (step <= warm) return learning_rate * step / warm;
  if (shape == decline::constant) return learning_rate;
  const double done = (step - warm) / std::max(1.0, steps - warm);
  return learning_rate * (0.55 + 0.45 * std::cos(std::numbers::pi * done));
}

}  // namespace align
