// The C API on value estimates on a device.
#include "../values.hpp"

#include "context.hpp"
#include "denominators.hpp"
#include "launchers.hpp"

#include <prospect/cuda/value_checks.hpp>

namespace pk = prospect::kernels;

static_assert(sizeof(prospect::value_metrics) <= sizeof(prospect_device_metrics));

prospect_status prospect_value_loss_cuda(const prospect_values* values,
                                         prospect_device_metrics* metrics,
                                         const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect_values v = pk::versioned(values, "values");
    const prospect::clipped_value loss = pk::loss_of(v);
    const auto in = pk::batch_of(v);
    const auto out = pk::outputs_of(v);
    const auto by = pk::denominator_of(v.normaliser, v.count, v.count_at);
    pk::check(prospect::cuda::problem(loss, in, out, by));
    device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
      return pk::launch_values(loss, in, out, by,
                               reinterpret_cast<prospect::value_metrics*>(metrics), space, stream);
    });
  });
}
