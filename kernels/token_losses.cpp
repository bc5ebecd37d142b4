// The C API on losses of tokens: rows of every dtype, in fp32 or fp64.
#include "token_losses.hpp"

#include "context.hpp"
#include "loops.hpp"
#include "losses.hpp"
#include "metrics.hpp"

#include <prospect/cpu/token_losses.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_token_losses_cpu(const prospect_loss* loss,
                                          const prospect_token_batch* batch,
                                          prospect_metrics* metrics,
                                          const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect_token_batch b = pk::versioned(batch, "batch");
    pk::check_reserved("batch", b.reserved);
    pk::check_metrics(metrics);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::token_loss<L>) {
        if (host.asked()) return;
        const prospect::token_batch in = pk::batch_of(b);
        const prospect::token_batch_outputs out = pk::outputs_of(b);
        const prospect::normaliser by = pk::normaliser_of(b.normaliser, b.count, b.count_at);
        const auto evaluated = [&]<class R>(R) {
          return prospect::cpu::detail::evaluate_tokens(pk::loops<R, L>(), l, in, out, by, host.on);
        };
        pk::fill(metrics, prospect::detail::in_fp64(in) ? evaluated(double{}) : evaluated(float{}));
      } else {
        pk::wrong_kind(l.name(), "a token");
      }
    });
  });
}
