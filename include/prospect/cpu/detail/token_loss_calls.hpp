// Calls of the pass over tokens, with the kernels of any instruction set: what is checked before
// any work, how tokens are counted, and what sums become. The API that picks the kernels is
// cpu/token_losses.hpp.
#pragma once

#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/detail/token_loss_loops.hpp>
#include <prospect/cpu/token_checks.hpp>

#include <cmath>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Sequences are divided by their number alone, and worth threads if they have rows enough.
inline pieces_of runs_of(const sequence_layout& layout, std::int64_t rows) {
  const std::int64_t n = layout.sequences();
  return {.rows = n, .size = n / pieces_of::most + 1, .alone = rows < pieces_of::worth_threads};
}

/// What a loss averages over, of so many.
inline double averaged_over(averaging average, double tokens, double sequences) {
  return average == averaging::tokens ? tokens : sequences;
}

/// How many of those the batch has: scored tokens, or sequences with any. Where these are is known
/// afterwards.
template <executor E>
double count_averaged(averaging average, const token_batch& in, known_runs& known, E& on) {
  const scored_rows scored{in.targets, in.mask};
  return in_pieces(runs_of(in.layout, in.policy.size()), on, [&](range sequences) {
    double seen = 0;
    for (std::int64_t i = 0; i < sequences.count; ++i) {
      const std::int64_t first = in.layout.begin(sequences.first + i);
      const std::int64_t last = in.layout.end(sequences.first + i);
      const scored_run found = scored.find(first, last);
      if (sequences.first + i < known_runs::most) known.of[sequences.first + i] = found;
      seen += average == averaging::tokens ? static_cast<double>(found.count)
              : found.count > 0            ? 1.0
                                           : 0.0;
    }
    return seen;
  });
}

inline void check_token_rows(const token_batch& in, const token_batch_outputs& out) {
  const std::int64_t n = in.policy.size();
  require_row("policy", in.policy, n);
  check_layout(in.layout, n);
  optional_row("old", in.old, n);
  optional_row("reference", in.reference, n);
  optional_row("advantage", in.advantage, in.layout.sequences());
  optional_row("token_advantage", in.token_advantage, n);
  if (!in.advantage.empty() && !in.token_advantage.empty()) {
    reject("token_advantage", "is given as well as advantage: which of them is meant?");
  }
  optional_row("weight", in.weight, n);
  optional_row("entropy", in.entropy, n);
  if (!prospect::detail::is_finite(in.entropy_coef)) reject("entropy_coef", "must be finite");
  if (in.entropy_coef != 0 && in.entropy.empty() && n > 0) {
    reject("entropy", "is missing, and entropy_coef is not 0");
  }
  if (!in.targets.empty() && in.targets.size() != n) wrong_size("targets", in.targets.size(), n);
  describes_memory("targets", in.targets.problem());
  check_mask(in.mask, n);
  output_row("loss", out.loss, n);
  output_row("d_policy", out.d_policy, n);
  output_row("d_entropy", out.d_entropy, n);
}

/// Refuses what the loss reads and nobody gave.
template <std::floating_point R, class Loss>
void check_what_is_read(const Loss& loss, const token_batch& in) {
  reference_rows<R>(loss, {{"reference", !in.reference.empty()}});
  require_if_read(
      {{"advantage", !in.advantage.empty() || !in.token_advantage.empty()}},
      [&] { return reads_advantage<R>(loss); },
      "is missing, and this loss reads it: give one for each sequence, or token_advantage");
}

inline token_metrics metrics_of(const token_sums& seen, averaging average, const token_batch& in,
                                double factor) {
  using sum = token_sum;
  const auto of = [&](int which, bool given) {
    return given ? sum_count{.sum = seen.sum[which], .count = seen.tokens} : sum_count{};
  };
  const bool advantages = !in.advantage.empty() || !in.token_advantage.empty();
  return {
      .loss = {.sum = seen.sum[sum::loss],
               .count = averaged_over(average, seen.tokens, seen.sequences)},
      .advantages = of(sum::advantages, advantages),
      .ratio = {.sum = in.old.empty() ? seen.tokens : seen.sum[sum::ratio], .count = seen.tokens},
      .clip_ratio = of(sum::clipped, advantages),
      .kl = of(sum::kl, !in.reference.empty()),
      .entropy = of(sum::entropy, !in.entropy.empty()),
      .tokens = {.sum = seen.tokens, .count = seen.sequences},
      .nonfinite = {.sum = seen.nonfinite, .count = seen.tokens},
      .first_nonfinite = seen.first_nonfinite,
      .total = factor * seen.sum[sum::loss]};
}

template <std::floating_point R, class Loss, executor E>
token_metrics evaluate_tokens(const token_kernels<R, Loss>& kernels, const Loss& loss,
                              const token_batch& in, const token_batch_outputs& out,
                              const normaliser& by, E& on) {
  const prospect::detail::default_float_mode mode;
  parameters(problem(loss));
  valid(by);
  check_token_rows(in, out);
  const std::int64_t n = in.policy.size();
  if (n == 0) return {};
  const std::int64_t sequences = in.layout.sequences();
  if (sequences > 0) check_what_is_read<R>(loss, in);
  const averaging average = loss.average;
  known_runs known;
  const double factor = by.factor(by.counts() ? count_averaged(average, in, known, on) : 0);
  const token_sums seen = in_pieces(runs_of(in.layout, n), on, [&](range piece) {
    return kernels.results(loss, in, out, factor, by.counts() ? &known : nullptr, piece);
  });
  zero_rows(out, in.layout.gap(sequences), n);
  token_metrics metrics = metrics_of(seen, average, in, factor);
  prospect::detail::settle(metrics);
  return metrics;
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
