// The head path's memory of tensors on the CPU, and its products, which are Eigen's.
#pragma once

#include <prospect/adapters/torch/head.hpp>
#include <prospect/cpu/head.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters::detail {
inline namespace PROSPECT_CPU_ISA {

template <storage S>
struct head_memory<torch_cpu, S> : head_state {
  using R = compute_t<S>;

  cpu::head_workspace<R> workspace;
  cpu::head_ticket ticket{};

  explicit head_memory(const head_arguments& given)
      : head_state{given}, workspace{given.options.workspace_bytes} {}

  void log_probs(const head_tensors& in, const token_outputs<R>& out, bool keep) {
    torch_executor on;
    ticket = cpu::head_log_probs<S>(in.hidden_rows<S>(), in.head<S>(), in.target_row(), out,
                                    workspace, keep, in.options(options), cpu::eigen_gemm{}, on);
  }
  void log_probs_and_gradient(const head_tensors& in, const token_outputs<R>& out,
                              matrix_view<S> d_hidden) {
    torch_executor on;
    cpu::head_log_probs_and_gradient<S>(in.hidden_rows<S>(), in.head<S>(), in.target_row(), out,
                                        d_hidden, workspace, in.options(options), cpu::eigen_gemm{},
                                        on);
    release();
  }
  void gradient(const head_tensors& in, strided_span<const R> log_prob,
                strided_span<const double> lse, strided_span<const R> d_token,
                const head_gradients<S>& gradients) {
    torch_executor on;
    cpu::head_gradient<S>(in.hidden_rows<S>(), in.head<S>(), in.target_row(), log_prob, lse,
                          d_token, gradients, ticket, workspace, in.options(options),
                          cpu::eigen_gemm{}, on);
    release();
  }
  void release() { workspace = cpu::head_workspace<R>{options.workspace_bytes}; }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::adapters::detail
PROSPECT_STRICT_END
