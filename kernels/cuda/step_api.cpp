// The C API's whole step on a device.
#include "../step.hpp"
#include "context.hpp"
#include "launchers.hpp"

namespace pk = prospect::kernels;

namespace {

struct device_parts {
  using metrics = prospect_device_metrics;
  static constexpr std::size_t scratch_alignment = pk::device_context::scratch_alignment;
  static constexpr auto log_probs = prospect_token_log_probs_cuda;
  static constexpr auto sums = prospect_sequence_sums_cuda;
  static constexpr auto reduced_sums = prospect_reduced_sums_cuda;
  static constexpr auto pairs = prospect_pairs_cuda;
  static constexpr auto completions = prospect_completions_cuda;
  static constexpr auto spread = prospect_spread_cuda;
  static constexpr auto reduced_spread = prospect_reduced_spread_cuda;
  static constexpr auto gradient = prospect_logits_gradient_cuda;

  static void add_up(const pk::sides_of_pairs& sides, prospect::strided_span<double> d,
                     const prospect_context& on) {
    pk::device_context{&on}.run(
        [&](cudaStream_t stream) { return pk::launch_add_up(sides, d, stream); });
  }
};

}  // namespace

prospect_status prospect_step_cuda(const prospect_step* step, prospect_device_metrics* metrics,
                                   const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] { pk::step_of<device_parts>{step, metrics, context}.run(); });
}
