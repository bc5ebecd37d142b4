// Tokens in this trainer: hidden states and the head go in, one log-probability per sequence comes
// out; one coefficient per sequence goes in, gradients of hidden states and head come out. No
// logits are held.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "model/batch.hpp"
#include "model/weights.hpp"
#include "tensor.hpp"
#include "threads.hpp"

namespace align {

// Bounds what stands in for the logits: gradients are kept from the forward pass as far as they
// fit, those of the other tokens are computed again.
constexpr std::size_t head_workspace_bytes = std::size_t{64} << 20;

// Prospect's workspace.
template <class W>
struct head_memory;

// The scored positions of one batch, kept between forward and backward pass.
template <class W>
struct token_scores {
  std::vector<float> log_prob;
  std::vector<double> lse;
  std::vector<double> sequence;            // log-probabilities summed by sequence, nats
  std::shared_ptr<head_memory<W>> memory;  // of the first `score`, reused from batch to batch
};

// What the head's backward pass will be asked for: nothing; gradients of hidden states and of the
// head, its adapter's alone if one likes; or of hidden states alone.
enum class head_use { evaluation, trained, frozen };

// Log-probabilities of the targets from hidden states ([scored positions, width]) and the head. A
// frozen head leaves their gradients in `d_hidden`, which the others do not read.
template <class W>
void score(matrix<const W> hidden, const head_weights<const W>& head, const packed_batch& batch,
           head_use use, token_scores<W>& scores, matrix<W> d_hidden, workers& on);

// The gradient, after `score` of the same: overwrites `d_hidden`, adds to the parts of `d_head`
// that have data; a frozen head has none.
template <class W>
void backpropagate(matrix<const W> hidden, const head_weights<const W>& head,
                   const packed_batch& batch, head_use use, token_scores<W>& scores,
                   std::span<const double> coefficients, matrix<W> d_hidden,
                   const head_weights<float>& d_head, workers& on);

}  // namespace align
