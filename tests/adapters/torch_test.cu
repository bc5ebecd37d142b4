// The libtorch adapter on a device, at every level: results and gradients are those of the back end
// on the CPU, or for the head of torch's operations, in double. Skipped where torch finds no
// device; that it compiles and links is tested anywhere.
#include <prospect/adapters/torch.cuh>

#include <torch/csrc/autograd/autograd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace {

using at::Tensor;
namespace on_torch = prospect::adapters;

int wrong = 0;

void check(const std::string& what, const Tensor& got, const Tensor& want, double tolerance) {
  const Tensor g = got.detach().cpu().to(at::kDouble), w = want.detach().to(at::kDouble);
  const double off = (g - w).abs().max().item<double>() / w.abs().max().item<double>();
  if (off <= tolerance) return;
  std::printf("wrong: %s is off by %g\n", what.c_str(), off);
  ++wrong;
}

/// The same numbers on the CPU in double and on the device as they are stored there.
struct twin {
  Tensor cpu, device;

  twin(const Tensor& values, at::ScalarType type) {
    device = values.to(type).to(at::kCUDA).requires_grad_();
    cpu = values.to(type).to(at::kDouble).requires_grad_();
  }
};

std::vector<Tensor> gradients(const Tensor& of, const std::vector<Tensor>& by,
                              const std::vector<Tensor>& d = {}) {
  return torch::autograd::grad({of}, by, d, /*retain_graph=*/true);
}

void logits(at::ScalarType type, double tolerance) {
  const twin x{at::randn({3, 7, 300}), type};
  const Tensor targets = at::randint(0, 300, {3, 7}, at::kLong);
  targets[1][2] = -100;
  const on_torch::torch_token_options options{.temperature = 0.8, .entropy = true};
  const on_torch::torch_cuda device;
  const auto ours = on_torch::token_log_probs(x.device, targets.to(at::kCUDA), options, device);
  const auto want = on_torch::token_log_probs(x.cpu, targets, options);
  check("log_prob", ours.log_prob, want.log_prob, 4e-6);
  check("entropy", ours.entropy, want.entropy, 4e-6);
  const auto sums = on_torch::sequence_sums(ours.log_prob, targets.to(at::kCUDA), {}, device);
  const auto want_sums = on_torch::sequence_sums(want.log_prob, targets);
  check("sums", sums.log_prob, want_sums.log_prob, 4e-6);
  check("tokens", sums.tokens, want_sums.tokens, 0);
  check("d_logits", gradients(sums.log_prob.sum() + ours.entropy.sum(), {x.device})[0],
        gradients(want_sums.log_prob.sum() + want.entropy.sum(), {x.cpu})[0], tolerance);
}

void head(at::ScalarType type, double tolerance) {
  const twin hidden{at::randn({2, 9, 64}), type}, weight{at::randn({300, 64}) / 8, type},
      bias{at::randn({300}), type};
  const Tensor targets = at::randint(0, 300, {2, 9}, at::kLong);
  targets[0][4] = -100;
  const Tensor d = at::randn({2, 9});
  const on_torch::torch_cuda device;
  const Tensor scored = targets != -100;
  const Tensor all = at::log_softmax(at::linear(hidden.cpu, weight.cpu, bias.cpu), -1);
  const Tensor want = at::gather(all, -1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1) * scored;
  const auto wanted = gradients(want, {hidden.cpu, weight.cpu, bias.cpu}, {d.to(at::kDouble)});
  const auto ours = on_torch::head_log_probs(hidden.device, weight.device, bias.device,
                                             targets.to(at::kCUDA), {}, device);
  check("head log_prob", ours, want, 1e-5);
  for (int pass = 0; pass < 2; ++pass) {  // the second computes everything again
    const auto got =
        gradients(ours, {hidden.device, weight.device, bias.device}, {d.to(at::kCUDA)});
    for (std::size_t i = 0; i < 3; ++i) check("head gradient", got[i], wanted[i], tolerance);
  }
  const auto frozen =
      on_torch::head_log_probs(hidden.device, weight.device.detach(), bias.device.detach(),
                               targets.to(at::kCUDA), {}, device);
  check("frozen head", gradients(frozen, {hidden.device}, {d.to(at::kCUDA)})[0], wanted[0],
        tolerance);
}

void losses() {
  const twin chosen{at::randn({9}), at::kDouble}, rejected{at::randn({9}), at::kDouble};
  const Tensor reference = at::randn({9}, at::kDouble);
  const on_torch::torch_cuda device;
  const auto pairs = [&](const Tensor& c, const Tensor& r) {
    return on_torch::paired_tensors{.policy_chosen = c,
                                    .policy_rejected = r,
                                    .reference_chosen = reference.to(c.device()),
                                    .reference_rejected = reference.to(c.device())};
  };
  const auto ours = on_torch::evaluate(prospect::dpo{}, pairs(chosen.device, rejected.device),
                                       prospect::normaliser::mean(), device);
  const auto want = on_torch::evaluate(prospect::dpo{}, pairs(chosen.cpu, rejected.cpu));
  check("dpo", ours.total, want.total, 1e-13);
  check("d_chosen", gradients(ours.total, {chosen.device})[0],
        gradients(want.total, {chosen.cpu})[0], 1e-13);
  if (ours.metrics.read().rewards_accuracies.sum != want.metrics.rewards_accuracies.sum) {
    std::printf("wrong: metrics\n");
    ++wrong;
  }

  const Tensor desirable = at::rand({9}) < 0.5;
  const auto kto =
      on_torch::evaluate(prospect::kto{},
                         {.policy = chosen.device,
                          .reference = reference.to(at::kCUDA),
                          .desirable = desirable.to(at::kCUDA)},
                         prospect::constant_point(0.3), prospect::normaliser::mean(), device);
  const auto want_kto = on_torch::evaluate(
      prospect::kto{}, {.policy = chosen.cpu, .reference = reference, .desirable = desirable},
      prospect::constant_point(0.3));
  check("kto", kto.total, want_kto.total, 1e-13);
  check("d_policy", gradients(kto.total, {chosen.device})[0],
        gradients(want_kto.total, {chosen.cpu})[0], 1e-13);

  const twin tokens{-at::rand({3, 3}), at::kDouble};
  const Tensor advantage = at::randn({3}, at::kDouble);
  const auto batch = [&](const Tensor& policy) {
    return on_torch::token_tensors{.policy = policy, .advantage = advantage.to(policy.device())};
  };
  const auto grpo = on_torch::evaluate(prospect::grpo{}, batch(tokens.device),
                                       prospect::normaliser::mean(), device);
  const auto want_grpo = on_torch::evaluate(prospect::grpo{}, batch(tokens.cpu));
  check("grpo", grpo.total, want_grpo.total, 1e-13);
  check("d_tokens", gradients(grpo.total, {tokens.device})[0],
        gradients(want_grpo.total, {tokens.cpu})[0], 1e-13);
}

}  // namespace

int main() {
  if (!at::globalContext().hasCUDA() || c10::cuda::device_count() == 0) {
    std::printf("skipped: torch finds no device\n");
    return 77;
  }
  logits(at::kFloat, 1e-5);
  logits(at::kBFloat16, 8e-3);
  head(at::kFloat, 1e-4);
  head(at::kBFloat16, 1e-2);
  losses();
  return wrong == 0 ? 0 : 1;
}
