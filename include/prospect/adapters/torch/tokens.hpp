// Phases 1 and 3 in torch's graph: log-probs of target tokens from logits, and the sums of
// sequences; backward is the library's gradient of the logits, from the log-probs and normalisers
// that the forward pass has left. Nothing of the size of the logits is kept beside them.
#pragma once

#include <prospect/adapters/torch/cpu.hpp>

#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

/// How logits become probabilities (`token_options`), and whether entropies are wanted as well.
struct torch_token_options {
  double temperature = 1;
  double soft_cap = no_cap;
  bool entropy = false;
};

/// Of the shape of the targets; float, or double for logits of double.
struct torch_token_results {
  at::Tensor log_prob;  ///< 0 where the target is -100
  at::Tensor entropy;   ///< nats; undefined where it was not asked for
};

/// Sums of sequences: [sequences].
struct torch_sequence_sums {
  at::Tensor log_prob;  ///< of double, with a gradient to the tokens' log-probs
  at::Tensor tokens;    ///< int32: how many were scored
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

struct log_prob_arguments {
  Tensor targets;
  torch_token_options options;
  Tensor place;  ///< of the logits
};

template <class Where>
struct token_log_probs_node : ::torch::autograd::Function<token_log_probs_node<Where>> {
  static constexpr const char* of = "token_log_probs";

  static variable_list forward(AutogradContext* ctx, const Tensor& logits,
                               const log_prob_arguments& given) {
    const Tensor& targets = given.targets;
    const torch_token_options& options = given.options;
    const Tensor rows = as_matrix({"logits", logits});
    const Tensor row_targets = as_row({"targets", targets}, {"logits", logits});
    const at::Device device = device_of({"logits", logits}, Where::kind);
    const typename Where::guard here{device};
    return Where::with_logits(logits, "logits", [&]<storage S>(std::type_identity<S>) {
      using R = compute_t<S>;
      const auto type = logits.options().dtype(compute_type<S>).requires_grad(false);
      const Tensor log_prob = at::empty(row_targets.sizes(), type);
      const Tensor lse = at::empty(row_targets.sizes(), type.dtype(at::kDouble));
      const Tensor entropy =
          options.entropy ? at::empty(row_targets.sizes(), type) : at::empty({0}, type);
      Where::template token_log_probs<S>(
          matrix<const S>(rows, "logits", device), indices(row_targets, "targets", device),
          {.log_prob = row<R>(log_prob, "log_prob", device),
           .lse = row<double>(lse, "lse", device),
           .entropy = row<R>(entropy, "entropy", device)},
          {.temperature = options.temperature, .soft_cap = options.soft_cap});
      ctx->saved_data["temperature"] = options.temperature;
      ctx->saved_data["soft_cap"] = options.soft_cap;
      // A view of the logits is saved as the logits: whoever writes to them in between is told.
      ctx->save_for_backward({rows.is_alias_of(logits) ? logits : rows, row_targets, log_prob, lse,
                              entropy, given.place});
      ctx->saved_data["shape"] = logits.sizes().vec();
      // What is handed out may be written to; what was saved, and views of it, may not.
      const Tensor shaped = log_prob.view(targets.sizes()).clone();
      if (!options.entropy) return variable_list{shaped};
      return variable_list{shaped, entropy.view(targets.sizes()).clone()};
    });
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& d_results) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor rows = as_matrix({"logits", saved[0].detach()});
    const at::Device device = rows.device();
    const Tensor d_log_prob = d_results[0].detach().reshape(-1);
    Tensor gradient = at::empty(rows.sizes(), rows.options().requires_grad(false));
    Where::with_logits(rows, "logits", [&]<storage S>(std::type_identity<S>) {
      using R = compute_t<S>;
      const auto pass = [&](const auto& coefficients) {
        Where::template logits_gradient<S>(
            matrix<const S>(rows, "logits", device), matrix<S>(gradient, "gradient", device),
            indices(saved[1], "targets", device), row<const R>(saved[2], "log_prob", device),
            row<const double>(saved[3], "lse", device), coefficients,
            {.temperature = ctx->saved_data["temperature"].toDouble(),
             .soft_cap = ctx->saved_data["soft_cap"].toDouble()});
      };
      if (d_results.size() == 1) return pass(row<const R>(d_log_prob, "d_log_prob", device));
      const Tensor d_entropy = d_results[1].detach().reshape(-1);
      const Tensor minus = -d_log_prob;
      pass(token_coefficients<R>{.softmax = row<const R>(minus, "d_log_prob", device),
                                 .onehot = row<const R>(minus, "d_log_prob", device),
                                 .d_entropy = row<const R>(d_entropy, "d_entropy", device),
                                 .entropy = row<const R>(saved[4], "entropy", device)});
    });
    return once({gradient.view(ctx->saved_data["shape"].toIntVector()), Tensor{}}, d_results,
                saved.back(), of);
  }
};

struct sum_arguments {
  Tensor targets, offsets;
  Tensor place;  ///< of the log-probs
};

template <class Where>
struct sequence_sums_node : ::torch::autograd::Function<sequence_sums_node<Where>> {
  static constexpr const char* of = "sequence_sums";

