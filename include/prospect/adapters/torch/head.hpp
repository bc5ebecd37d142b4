// The head path in torch's graph: log-probs from hidden states and the weight of the LM head,
// whose logits are never whole in memory. What requires a gradient picks the schedule:
//
//   nothing                       log-probs alone                                1 product
//   the hidden states             a frozen head: their gradient is formed by     2
//                                 the forward pass, backward scales its rows
//   the weight or the bias, too   a trained head: what fits into the workspace   4 - f
//                                 is kept, the rest computed again
//
// A node owns its workspace, so that any number of them may be alive at once, and gives the memory
// back after its backward pass; with retain_graph a second one computes everything again.
#pragma once

#include <prospect/adapters/torch/cpu.hpp>
#include <prospect/head.hpp>

#include <ATen/core/ivalue.h>

#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// How logits become probabilities (`head_options`), and how much memory a node may hold beside
/// inputs and gradients.
struct torch_head_options {
  double temperature = 1;
  double soft_cap = no_cap;
  std::int64_t workspace_bytes = std::int64_t{256} << 20;
  /// On a device, which alone knows how many tokens are scored, the host's word for it: more make
  /// every output NaN, and that many are worked on. 0: as many as there are.
  std::int64_t scored_at_most = 0;
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// Tensors of one call, brought into shape: what the views are of.
struct head_tensors {
  Tensor hidden, weight, bias, targets;

  head_options options(const torch_head_options& o) const {
    return {.temperature = o.temperature, .soft_cap = o.soft_cap};
  }
  template <storage S>
  matrix_view<const S> hidden_rows() const {
    return matrix<const S>(hidden, "hidden", hidden.device());
  }
  template <storage S>
  lm_head<S> head() const {
    lm_head<S> h{.weight = matrix<const S>(weight, "weight", hidden.device())};
    if (bias.defined()) h.bias = row<const S>(bias, "bias", hidden.device());
    return h;
  }
  index_row target_row() const { return indices(targets, "targets", hidden.device()); }
};

/// Where gradients of a trained head go: what is not defined is not wanted.
struct head_gradient_tensors {
  Tensor hidden, weight, bias;

  template <storage S>
  head_gradients<S> views(const at::Device& device) const {
    using R = compute_t<S>;
    head_gradients<S> g;
    if (hidden.defined()) g.hidden = matrix<S>(hidden, "gradient", device);
    if (weight.defined()) g.weight = matrix<R>(weight, "gradient", device);
    if (bias.defined()) g.bias = row<R>(bias, "gradient", device);
    return g;
  }
};

/// Which inputs want a gradient.
struct wanted_gradients {
  bool hidden, weight, bias;

  bool head() const { return weight || bias; }
};

/// What a node is given beside hidden states, weight and, where there is one, bias.
struct head_arguments {
  Tensor targets;
  torch_head_options options;
  wanted_gradients wanted;
  variable_list places;  ///< of the inputs
};

/// What a node of the head path owns, on any back end.
struct head_state : ::torch::CustomClassHolder {
  torch_head_options options;
  wanted_gradients wanted;
  std::size_t inputs = 0;
  std::vector<std::int64_t> shape{};  ///< of the hidden states

  explicit head_state(const head_arguments& given) : options{given.options}, wanted{given.wanted} {}
};

/// And on one of them (cpu_head.hpp, torch.cuh): memory, and the ticket of its forward pass.
template <class Where, storage S>
struct head_memory;

template <class Where>
struct head_node : ::torch::autograd::Function<head_node<Where>> {
  static constexpr const char* of = "head_log_probs";

