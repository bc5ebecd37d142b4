// The C API's whole step on the host.
#include "step.hpp"

namespace pk = prospect::kernels;

namespace {

struct host_parts {
  using metrics = prospect_metrics;
  static constexpr std::size_t scratch_alignment = alignof(std::max_align_t);
  static constexpr auto log_probs = prospect_token_log_probs_cpu;
  static constexpr auto sums = prospect_sequence_sums_cpu;
  static constexpr auto reduced_sums = prospect_reduced_sums_cpu;
  static constexpr auto pairs = prospect_pairs_cpu;
  static constexpr auto completions = prospect_completions_cpu;
  static constexpr auto spread = prospect_spread_cpu;
  static constexpr auto reduced_spread = prospect_reduced_spread_cpu;
  static constexpr auto gradient = prospect_logits_gradient_cpu;

  /// d = 0, and in the order of the pairs what they say about their sequences.
  static void add_up(const pk::sides_of_pairs& sides, prospect::strided_span<double> d,
                     const prospect_context& on) {
    if (on.query != nullptr) return;
    for (std::int64_t s = 0; s < d.size(); ++s) d[s] = 0;
    for (std::int64_t i = 0; i < sides.which[0].size(); ++i) {
      for (std::size_t k = 0; k < 3; ++k) {
        if (i < sides.which[k].size()) d[sides.which[k][i]] += sides.d[k][i];
      }
    }
  }
};

}  // namespace

prospect_status prospect_step_cpu(const prospect_step* step, prospect_metrics* metrics,
                                  const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] { pk::step_of<host_parts>{step, metrics, context}.run(); });
}