  static variable_list forward(AutogradContext* ctx, const Tensor& log_prob,
                               const sum_arguments& given) {
    const Tensor& targets = given.targets;
    const at::Device device = device_of({"log_prob", log_prob}, Where::kind);
    const typename Where::guard here{device};
    const flat_tokens flat{log_prob.sizes(), given.offsets, device};
    const Tensor row_log_prob = flat(log_prob, "log_prob");
    const Tensor row_targets = flat(targets, "targets");
    const sequence_layout layout = flat.layout();
    const auto type = log_prob.options().requires_grad(false);
    const Tensor sums = at::empty({layout.sequences()}, type.dtype(at::kDouble));
    const Tensor tokens = at::empty({layout.sequences()}, type.dtype(at::kInt));
    const auto sum = [&]<std::floating_point R>(R) {
      Where::template sequence_sums<R>(row<const R>(row_log_prob, "log_prob", device),
                                       indices(row_targets, "targets", device), layout,
                                       {.log_prob = row<double>(sums, "sums", device),
                                        .tokens = row<std::int32_t>(tokens, "tokens", device)});
    };
    log_prob.scalar_type() == at::kDouble ? sum(0.0) : sum(0.0F);
    ctx->save_for_backward({row_targets, given.offsets, given.place});
    ctx->saved_data["shape"] = log_prob.sizes().vec();
    ctx->saved_data["fp64"] = log_prob.scalar_type() == at::kDouble;
    ctx->mark_non_differentiable({tokens});
    return {sums, tokens};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& d_results) {
    const variable_list saved = ctx->get_saved_variables();
    const Tensor d_sums = d_results[0].detach();
    const at::Device device = d_sums.device();
    const std::vector<std::int64_t> shape = ctx->saved_data["shape"].toIntVector();
    const bool fp64 = ctx->saved_data["fp64"].toBool();
    const Tensor d_token =
        at::empty(saved[0].sizes(), d_sums.options().dtype(fp64 ? at::kDouble : at::kFloat));
    const auto spread = [&]<std::floating_point R>(R) {
      Where::template spread<R>(
          any_input(d_sums, "d_sums", device), indices(saved[0], "targets", device),
          flat_tokens{shape, saved[1], device}.layout(), row<R>(d_token, "d_token", device));
    };
    fp64 ? spread(0.0) : spread(0.0F);
    return once({d_token.view(shape), Tensor{}}, d_results, saved.back(), of);
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Log-probabilities of the target tokens ([..., vocabulary] against [...], int32 or int64, -100:
/// not scored), and on request entropies, with a gradient to the logits.
///
/// Logits may be of float, half or bfloat16, on the CPU also of double, and padded: rows that are a
/// pitch apart are read as they lie. What is no such matrix is copied first, and logits[:, :-1] is
/// none: leave them whole, and shift the targets (`shift_targets`).
/// @throws std::invalid_argument with the argument's name; on the CPU also for a target outside the
///         vocabulary, which on a device makes its row NaN.
template <class Where = torch_cpu>
torch_token_results token_log_probs(const at::Tensor& logits, const at::Tensor& targets,
                                    const torch_token_options& options = {},
                                    const Where& = Where{}) {
  detail::must_be_defined({{"logits", logits}, {"targets", targets}});
  auto results = detail::token_log_probs_node<Where>::apply(
      logits, detail::log_prob_arguments{targets, options, detail::place_of(logits)});
  return {results[0], options.entropy ? results[1] : at::Tensor{}};
}

/// Sums over the scored tokens of each sequence, in fp64. `log_prob` is [sequences, length], or
/// [tokens] with `offsets` ([sequences + 1]); targets have its shape.
/// @throws std::invalid_argument with the argument's name.
template <class Where = torch_cpu>
torch_sequence_sums sequence_sums(const at::Tensor& log_prob, const at::Tensor& targets,
                                  const at::Tensor& offsets = {}, const Where& = Where{}) {
  detail::must_be_defined({{"log_prob", log_prob}, {"targets", targets}});
  auto results = detail::sequence_sums_node<Where>::apply(
      log_prob, detail::sum_arguments{targets, offsets, detail::place_of(log_prob)});
  return {results[0], results[1]};
}

/// Targets (int32) for logits that are left whole: that of position t is the label of t + 1, that
/// of a sequence's last position -100. Labels are [sequences, length], or [tokens] with `offsets`.
template <class Where = torch_cpu>
at::Tensor shift_targets(const at::Tensor& labels, const at::Tensor& offsets = {},
                         const Where& = Where{}) {
  const at::Device device = detail::device_of({"labels", labels}, Where::kind);
  const typename Where::guard here{device};
  const detail::flat_tokens flat{labels.sizes(), offsets, device};
  const at::Tensor targets = at::empty({labels.numel()}, labels.options().dtype(at::kInt));
  Where::shift_targets(indices(flat(labels, "labels"), "labels", device), flat.layout(),
                       row<std::int32_t>(targets, "targets", device));
  return targets.view(labels.sizes());
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
