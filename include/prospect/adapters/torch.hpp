// libtorch (1.13 and 2.x): the library as functions of torch's graph, on CPU tensors. torch.cuh
// has the device's.
//
// ```cpp
// namespace on_torch = prospect::adapters;
// const auto targets = on_torch::shift_targets(labels);                    // [B, T]
// const auto tokens = on_torch::token_log_probs(logits, targets);          // [B, T, V]: no copy
// const auto sums = on_torch::sequence_sums(tokens.log_prob, targets);     // [B]
// const auto loss = on_torch::evaluate(prospect::kto{}, {.policy = sums.log_prob,
//                                                        .reference = reference,
//                                                        .desirable = desirable}, z);
// loss.total.backward();
// ```
//
// Each level may be entered and left: sums or log-probs of the host's own (sequences.hpp), logits
// (tokens.hpp), hidden states without logits (head.hpp; on the CPU it needs Eigen). Tensors of one
// call lie on one device; what does not fit is refused by its name with std::invalid_argument.
// Gradients are handed out once: a backward pass through a backward pass is refused by name.
#pragma once

#include <prospect/adapters/torch/cpu_head.hpp>
#include <prospect/adapters/torch/sequences.hpp>
#include <prospect/adapters/torch/tokens.hpp>
