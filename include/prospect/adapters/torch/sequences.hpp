// Phase 2 in torch's graph: a scalar loss of sums of sequences, or of log-probs of tokens, with
// the gradient by them, for every loss functor, built-in or the caller's own.
//
// The loss and its gradient come out of one pass, as everywhere in the library; the node holds the
// gradient and multiplies it by that of what follows. It is differentiated once: a second time is
// refused by the loss's name. Where no gradient is wanted (NoGradGuard, inputs that require none)
// none is computed, and the total is no part of a graph.
#pragma once

#include <prospect/adapters/torch/cpu.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// n pairs, as `paired_batch`: rows of n sums of float, double, half or bfloat16, of any stride;
/// `*_tokens` are int32. What is not defined is not given. Gradients go to the policy's rows.
struct paired_tensors {
  at::Tensor policy_chosen{};
  at::Tensor policy_rejected{};
  at::Tensor reference_chosen{};
  at::Tensor reference_rejected{};
  at::Tensor chosen_tokens{};
  at::Tensor rejected_tokens{};
  at::Tensor weight{};
  at::Tensor margin{};
  at::Tensor policy_third{};
  at::Tensor third_tokens{};
};

/// What a paired loss says. All but `total` are detached; metrics are those of the back end.
template <class Metrics>
struct paired_loss_result {
  at::Tensor total;            ///< the scalar loss, of double if a policy or reference row is
  at::Tensor loss;             ///< [n], neither reduced nor normalised
  at::Tensor reward_chosen;    ///< [n], beta x log-ratio
  at::Tensor reward_rejected;  ///< [n]
  Metrics metrics;
};

/// n completions with binary feedback, as `unpaired_batch`; `desirable` is bool or uint8.
struct unpaired_tensors {
  at::Tensor policy{};
  at::Tensor reference{};
  at::Tensor desirable{};
  at::Tensor tokens{};
  at::Tensor weight{};
  at::Tensor target{};
};

template <class Metrics>
struct unpaired_loss_result {
  at::Tensor total;
  at::Tensor loss;    ///< [n]
  at::Tensor reward;  ///< [n]
  Metrics metrics;
};

/// Tokens of sequences, as `token_batch`: either [sequences, length], or [tokens] with `offsets`
/// ([sequences + 1], int32 or int64). All rows but `advantage` have one element for each token.
/// Gradients go to `policy`, and with `entropy_coef` to `entropy`.
struct token_tensors {
  at::Tensor policy{};
  at::Tensor old{};
  at::Tensor reference{};
  at::Tensor advantage{};  ///< [sequences]; or token_advantage
  at::Tensor token_advantage{};
  at::Tensor weight{};
  at::Tensor entropy{};
  at::Tensor targets{};  ///< int32 or int64
  at::Tensor mask{};     ///< bool, uint8, int32 or float
  at::Tensor offsets{};
  double entropy_coef = 0;
};

template <class Metrics>
struct token_loss_result {
  at::Tensor total;
  at::Tensor loss;  ///< as policy
  Metrics metrics;
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// The rows of one call.
struct call_rows {
  at::Device device;

