// The C API on tokens on a device: arguments checked by name on the host, then the launchers.
#include "../tokens.hpp"
#include "context.hpp"
#include "launchers.hpp"

#include <prospect/cuda/token_checks.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_token_log_probs_cuda(prospect_matrix logits, const prospect_tokens* tokens,
                                              const prospect_token_results* results,
                                              const prospect_context* context,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const auto out = pk::outputs_of<float>(results);
    pk::with_device_storage("logits", logits.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>("logits", logits);
      pk::check(prospect::cuda::problem(x, t.targets, out, t.options));
      device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::token_launchers<S>::log_probs(x, t.targets, out, t.options, space, stream);
      });
    });
  });
}

prospect_status prospect_token_log_probs_and_gradient_cuda(prospect_matrix logits,
                                                           const prospect_tokens* tokens,
                                                           const prospect_token_results* results,
                                                           const prospect_context* context,
                                                           prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const auto out = pk::outputs_of<float>(results);
    pk::with_device_storage("logits", logits.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<S>("logits", logits);
      pk::check(prospect::cuda::problem(x, t.targets, out, t.options));
      device.run([&](cudaStream_t stream) {
        return pk::token_launchers<S>::log_probs_and_gradient(x, x, t.targets, out, t.options,
                                                              stream);
      });
    });
  });
}

prospect_status prospect_logits_gradient_cuda(prospect_matrix logits, prospect_matrix gradient,
                                              const prospect_tokens* tokens,
                                              const prospect_token_coefficients* coefficients,
                                              const prospect_context* context,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const pk::coefficients_of<float> c{coefficients};
    pk::with_device_storage("logits", logits.dtype, [&]<class S>(S) {
      const auto from = pk::matrix<const S>("logits", logits);
      const auto to = pk::gradient_matrix<S>(logits, gradient);
      pk::check(c.one ? prospect::cuda::problem(from, to, t.targets, c.log_prob, c.lse, c.d_token,
                                                t.options)
                      : prospect::cuda::problem(from, to, t.targets, c.log_prob, c.lse, c.rows,
                                                t.options));
      device.run([&](cudaStream_t stream) {
        return c.one ? pk::token_launchers<S>::gradient(from, to, t.targets, c.log_prob, c.lse,
                                                        c.d_token, t.options, stream)
                     : pk::token_launchers<S>::gradient_of_two(from, to, t.targets, c.log_prob,
                                                               c.lse, c.rows, t.options, stream);
      });
    });
  });
}

prospect_status prospect_scale_rows_cuda(prospect_matrix matrix, prospect_row factors,
                                         const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const auto f = pk::row<const float>("factors", factors);
    pk::with_device_storage("matrix", matrix.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<S>("matrix", matrix);
      pk::check(prospect::cuda::problem(x, f));
      device.run(
          [&](cudaStream_t stream) { return pk::token_launchers<S>::scale_rows(x, f, stream); });
    });
  });
}

prospect_status prospect_vocabulary_partials_cuda(prospect_matrix logits,
                                                  const prospect_tokens* tokens, int32_t statistics,
                                                  prospect_partial* partials,
                                                  const prospect_context* context,
                                                  prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    pk::with_device_storage("logits", logits.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>("logits", logits);
      const auto out = pk::partials_row(partials, x.rows);
      pk::check(prospect::cuda::problem(x, t.targets, out, t.options));
      device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::token_launchers<S>::partials(x, t.targets, out, t.options, statistics != 0,
                                                space, stream);
      });
    });
  });
}

prospect_status prospect_combine_partials_cuda(const prospect_partial* partials, int64_t parts,
                                               const prospect_tokens* tokens,
                                               const prospect_token_results* results,
                                               const prospect_context* context,
                                               prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const auto out = pk::outputs_of<float>(results);
    const auto all = pk::gathered(partials, parts, t.targets.size());
    pk::check(prospect::cuda::problem(all, t.targets, out, t.options.mask));
    device.run([&](cudaStream_t stream) {
      return pk::launch_combine(all, t.targets, out, t.options.mask, stream);
    });
  });
}
