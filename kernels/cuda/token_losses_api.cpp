// The C API on losses of tokens on a device: arguments checked by name on the host, then the
// launcher.
#include "../token_losses.hpp"

#include "../losses.hpp"
#include "context.hpp"
#include "denominators.hpp"
#include "launchers.hpp"

#include <prospect/cuda/token_loss_checks.hpp>

namespace pk = prospect::kernels;

static_assert(sizeof(prospect::token_metrics) <= sizeof(prospect_device_metrics));

prospect_status prospect_token_losses_cuda(const prospect_loss* loss,
                                           const prospect_token_batch* batch,
                                           prospect_device_metrics* metrics,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect_token_batch b = pk::versioned(batch, "batch");
    pk::check_reserved("batch", b.reserved);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::token_loss<L>) {
        const prospect::token_batch in = pk::batch_of(b);
        const prospect::token_batch_outputs out = pk::outputs_of(b);
        const prospect::cuda::denominator by =
            pk::denominator_of(b.normaliser, b.count, b.count_at);
        pk::check(prospect::cuda::problem(l, in, out, by));
        device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
          auto* const to = reinterpret_cast<prospect::token_metrics*>(metrics);
          return prospect::detail::in_fp64(in)
                     ? pk::token_loss_launcher<double>::evaluate(l, in, out, by, to, space, stream)
                     : pk::token_loss_launcher<float>::evaluate(l, in, out, by, to, space, stream);
        });
      } else {
        pk::wrong_kind(l.name(), "a token");
      }
    });
  });
}
