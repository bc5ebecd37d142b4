// The C API between tokens and sequences on a device.
#include "../tokens.hpp"
#include "context.hpp"
#include "launchers.hpp"

#include <prospect/cuda/token_checks.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_sequence_sums_cuda(const prospect_tokens* tokens,
                                            prospect_row token_log_prob, prospect_row log_prob,
                                            prospect_row counts, const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const prospect::sequence_layout layout = t.layout();
    const prospect::sequence_outputs out{.log_prob = pk::row<double>("log_prob", log_prob),
                                         .tokens = pk::row<std::int32_t>("counts", counts)};
    pk::with_arithmetic("token_log_prob", token_log_prob.dtype, [&]<class R>(R) {
      const auto p = pk::row<const R>("token_log_prob", token_log_prob);
      pk::check(prospect::cuda::problem(p, t.targets, layout, out, t.options.mask));
      device.run([&](cudaStream_t stream) {
        return pk::layout_launchers<R>::sums(p, t.targets, layout, out, t.options.mask, stream);
      });
    });
  });
}

prospect_status prospect_spread_cuda(const prospect_tokens* tokens, prospect_row d_sequence,
                                     prospect_row d_token, const prospect_context* context,
                                     prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const prospect::sequence_layout layout = t.layout();
    const auto d = pk::real_row<prospect::const_any_row>("d_sequence", d_sequence);
    pk::with_arithmetic("d_token", d_token.dtype, [&]<class R>(R) {
      const auto to = pk::row<R>("d_token", d_token);
      pk::check(prospect::cuda::problem(d, t.targets, layout, to, t.options.mask));
      device.run([&](cudaStream_t stream) {
        return pk::layout_launchers<R>::spread(d, t.targets, layout, to, t.options.mask, stream);
      });
    });
  });
}

prospect_status prospect_reduced_sums_cuda(const prospect_tokens* tokens,
                                           const prospect_token_reducer* reducer,
                                           prospect_row log_prob, prospect_row counts,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const prospect::token_reducer by = pk::reducer_of(reducer);
    const prospect::sequence_layout layout = t.layout();
    const prospect::sequence_outputs out{.log_prob = pk::row<double>("log_prob (sums)", log_prob),
                                         .tokens = pk::row<std::int32_t>("counts", counts)};
    pk::check(prospect::cuda::problem(by, t.targets, layout, out, t.options.mask));
    device.run([&](cudaStream_t stream) {
      return pk::launch_reduced_sums(by, t.targets, layout, out, t.options.mask, stream);
    });
  });
}

prospect_status prospect_reduced_spread_cuda(const prospect_tokens* tokens,
                                             const prospect_token_reducer* reducer,
                                             prospect_row d_sequence, prospect_row d_token,
                                             const prospect_context* context,
                                             prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const prospect::token_reducer by = pk::reducer_of(reducer);
    const prospect::sequence_layout layout = t.layout();
    const auto d = pk::real_row<prospect::const_any_row>("d_sequence", d_sequence);
    const auto to = pk::real_row<prospect::any_row>("d_token", d_token);
    pk::check(prospect::cuda::problem(by, d, t.targets, layout, to, t.options.mask));
    device.run([&](cudaStream_t stream) {
      return pk::launch_reduced_spread(by, d, t.targets, layout, to, t.options.mask, stream);
    });
  });
}

prospect_status prospect_public_tokens_cuda(prospect_row counts, prospect_row chosen,
                                            prospect_row rejected, prospect_row public_tokens,
                                            const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const auto from = pk::row<const std::int32_t>("counts", counts);
    const prospect::sequence_pairs pairs = pk::pairs_of(chosen, rejected);
    const auto to = pk::row<std::int32_t>("public_tokens", public_tokens);
    pk::check(prospect::cuda::problem(from, pairs, to));
    device.run(
        [&](cudaStream_t stream) { return pk::launch_public_tokens(from, pairs, to, stream); });
  });
}

prospect_status prospect_wpo_weights_cuda(const prospect_tokens* tokens,
                                          prospect_row token_log_prob, prospect_row sum_squares,
                                          prospect_row weight, const prospect_context* context,
                                          prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const pk::tokens_of t{tokens};
    const prospect::sequence_layout layout = t.layout();
    const auto p = pk::real_row<prospect::const_any_row>("token_log_prob", token_log_prob);
    const auto squares = pk::real_row<prospect::const_any_row>("sum_squares", sum_squares);
    const auto to = pk::real_row<prospect::any_row>("weight", weight);
    pk::check(prospect::cuda::problem(p, squares, t.targets, layout, to, t.options.mask));
    device.run([&](cudaStream_t stream) {
      return pk::launch_wpo_weights(p, squares, t.targets, layout, to, t.options.mask, stream);
    });
  });
}

prospect_status prospect_pair_weights_cuda(prospect_row weight, prospect_row chosen,
                                           prospect_row rejected, prospect_row pair_weight,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const auto from = pk::real_row<prospect::const_any_row>("weight", weight);
    const prospect::sequence_pairs pairs = pk::pairs_of(chosen, rejected);
    const auto to = pk::real_row<prospect::any_row>("pair_weight", pair_weight);
    pk::check(prospect::cuda::problem(from, pairs, to));
    device.run(
        [&](cudaStream_t stream) { return pk::launch_pair_weights(from, pairs, to, stream); });
  });
}

prospect_status prospect_shift_targets_cuda(prospect_row labels, const prospect_layout* layout,
                                            prospect_row targets, const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect::index_row from = pk::indices("labels", labels);
    const prospect::sequence_layout where = pk::layout_of(layout);
    const auto to = pk::row<std::int32_t>("targets", targets);
    pk::check(prospect::cuda::problem(from, where, to));
    device.run(
        [&](cudaStream_t stream) { return pk::launch_shift_targets(from, where, to, stream); });
  });
}
