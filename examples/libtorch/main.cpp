// Alignment by DPO of a Llama-family model whose trainer is libtorch's: modules, autograd, Adam.
// What exists for Prospect stands between `glue begin` and `glue end`; the rest would be there
// without.
//
// The task is made up: a prompt says in which direction to count and where to start, and the
// preferred completion does as it was told, while the other one counts the other way round. A model
// that has learnt nothing prefers either as often.
#include "llama.hpp"

#include <ATen/Parallel.h>
#include <torch/optim/adam.h>
#include <torch/utils.h>

#include <cstdio>
#include <cstdlib>

// glue begin
#include <prospect/adapters/torch.hpp>
#include <prospect/losses/paired/dpo.hpp>

namespace on_torch = prospect::adapters;

/// Summed log-probs of the completions [rows], from hidden states: the logits are never there.
at::Tensor completion_log_probs(llama& model, const at::Tensor& tokens, const at::Tensor& labels) {
  const at::Tensor targets = on_torch::shift_targets(labels);
  const at::Tensor log_probs =
      on_torch::head_log_probs(model.hidden(tokens), model.head(), {}, targets);
  return on_torch::sequence_sums(log_probs, targets).log_prob;
}

/// DPO's loss of rows that are chosen completions in their first half, rejected ones in the second.
at::Tensor dpo_loss(const at::Tensor& policy, const at::Tensor& reference) {
  const std::int64_t pairs = policy.size(0) / 2;
  return on_torch::evaluate(prospect::dpo{.beta = 0.1},
                            {.policy_chosen = policy.narrow(0, 0, pairs),
                             .policy_rejected = policy.narrow(0, pairs, pairs),
                             .reference_chosen = reference.narrow(0, 0, pairs),
                             .reference_rejected = reference.narrow(0, pairs, pairs)})
      .total;
}
// glue end

namespace {

constexpr std::int64_t numbers = 24, up = numbers, down = numbers + 1, prompt = 2, length = 8;

struct batch {
  at::Tensor tokens, labels;  ///< [2 pairs, length]: chosen, then rejected; labels of prompts: -100
};

batch random_pairs(std::int64_t pairs) {
  const at::Tensor is_up = at::randint(0, 2, {pairs, 1}, at::kLong);
  const at::Tensor start = at::randint(0, numbers, {pairs, 1}, at::kLong);
  const at::Tensor steps = at::arange(length - 1, at::kLong);
  const auto counted = [&](const at::Tensor& direction) {
    const at::Tensor asked =
        at::where(is_up == 1, at::full_like(is_up, up), at::full_like(is_up, down));
    return at::cat({asked, at::remainder(start + direction * steps, numbers)}, 1);
  };
  const at::Tensor tokens = at::cat({counted(2 * is_up - 1), counted(1 - 2 * is_up)});
  at::Tensor labels = tokens.clone();
  labels.narrow(1, 0, prompt).fill_(-100);
  return {tokens, labels};
}

/// The share of pairs of which the model finds the chosen completion more probable.
double share_right(llama& model, const batch& held_out) {
  const at::NoGradGuard no_gradients;
  const at::Tensor sums = completion_log_probs(model, held_out.tokens, held_out.labels);
  const std::int64_t pairs = sums.size(0) / 2;
  return (sums.narrow(0, 0, pairs) > sums.narrow(0, pairs, pairs))
      .to(at::kDouble)
      .mean()
      .item<double>();
}

std::shared_ptr<llama> copy_of(const llama& model, const llama_shape& shape) {
  const at::NoGradGuard no_gradients;
  auto copy = std::make_shared<llama>(shape);
  const auto from = model.parameters();
  const auto to = copy->parameters();
  for (std::size_t i = 0; i < from.size(); ++i) to[i].copy_(from[i]);
  return copy;
}

}  // namespace

int main(int argc, char** argv) {
  const int steps = argc > 1 ? std::atoi(argv[1]) : 150;
  if (steps < 1) {
    std::fprintf(stderr, "usage: libtorch_llama [steps, 150]\n");
    return 2;
  }
  torch::manual_seed(1);
  const llama_shape shape{
      .vocabulary = numbers + 2, .width = 48, .layers = 2, .heads = 4, .key_heads = 2, .inner = 96};
  const auto policy = std::make_shared<llama>(shape);
  const auto reference = copy_of(*policy, shape);
  const batch held_out = random_pairs(256);
  const double before = share_right(*policy, held_out);

  torch::optim::Adam optimiser{policy->parameters(), torch::optim::AdamOptions(3e-3)};
  for (int step = 0; step < steps; ++step) {
    const batch now = random_pairs(32);
    at::Tensor reference_sums;
    {
      const at::NoGradGuard no_gradients;
      reference_sums = completion_log_probs(*reference, now.tokens, now.labels);
    }
    optimiser.zero_grad();
    const at::Tensor loss =
        dpo_loss(completion_log_probs(*policy, now.tokens, now.labels), reference_sums);
    loss.backward();
    optimiser.step();
    if (step % 25 == 0 || step + 1 == steps) {
      std::printf("step %4d  loss %.4f\n", step, loss.item<double>());
    }
  }

  const double after = share_right(*policy, held_out);
  std::printf("held-out pairs right: %.1f %% before, %.1f %% after\n", 100 * before, 100 * after);
  const bool learnt = after > 0.95;
  std::puts(learnt ? "learnt to count as it is told" : "NOT LEARNT");
  return learnt ? 0 : 1;
}
