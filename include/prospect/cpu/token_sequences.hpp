// From tokens to sequences and back on the CPU: sums of log-probabilities, coefficients spread over
// tokens, and labels aligned with the rows that predict them.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/cpu/token_checks.hpp>
#include <prospect/executor.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

inline scored_targets check_sequences(const index_row& targets, const mask_row& mask,
                                      const sequence_layout& layout) {
  describes_memory("targets", targets.problem());
  check_mask(mask, targets.size());
  check_layout(layout, targets.size());
  return {targets, mask};
}

/// Tokens are counted in 32 bits.
inline void check_lengths(const sequence_layout& layout, std::int64_t rows) {
  constexpr std::int64_t most = (std::numeric_limits<std::int32_t>::max)();
  if (rows <= most) return;
  for (std::int64_t i = 0; i < layout.sequences(); ++i) {
    if (layout.end(i) - layout.begin(i) > most) {
      reject("tokens", "cannot count more than 2^31 - 1 of them: sequence " + std::to_string(i) +
                           " is longer");
    }
  }
}

/// Calls body(first, last) for runs of n sequences that are long enough to be worth a thread's
/// while, as many as so many rows make.
template <executor E, class Body>
void for_each_run(std::int64_t n, std::int64_t rows, E& on, const Body& body) {
  constexpr std::int64_t rows_per_run = 1 << 14;
  constexpr std::int64_t most_runs = 256;
  n = (std::min)(n, prospect::detail::most_bytes);  // never reached, and so a compiler knows it
  const std::int64_t runs = (std::min)({rows / rows_per_run, n, most_runs});
  if (runs < 2) return body(0, n);
  on.run(runs, [&](std::int64_t i) { body(n * i / runs, n * (i + 1) / runs); });
}

/// Calls outside(first, last) for rows that belong to no sequence, and inside(first, last, i) for
/// those of sequence i.
template <executor E, class Outside, class Inside>
void for_each_sequence(const sequence_layout& layout, std::int64_t rows, E& on,
                       const Outside& outside, const Inside& inside) {
  if (rows == 0) return;  // however many sequences share them
  for_each_run(layout.sequences(), rows, on, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      outside(layout.gap(i), layout.begin(i));
      inside(layout.begin(i), layout.end(i), i);
    }
  });
  outside(layout.gap(layout.sequences()), rows);
}

/// Calls body(targets) with what costs least: most batches have no mask.
template <class Body>
void with_targets(const scored_targets& scored, const Body& body) {
  scored.mask.empty() ? body(scored.targets) : body(scored);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Sums token log-probabilities over the scored tokens of each sequence, in fp64.
///
/// Tokens with target -100 or mask 0 are skipped, whatever their log-probability. A sequence
/// without scored tokens sums to 0 and counts 0 tokens.
/// @throws std::invalid_argument for sizes that differ, a layout that does not fit the rows, or a
///         sequence of more than 2^31 - 1 rows whose tokens are to be counted.
template <std::floating_point R, executor E = thread_pool>
void sequence_sums(strided_span<const std::type_identity_t<R>> log_prob, index_row targets,
                   const sequence_layout& layout, const sequence_outputs& out, mask_row mask = {},
                   E& on = thread_pool::shared()) {
  detail::require_row("log_prob", log_prob, targets.size());
  const auto scored = detail::check_sequences(targets, mask, layout);
  detail::output_row("log_prob (sums)", out.log_prob, layout.sequences());
  detail::output_row("tokens", out.tokens, layout.sequences());
  if (!out.tokens.empty()) detail::check_lengths(layout, targets.size());
  if (out.log_prob.empty() && out.tokens.empty()) return;
  const prospect::detail::default_float_mode mode;
  detail::with_targets(scored, [&](const auto& scored_by) {
    const auto sum_up = [&](std::int64_t i) {
      const std::int64_t end = layout.end(i);
      double sum = 0;
      std::int32_t tokens = 0;
      for (std::int64_t t = layout.begin(i); t < end; ++t) {
        if (scored_by[t] == ignored_target) continue;
        sum += log_prob[t];
        ++tokens;
      }
      if (!out.log_prob.empty()) out.log_prob[i] = sum;
      if (!out.tokens.empty()) out.tokens[i] = tokens;
    };
    detail::for_each_run(layout.sequences(), targets.size(), on,
                         [&](std::int64_t first, std::int64_t last) {
                           for (std::int64_t i = first; i < last; ++i) sum_up(i);
                         });
  });
}

/// Gives every scored token its sequence's coefficient dL/dP, and 0 to the others, those of no
/// sequence included: the reverse of `sequence_sums`. Coefficients may be of any storage type.
/// @throws std::invalid_argument for sizes that differ or a layout that does not fit the rows.
template <std::floating_point R, executor E = thread_pool>
void spread(const const_any_row& d_sequence, index_row targets, const sequence_layout& layout,
            strided_span<std::type_identity_t<R>> d_token, mask_row mask = {},
            E& on = thread_pool::shared()) {
  const auto scored = detail::check_sequences(targets, mask, layout);
  detail::require_row("d_sequence", d_sequence, layout.sequences());
  detail::require_row("d_token", d_token, targets.size());
  detail::output_row("d_token", d_token, targets.size());
  const prospect::detail::default_float_mode mode;
  detail::with_targets(scored, [&](const auto& scored_by) {
    detail::for_each_sequence(
        layout, targets.size(), on,
        [&](std::int64_t first, std::int64_t last) {
          for (std::int64_t t = first; t < last; ++t) d_token[t] = R(0);
        },
        [&](std::int64_t first, std::int64_t last, std::int64_t i) {
          const R d = d_sequence.get<R>(i);
          for (std::int64_t t = first; t < last; ++t) {
            d_token[t] = scored_by[t] == ignored_target ? R(0) : d;
          }
        });
  });
}

/// Aligns label rows in the Hugging Face manner (the label of position t stands at t) with logits
/// rows, whose row t predicts position t + 1: targets[t] = labels[t + 1] inside each sequence, and
/// -100 at its last row and at rows of no sequence.
/// @throws std::invalid_argument for sizes that differ, a layout that does not fit the rows, or a
///         label that is neither -100 nor an int32 token id.
template <executor E = thread_pool>
void shift_targets(index_row labels, const sequence_layout& layout,
                   strided_span<std::int32_t> targets, E& on = thread_pool::shared()) {
  detail::describes_memory("labels", labels.problem());
  detail::check_layout(layout, labels.size());
  detail::require_row("targets", targets, labels.size());
  detail::output_row("targets", targets, labels.size());
  constexpr std::int64_t end = std::int64_t{(std::numeric_limits<std::int32_t>::max)()} + 1;
  detail::check_indices("labels", labels, end);
  constexpr auto ignored = static_cast<std::int32_t>(ignored_target);
  detail::for_each_sequence(
      layout, labels.size(), on,
      [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t t = first; t < last; ++t) targets[t] = ignored;
      },
      [&](std::int64_t first, std::int64_t last, std::int64_t) {
        for (std::int64_t t = first; t + 1 < last; ++t) {
          targets[t] = static_cast<std::int32_t>(labels[t + 1]);
        }
        if (first < last) targets[last - 1] = ignored;
      });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
