// The C API between tokens and sequences: sums, coefficients spread over tokens, shifted labels.
#include "context.hpp"
#include "tokens.hpp"

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
