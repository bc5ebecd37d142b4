// What the tests of the libtorch adapter share: tensors of a repeatable seed, and autograd as the
// oracle.
#pragma once

#include <prospect/adapters/torch/graph.hpp>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

// torch has one of its own (or glog's), which ends the program.
#undef CHECK
#include "catch.hpp"
#include "refusals.hpp"

namespace testing::torch_tensors {

using at::Tensor;
namespace on_torch = prospect::adapters;

inline const auto f64 = at::TensorOptions{}.dtype(at::kDouble);

/// Every test begins with it: PROSPECT_SEED tries other inputs.
inline void seed(std::uint64_t by_default) {
  const char* wanted = std::getenv("PROSPECT_SEED");
  const std::uint64_t chosen = wanted == nullptr ? by_default : std::stoull(wanted);
  at::Generator generator = at::globalContext().defaultGenerator(at::kCPU);
  generator.set_current_seed(chosen);
}

inline Tensor leaf(const Tensor& values) { return values.detach().clone().requires_grad_(); }

/// The largest difference, in units of the largest number of what is wanted; infinite where one of
/// them is no number.
inline double distance(const Tensor& got, const Tensor& want) {
  REQUIRE(got.sizes() == want.sizes());
  const Tensor g = got.detach().to(at::kDouble), w = want.detach().to(at::kDouble);
  if (g.numel() == 0) return 0;
  if (!at::isfinite(g).all().item<bool>()) return INFINITY;
  const double scale = w.abs().max().item<double>();
  return (g - w).abs().max().item<double>() / (scale > 0 ? scale : 1);
}

/// Gradients of a scalar, or of a tensor weighed by `d`.
inline std::vector<Tensor> gradients(const Tensor& of, const std::vector<Tensor>& by,
                                     const Tensor& d = {}, bool retain = false,
                                     bool create_graph = false) {
  std::vector<Tensor> weights;
  if (d.defined()) weights.push_back(d);
  return ::torch::autograd::grad({of}, by, weights, retain, create_graph);
}

/// Log-probs of the targets by torch's own operations; 0 where the target is -100.
inline Tensor log_probs(const Tensor& logits, const Tensor& targets) {
  const Tensor scored = targets != -100;
  const Tensor at_target =
      at::gather(at::log_softmax(logits, -1), -1,
                 at::where(scored, targets, at::zeros_like(targets)).to(at::kLong).unsqueeze(-1));
  return at::where(scored, at_target.squeeze(-1), at::zeros({}, logits.options()));
}

/// Targets of which one in four is not scored.
inline Tensor random_targets(at::IntArrayRef shape, std::int64_t vocabulary,
                             at::ScalarType type = at::kLong) {
  const Tensor targets = at::randint(0, vocabulary, shape, at::kLong);
  return targets.masked_fill(at::rand(shape) < 0.25, -100).to(type);
}

}  // namespace testing::torch_tensors
