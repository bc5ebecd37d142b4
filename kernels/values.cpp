// The C API on value estimates.
#include "values.hpp"

#include "context.hpp"
#include "metrics.hpp"

#include <prospect/cpu/values.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_value_loss_cpu(const prospect_values* values, prospect_metrics* metrics,
                                        const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect_values v = pk::versioned(values, "values");
    pk::check_metrics(metrics);
    const prospect::clipped_value loss = pk::loss_of(v);
    const prospect::normaliser by = pk::normaliser_of(v.normaliser, v.count, v.count_at);
    if (host.asked()) return;
    pk::fill(metrics,
             prospect::cpu::evaluate(loss, pk::batch_of(v), pk::outputs_of(v), by, host.on));
  });
}