  static Tensor forward(AutogradContext* ctx, at::TensorList inputs, const head_arguments& given) {
    const Tensor& targets = given.targets;
    const wanted_gradients wanted = given.wanted;
    const Tensor &hidden = inputs[0], &weight = inputs[1];
    const Tensor bias = inputs.size() > 2 ? inputs[2] : Tensor{};
    const at::Device device = device_of({"hidden", hidden}, Where::kind);
    const typename Where::guard here{device};
    const head_tensors in{.hidden = as_matrix({"hidden", hidden}),
                          .weight = as_matrix({"weight", weight}),
                          .bias = bias,
                          .targets = as_row({"targets", targets}, {"hidden", hidden})};
    return Where::with_logits(hidden, "hidden", [&]<storage S>(std::type_identity<S>) {
      using R = compute_t<S>;
      const auto type = hidden.options().dtype(compute_type<S>).requires_grad(false);
      const Tensor log_prob = at::empty(in.targets.sizes(), type);
      const Tensor lse = at::empty(in.targets.sizes(), type.dtype(at::kDouble));
      const token_outputs<R> out{.log_prob = row<R>(log_prob, "log_prob", device),
                                 .lse = row<double>(lse, "lse", device)};
      auto memory = c10::make_intrusive<head_memory<Where, S>>(given);
      memory->inputs = inputs.size();
      memory->shape = hidden.sizes().vec();
      const auto same = [](const Tensor& copy, const Tensor& original) {
        return copy.defined() && copy.is_alias_of(original) ? original : copy;
      };
      variable_list saved;
      if (wanted.head()) {
        memory->log_probs(in, out, true);
        saved = {same(in.hidden, hidden), same(in.weight, weight), bias, in.targets, log_prob, lse};
      } else if (wanted.hidden) {
        const Tensor d_hidden =
            at::empty(in.hidden.sizes(), in.hidden.options().requires_grad(false));
        memory->log_probs_and_gradient(in, out, matrix<S>(d_hidden, "gradient", device));
        saved = {d_hidden, in.targets};
      } else {
        memory->log_probs(in, out, false);
      }
      saved.insert(saved.end(), given.places.begin(), given.places.end());
      ctx->save_for_backward(saved);
      ctx->saved_data["state"] = c10::IValue::make_capsule(memory);
      return log_prob.view(targets.sizes()).clone();  // which may be written to
    });
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& d_results) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor d_token = d_results[0].detach().reshape(-1);
    const auto owned = ctx->saved_data["state"].toCapsule();
    const auto& state = static_cast<const head_state&>(*owned);
    head_gradient_tensors gradients;
    if (!state.wanted.head()) {
      gradients.hidden = saved[0].clone();
      // The rows of tokens that are not scored are 0, and stay so whatever comes back to them.
      const Tensor d_scored = d_token.masked_fill(saved[1] == ignored_target, 0);
      Where::with_logits(saved[0], "hidden", [&]<storage S>(std::type_identity<S>) {
        Where::template scale_rows<S>(
            matrix<S>(gradients.hidden, "gradient", d_token.device()),
            row<const compute_t<S>>(d_scored, "d_log_prob", d_token.device()));
      });
    } else {
      const head_tensors in{.hidden = as_matrix({"hidden", saved[0].detach()}),
                            .weight = as_matrix({"weight", saved[1].detach()}),
                            .bias = saved[2],
                            .targets = saved[3]};
      Where::with_logits(in.hidden, "hidden", [&]<storage S>(std::type_identity<S>) {
        using R = compute_t<S>;
        const auto type = d_token.options();
        if (state.wanted.hidden)
          gradients.hidden = at::empty(in.hidden.sizes(), in.hidden.options());
        if (state.wanted.weight) gradients.weight = at::empty(in.weight.sizes(), type);
        if (state.wanted.bias) gradients.bias = at::empty(in.bias.sizes(), type);
        auto& memory = static_cast<head_memory<Where, S>&>(*owned);
        memory.gradient(in, row<const R>(saved[4], "log_prob", in.hidden.device()),
                        row<const double>(saved[5], "lse", in.hidden.device()),
                        row<const R>(d_token, "d_log_prob", in.hidden.device()),
                        gradients.views<S>(in.hidden.device()));
      });
    }
    if (gradients.hidden.defined()) gradients.hidden = gradients.hidden.view(state.shape);
    variable_list results{gradients.hidden, gradients.weight, gradients.bias};
    results.resize(state.inputs);
    results.emplace_back();  // of the other arguments
    return once(std::move(results), d_results,
                at::TensorList{saved}.slice(saved.size() - state.inputs), of);
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Log-probabilities of the target tokens from hidden states [..., hidden] through an LM head
/// (weight [vocabulary, hidden], bias [vocabulary] or undefined), of the targets' shape [...];
/// float, or double for double. Hidden states, weight and bias are of one type; targets are int32
/// or int64, and -100 is not scored: those tokens take part in no product.
///
/// A gradient by the weight is summed in fp32 and rounded once to the weight's type. A frozen head
/// in 16 bits rounds the gradient of the hidden states twice.
/// @throws std::invalid_argument with the argument's name, or where the workspace is too small for
///         a few tokens: it says how large it must be.
template <class Where = torch_cpu>
at::Tensor head_log_probs(const at::Tensor& hidden, const at::Tensor& weight,
                          const at::Tensor& bias, const at::Tensor& targets,
                          const torch_head_options& options = {}, const Where& = Where{}) {
  using detail::wants_gradient;
  detail::must_be_defined({{"hidden", hidden}, {"weight", weight}, {"targets", targets}});
  detail::variable_list inputs{hidden, weight};
  if (bias.defined()) inputs.push_back(bias);
  detail::head_arguments given{
      targets, options, {wants_gradient(hidden), wants_gradient(weight), wants_gradient(bias)}, {}};
  for (const at::Tensor& input : inputs) given.places.push_back(detail::place_of(input));
  return detail::head_node<Where>::apply(at::TensorList{inputs}, given);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
