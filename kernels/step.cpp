// The C API's whole step on the host.
#include "step.hpp"

namespace pk = prospect::kernels;

namespace {

struct host_parts {
  using metrics = prospect_metrics;
  static constexpr std::size_t scratch_alignment = alignof(std::max_align_t);
  static constexpr auto log_probs = prospect_token_log_probs_cpu;
  static constexpr auto sums = prospect_sequence_sums_cpu;
  static constexpr auto pairs = prospect_pairs_cpu;
  static constexpr auto completions = prospect_completions_cpu;
  static constexpr auto spread = prospect_spread_cpu;
  static constexpr auto gradient = prospect_logits_gradient_cpu;

  /// d = 0, and in the order of the pairs what they say about their sequences.
  static void add_up(const prospect_row& chosen, const prospect_row& rejected,
                     const prospect_row& d_chosen, const prospect_row& d_rejected,
                     const prospect_row& d, const prospect_context& on) {
    if (on.query != nullptr) return;
    const auto to = pk::row<double>("d_sequence", d);
    for (std::int64_t s = 0; s < to.size(); ++s) to[s] = 0;
    const prospect::index_row c = pk::indices("chosen", chosen);
    const prospect::index_row r = pk::indices("rejected", rejected);
    const auto dc = pk::row<const double>("d_policy_chosen", d_chosen);
    const auto dr = pk::row<const double>("d_policy_rejected", d_rejected);
    for (std::int64_t i = 0; i < c.size(); ++i) {
      to[c[i]] += dc[i];
      to[r[i]] += dr[i];
    }
  }
};

}  // namespace

prospect_status prospect_step_cpu(const prospect_step* step, prospect_metrics* metrics,
                                  const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] { pk::step_of<host_parts>{step, metrics, context}.run(); });
}