  const_any_row in(const Tensor& tensor, std::string_view name) const {
    return any_input(tensor, name, device);
  }
  strided_span<const std::int32_t> counts(const Tensor& tensor, std::string_view name) const {
    if (!tensor.defined()) return {};
    return row<const std::int32_t>(tensor, name, device);
  }
  any_row out(const Tensor& tensor) const { return any_output(tensor, "result", device); }
};

/// fp64 if one of them is, else fp32: what a loss is computed in.
inline at::TensorOptions arithmetic(std::initializer_list<named_tensor> tensors,
                                    const at::Device& device) {
  at::ScalarType type = at::kFloat;
  for (const auto& [name, tensor] : tensors) {
    if (tensor.defined() && tensor.scalar_type() == at::kDouble) type = at::kDouble;
  }
  return at::TensorOptions{}.device(device).dtype(type);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// A paired loss of n pairs, as cpu::evaluate has it.
/// @param by what the sum is divided by. Under data parallelism, or where micro-batches add up,
///        give each `over(global_count)`.
/// @param where the back end: torch_cpu{}, or torch_cuda{} of torch.cuh.
/// @throws std::invalid_argument with the argument's name: a wrong type, device, number of
///         dimensions or size, a row that is missing, a gradient asked for where none passes.
template <class Loss, class Where = torch_cpu>
auto evaluate(const Loss& loss, const paired_tensors& in,
              const typename Where::denominator& by = normaliser::mean(),
              const Where& where = Where{}) {
  using namespace detail;
  const call_rows rows{device_of({"policy_chosen", in.policy_chosen}, Where::kind)};
  const typename Where::guard here{rows.device};
  no_gradient_through({{"reference_chosen", in.reference_chosen},
                       {"reference_rejected", in.reference_rejected},
                       {"weight", in.weight},
                       {"margin", in.margin}});
  const paired_batch<> batch{
      .policy_chosen = rows.in(in.policy_chosen, "policy_chosen"),
      .policy_rejected = rows.in(in.policy_rejected, "policy_rejected"),
      .reference_chosen = rows.in(in.reference_chosen, "reference_chosen"),
      .reference_rejected = rows.in(in.reference_rejected, "reference_rejected"),
      .chosen_tokens = rows.counts(in.chosen_tokens, "chosen_tokens"),
      .rejected_tokens = rows.counts(in.rejected_tokens, "rejected_tokens"),
      .weight = rows.in(in.weight, "weight"),
      .margin = rows.in(in.margin, "margin"),
      .policy_third = rows.in(in.policy_third, "policy_third"),
      .third_tokens = rows.counts(in.third_tokens, "third_tokens")};
  const auto type = arithmetic({{"", in.policy_chosen},
                                {"", in.policy_rejected},
                                {"", in.reference_chosen},
                                {"", in.reference_rejected},
                                {"", in.policy_third}},
                               rows.device);
  const std::int64_t n = batch.policy_chosen.size();
  const Tensor losses = at::empty({n}, type);
  const Tensor chosen = at::empty({n}, type);
  const Tensor rejected = at::empty({n}, type);
  const Tensor d_chosen = coefficients_of(in.policy_chosen);
  const Tensor d_rejected = coefficients_of(in.policy_rejected);
  const Tensor d_third = coefficients_of(in.policy_third);
  const auto [total, metrics] = where.template evaluate<paired_metrics>(
      losses, loss, by, batch,
      paired_outputs<>{.loss = rows.out(losses),
                       .d_policy_chosen = rows.out(d_chosen),
                       .d_policy_rejected = rows.out(d_rejected),
                       .reward_chosen = rows.out(chosen),
                       .reward_rejected = rows.out(rejected),
                       .d_policy_third = rows.out(d_third)});
  return paired_loss_result<typename Where::template metrics<paired_metrics>>{
      scalar(total,
             {{in.policy_chosen, d_chosen},
              {in.policy_rejected, d_rejected},
              {in.policy_third, d_third}},
             name_of(loss)),
      losses, chosen, rejected, metrics};
}

/// An unpaired loss of n completions, as cpu::evaluate has it, against a reference point (nats) or
/// cross_class{}; torch_cuda takes the device's own points as well. No gradient passes through a
/// point.
template <class Loss, class Point, class Where = torch_cpu>
auto evaluate(const Loss& loss, const unpaired_tensors& in, const Point& point,
              const typename Where::denominator& by = normaliser::mean(),
              const Where& where = Where{}) {
  using namespace detail;
  const call_rows rows{device_of({"policy", in.policy}, Where::kind)};
  const typename Where::guard here{rows.device};
  no_gradient_through({{"reference", in.reference}, {"weight", in.weight}, {"target", in.target}});
  if (!in.desirable.defined()) refuse_tensor("desirable", "is not defined");
  const unpaired_batch<> batch{
      .policy = rows.in(in.policy, "policy"),
      .reference = rows.in(in.reference, "reference"),
      .desirable = row<const std::uint8_t>(in.desirable, "desirable", rows.device),
      .tokens = rows.counts(in.tokens, "tokens"),
      .weight = rows.in(in.weight, "weight"),
      .target = rows.in(in.target, "target")};
  const auto type = arithmetic({{"", in.policy}, {"", in.reference}}, rows.device);
  const std::int64_t n = batch.policy.size();
  const Tensor losses = at::empty({n}, type);
  const Tensor reward = at::empty({n}, type);
  const Tensor d_policy = coefficients_of(in.policy);
  const auto [total, metrics] = where.template evaluate<unpaired_metrics>(
      losses, loss, by, batch, point,
      unpaired_outputs<>{
          .loss = rows.out(losses), .d_policy = rows.out(d_policy), .reward = rows.out(reward)});
  return unpaired_loss_result<typename Where::template metrics<unpaired_metrics>>{
      scalar(total, {{in.policy, d_policy}}, name_of(loss)), losses, reward, metrics};
}

/// A loss of tokens, as cpu::evaluate has it, from log-probs per token.
template <class Loss, class Where = torch_cpu>
auto evaluate(const Loss& loss, const token_tensors& in,
              const typename Where::denominator& by = normaliser::mean(),
              const Where& where = Where{}) {
  using namespace detail;
  const call_rows rows{device_of({"policy", in.policy}, Where::kind)};
  const typename Where::guard here{rows.device};
  no_gradient_through({{"old", in.old},
                       {"reference", in.reference},
                       {"advantage", in.advantage},
                       {"token_advantage", in.token_advantage},
                       {"weight", in.weight}});
  if (in.entropy_coef == 0) no_gradient_through({{"entropy", in.entropy}});
  const flat_tokens flat{in.policy.sizes(), in.offsets, rows.device};
  const Tensor policy = flat(in.policy, "policy");
  const Tensor old = flat(in.old, "old");
  const Tensor reference = flat(in.reference, "reference");
  const Tensor token_advantage = flat(in.token_advantage, "token_advantage");
  const Tensor weight = flat(in.weight, "weight");
  const Tensor entropy = flat(in.entropy, "entropy");
  const Tensor targets = flat(in.targets, "targets");
  const Tensor scored = flat(in.mask, "mask");
  const token_batch batch{.policy = rows.in(policy, "policy"),
                          .old = rows.in(old, "old"),
                          .reference = rows.in(reference, "reference"),
                          .advantage = rows.in(in.advantage, "advantage"),
                          .token_advantage = rows.in(token_advantage, "token_advantage"),
                          .weight = rows.in(weight, "weight"),
                          .entropy = rows.in(entropy, "entropy"),
                          .targets = indices(targets, "targets", rows.device),
                          .mask = mask(scored, "mask", rows.device),
                          .layout = flat.layout(),
                          .entropy_coef = in.entropy_coef};
  const auto type = arithmetic({{"", in.policy}, {"", in.old}, {"", in.reference}}, rows.device);
  const Tensor losses = at::empty(policy.sizes(), type);
  const Tensor d_policy = coefficients_of(policy);
  const Tensor d_entropy = coefficients_of(entropy);
  const auto [total, metrics] =
      where.template evaluate<token_metrics>(losses, loss, by, batch,
                                             token_batch_outputs{.loss = rows.out(losses),
                                                                 .d_policy = rows.out(d_policy),
                                                                 .d_entropy = rows.out(d_entropy)});
  return token_loss_result<typename Where::template metrics<token_metrics>>{
      scalar(total, {{policy, d_policy}, {entropy, d_entropy}}, name_of(loss)),
      losses.view(in.policy.sizes()), metrics};
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
