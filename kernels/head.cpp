// The head path for the instruction set this file is compiled for; PROSPECT_HEAD names it.
#include "head.hpp"

#include <prospect/cpu/head.hpp>

namespace prospect::kernels {

namespace {

using cpu::eigen_gemm;

template <storage S>
cpu::head_ticket log_probs(const head_call<S>& c, const token_outputs<compute_t<S>>& out,
                           bool keep_gradients) {
  return cpu::head_log_probs<S>(c.hidden, c.head, c.targets, out, c.workspace, keep_gradients,
                                c.options, eigen_gemm{}, c.on);
}

template <storage S>
void log_probs_and_gradient(const head_call<S>& c, const token_outputs<compute_t<S>>& out,
                            matrix_view<S> d_hidden) {
  cpu::head_log_probs_and_gradient<S>(c.hidden, c.head, c.targets, out, d_hidden, c.workspace,
                                      c.options, eigen_gemm{}, c.on);
}

template <storage S>
void gradient(const head_call<S>& c, strided_span<const compute_t<S>> log_prob,
              strided_span<const double> lse, const head_coefficients<S>& by,
              const head_gradients<S>& gradients, const cpu::head_ticket& ticket) {
  const auto run = [&](const auto& coefficients) {
    cpu::head_gradient<S>(c.hidden, c.head, c.targets, log_prob, lse, coefficients, gradients,
                          ticket, c.workspace, c.options, eigen_gemm{}, c.on);
  };
  by.one ? run(by.d_token) : run(by.rows);
}

template <storage S>
void step(const head_call<S>& c, const head_sequences& sequences,
          const token_outputs<compute_t<S>>& out, const head_coefficients<S>& by,
          const head_gradients<S>& gradients) {
  const auto ready = [&](std::int64_t first, std::int64_t last) {
    sequences.ready(sequences.context, first, last);
  };
  const auto run = [&](const auto& coefficients) {
    cpu::head_step<S>(c.hidden, c.head, c.targets, sequences.layout, sequences.group, out, ready,
                      coefficients, gradients, c.workspace, c.options, eigen_gemm{}, c.on);
  };
  by.one ? run(by.d_token) : run(by.rows);
}

}  // namespace

template <storage S>
head_functions<S> PROSPECT_HEAD() {
  return {.log_probs = log_probs<S>,
          .log_probs_and_gradient = log_probs_and_gradient<S>,
          .gradient = gradient<S>,
          .step = step<S>};
}

template head_functions<float> PROSPECT_HEAD<float>();
template head_functions<double> PROSPECT_HEAD<double>();
template head_functions<bfloat16> PROSPECT_HEAD<bfloat16>();
template head_functions<float16> PROSPECT_HEAD<float16>();

}  // namespace prospect::kernels
