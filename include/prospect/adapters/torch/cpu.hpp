// The back end of tensors on the CPU: the library's functions on torch's threads. torch.cuh has
// its twin for a device; nodes of the graph know neither, but call what both have.
#pragma once

#include <prospect/adapters/torch/graph.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/cpu/tokens.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {
inline namespace PROSPECT_CPU_ISA {

/// Where a call works, given as its last argument: on the CPU, where results and metrics are there
/// when the call returns.
struct torch_cpu {
  static constexpr at::DeviceType kind = at::kCPU;
  using denominator = normaliser;
  /// Makes the device of a call the current one.
  struct guard {
    explicit guard(const at::Device&) noexcept {}
  };
  template <class M>
  using metrics = M;

  /// What phase 2 hands back: the total as a tensor, and the metrics.
  template <class M>
  struct evaluated {
    at::Tensor total;
    M metrics;
  };
  template <class M, class Loss, class... Batch>
  static evaluated<M> evaluate(const at::Tensor& like, const Loss& loss, const denominator& by,
                               const Batch&... batch) {
    torch_executor on;
    const M m = cpu::evaluate(loss, batch..., by, on);
    return {at::scalar_tensor(m.total, like.options().requires_grad(false)), m};
  }

  /// Calls f(std::type_identity<S>) with what logits and hidden states may be made of.
  template <class F>
  static decltype(auto) with_logits(const at::Tensor& tensor, std::string_view name, const F& f) {
    return with_storage(tensor, name, f);
  }
  template <storage S>
  static void token_log_probs(matrix_view<const S> logits, const index_row& targets,
                              const token_outputs<compute_t<S>>& out,
                              const token_options& options) {
    torch_executor on;
    cpu::token_log_probs<S>(logits, targets, out, options, on);
  }
  template <storage S>
  static void logits_gradient(matrix_view<const S> logits, matrix_view<S> gradient,
                              const index_row& targets, strided_span<const compute_t<S>> log_prob,
                              strided_span<const double> lse, const auto& coefficients,
                              const token_options& options) {
    torch_executor on;
    cpu::logits_gradient<S>(logits, gradient, targets, log_prob, lse, coefficients, options, on);
  }
  template <storage S>
  static void scale_rows(matrix_view<S> matrix, strided_span<const compute_t<S>> factors) {
    torch_executor on;
    cpu::scale_rows<S>(matrix, factors, on);
  }
  template <std::floating_point R>
  static void sequence_sums(strided_span<const R> log_prob, const index_row& targets,
                            const sequence_layout& layout, const sequence_outputs& out) {
    torch_executor on;
    cpu::sequence_sums<R>(log_prob, targets, layout, out, {}, on);
  }
  template <std::floating_point R>
  static void spread(const const_any_row& d_sequence, const index_row& targets,
                     const sequence_layout& layout, strided_span<R> d_token) {
    torch_executor on;
    cpu::spread<R>(d_sequence, targets, layout, d_token, {}, on);
  }
  static void shift_targets(const index_row& labels, const sequence_layout& layout,
                            strided_span<std::int32_t> targets) {
    torch_executor on;
    cpu::shift_targets(labels, layout, targets, on);
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
