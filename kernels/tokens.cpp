// The C API on tokens: logits, log-probabilities, and the way back.
#include "tokens.hpp"

#include "context.hpp"
#include "rows.hpp"

#include <prospect/cpu/tokens.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_token_log_probs_cpu(prospect_matrix logits, const prospect_tokens* tokens,
                                             const prospect_token_results* results,
                                             const prospect_context* context,
                                             prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_storage("logits", logits.dtype, [&]<class S>(S) {
      prospect::cpu::detail::token_log_probs<S>(
          pk::rows<S>(), pk::matrix<const S>("logits", logits), t.targets,
          pk::outputs_of<prospect::compute_t<S>>(results), t.options, host.on);
    });
  });
}

prospect_status prospect_token_log_probs_and_gradient_cpu(prospect_matrix logits,
                                                          const prospect_tokens* tokens,
                                                          const prospect_token_results* results,
                                                          const prospect_context* context,
                                                          prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_storage("logits", logits.dtype, [&]<class S>(S) {
      prospect::cpu::detail::token_log_probs_and_gradient<S>(
          pk::rows<S>(), pk::matrix<S>("logits", logits), t.targets,
          pk::outputs_of<prospect::compute_t<S>>(results), t.options, host.on);
    });
  });
}

prospect_status prospect_logits_gradient_cpu(prospect_matrix logits, prospect_matrix gradient,
                                             const prospect_tokens* tokens,
                                             const prospect_token_coefficients* coefficients,
                                             const prospect_context* context,
                                             prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_storage("logits", logits.dtype, [&]<class S>(S) {
      using R = prospect::compute_t<S>;
      const auto from = pk::matrix<const S>("logits", logits);
      const auto to = pk::gradient_matrix<S>(logits, gradient);
      const pk::coefficients_of<R> c{coefficients};
      if (c.one) {
        prospect::cpu::detail::require_row("d_token", c.d_token, from.rows);
      } else {
        prospect::cpu::detail::check_coefficients(c.rows, from.rows);
      }
      prospect::cpu::detail::logits_gradient<S>(
          pk::rows<S>(), from, to, t.targets, c.log_prob, c.lse,
          c.one ? prospect::detail::loss_coefficients(c.d_token)
                : prospect::detail::coefficient_rows<R>{.rows = c.rows},
          t.options, host.on);
    });
  });
}

prospect_status prospect_scale_rows_cpu(prospect_matrix matrix, prospect_row factors,
                                        const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    if (host.asked()) return;
    pk::with_storage("matrix", matrix.dtype, [&]<class S>(S) {
      prospect::cpu::scale_rows<S>(pk::matrix<S>("matrix", matrix),
                                   pk::row<const prospect::compute_t<S>>("factors", factors),
                                   host.on);
    });
  });
}

prospect_status prospect_vocabulary_partials_cpu(prospect_matrix logits,
                                                 const prospect_tokens* tokens, int32_t statistics,
                                                 prospect_partial* partials,
                                                 const prospect_context* context,
                                                 prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_storage("logits", logits.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>("logits", logits);
      prospect::cpu::detail::vocabulary_partials<S>(pk::rows<S>(), x, t.targets,
                                                    pk::partials_row(partials, x.rows), t.options,
                                                    statistics != 0, host.on);
    });
  });
}

prospect_status prospect_combine_partials_cpu(const prospect_partial* partials, int64_t parts,
                                              const prospect_tokens* tokens,
                                              const prospect_token_results* results,
                                              const prospect_context* context,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_results(results, [&]<class R>(R) {
      prospect::cpu::token_log_probs<R>(pk::gathered(partials, parts, t.targets.size()), t.targets,
                                        pk::outputs_of<R>(results), t.options.mask, host.on);
    });
  });
}
