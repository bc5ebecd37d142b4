// The C API between tokens and sequences: sums, coefficients spread over tokens, both by a reducer
// too, weights that follow from tokens, shifted labels.
#include "context.hpp"
#include "tokens.hpp"

#include <prospect/cpu/token_reducers.hpp>
#include <prospect/cpu/tokens.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_sequence_sums_cpu(const prospect_tokens* tokens,
                                           prospect_row token_log_prob, prospect_row log_prob,
                                           prospect_row counts, const prospect_context* context,
                                           prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_arithmetic("token_log_prob", token_log_prob.dtype, [&]<class R>(R) {
      prospect::cpu::sequence_sums<R>(pk::row<const R>("token_log_prob", token_log_prob), t.targets,
                                      t.layout(),
                                      {.log_prob = pk::row<double>("log_prob", log_prob),
                                       .tokens = pk::row<std::int32_t>("counts", counts)},
                                      t.options.mask, host.on);
    });
  });
}

prospect_status prospect_spread_cpu(const prospect_tokens* tokens, prospect_row d_sequence,
                                    prospect_row d_token, const prospect_context* context,
                                    prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    pk::with_arithmetic("d_token", d_token.dtype, [&]<class R>(R) {
      prospect::cpu::spread<R>(pk::real_row<prospect::const_any_row>("d_sequence", d_sequence),
                               t.targets, t.layout(), pk::row<R>("d_token", d_token),
                               t.options.mask, host.on);
    });
  });
}

prospect_status prospect_reduced_sums_cpu(const prospect_tokens* tokens,
                                          const prospect_token_reducer* reducer,
                                          prospect_row log_prob, prospect_row counts,
                                          const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    const prospect::token_reducer by = pk::reducer_of(reducer);
    if (host.asked()) return;
    prospect::cpu::sequence_sums(by, t.targets, t.layout(),
                                 {.log_prob = pk::row<double>("log_prob (sums)", log_prob),
                                  .tokens = pk::row<std::int32_t>("counts", counts)},
                                 t.options.mask, host.on);
  });
}

prospect_status prospect_reduced_spread_cpu(const prospect_tokens* tokens,
                                            const prospect_token_reducer* reducer,
                                            prospect_row d_sequence, prospect_row d_token,
                                            const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    const prospect::token_reducer by = pk::reducer_of(reducer);
    if (host.asked()) return;
    prospect::cpu::spread(
        by, pk::real_row<prospect::const_any_row>("d_sequence", d_sequence), t.targets, t.layout(),
        pk::real_row<prospect::any_row>("d_token", d_token), t.options.mask, host.on);
  });
}

prospect_status prospect_public_tokens_cpu(prospect_row counts, prospect_row chosen,
                                           prospect_row rejected, prospect_row public_tokens,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    if (host.asked()) return;
    prospect::cpu::public_tokens(pk::row<const std::int32_t>("counts", counts),
                                 pk::pairs_of(chosen, rejected),
                                 pk::row<std::int32_t>("public_tokens", public_tokens));
  });
}

prospect_status prospect_wpo_weights_cpu(const prospect_tokens* tokens, prospect_row token_log_prob,
                                         prospect_row sum_squares, prospect_row weight,
                                         const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const pk::tokens_of t{tokens};
    if (host.asked()) return;
    prospect::cpu::wpo_weights(
        pk::real_row<prospect::const_any_row>("token_log_prob", token_log_prob),
        pk::real_row<prospect::const_any_row>("sum_squares", sum_squares), t.targets, t.layout(),
        pk::real_row<prospect::any_row>("weight", weight), t.options.mask, host.on);
  });
}

prospect_status prospect_pair_weights_cpu(prospect_row weight, prospect_row chosen,
                                          prospect_row rejected, prospect_row pair_weight,
                                          const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    if (host.asked()) return;
    prospect::cpu::pair_weights(pk::real_row<prospect::const_any_row>("weight", weight),
                                pk::pairs_of(chosen, rejected),
                                pk::real_row<prospect::any_row>("pair_weight", pair_weight));
  });
}

prospect_status prospect_shift_targets_cpu(prospect_row labels, const prospect_layout* layout,
                                           prospect_row targets, const prospect_context* context,
                                           prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    if (host.asked()) return;
    prospect::cpu::shift_targets(pk::indices("labels", labels), pk::layout_of(layout),
                                 pk::row<std::int32_t>("targets", targets), host.on);
  });
}
