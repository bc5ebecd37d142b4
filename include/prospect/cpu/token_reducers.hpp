// Sums over tokens and the way back by a reducer (LD-DPO, humanline), the lengths that pairs have
// in common, and weights that follow from token log-probs (WPO), on the CPU.
#pragma once

#include <prospect/cpu/token_sequences.hpp>
#include <prospect/token_reducer.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

inline scored_targets check_reducer(const token_reducer& by, const index_row& targets,
                                    const mask_row& mask, const sequence_layout& layout) {
  require_row("log_prob", by.log_prob, targets.size());
  parameters(prospect::detail::problem(by));
  optional_row("reference", by.reference, targets.size());
  const scored_targets scored = check_sequences(targets, mask, layout);
  token_counts("public_tokens", by.public_tokens, layout.sequences());
  return scored;
}

/// Pairs of sequences that there are.
inline void check_pairs(const sequence_pairs& pairs, std::int64_t n) {
  parameters(pairs.problem(n));
  const auto check = [&](std::string_view name, std::int64_t i, std::int64_t sequence) {
    if (sequence >= 0 && sequence < n) return;
    reject(place_in(name, i), "= " + std::to_string(sequence) + " names none of the " +
                                  std::to_string(n) + " sequences");
  };
  for (std::int64_t i = 0; i < pairs.size(n); ++i) {
    check("chosen", i, pairs.chosen(i));
    check("rejected", i, pairs.rejected(i, n));
  }
}

/// Calls body(t, rank) for every scored token of sequence i, with the number of those in front.
template <class Body>
void for_each_scored(const scored_targets& scored, const sequence_layout& layout, std::int64_t i,
                     const Body& body) {
  const std::int64_t end = layout.end(i);
  std::int64_t rank = 0;
  for (std::int64_t t = layout.begin(i); t < end; ++t) {
    if (scored[t] != ignored_target) body(t, rank++);
  }
}

/// Calls body(i) for each sequence.
template <executor E, class Body>
void for_each_reduced(const sequence_layout& layout, std::int64_t rows, E& on, const Body& body) {
  for_each_run(layout.sequences(), rows, on, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) body(i);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Reduces the scored tokens of each sequence as `by` says, in fp64 and in their order. Tokens with
/// target -100 or mask 0 are skipped, whatever they hold. A sequence without scored tokens sums to
/// 0 and counts 0.
/// @throws std::invalid_argument for sizes that differ, a layout that does not fit the rows, a
///         negative number of `public_tokens`, an `ld_alpha` outside [0, 1], bounds that are none
///         or that stand without a reference, or a sequence of more than 2^31 - 1 rows whose tokens
///         are to be counted.
template <executor E = thread_pool>
void sequence_sums(const token_reducer& by, index_row targets, const sequence_layout& layout,
                   const sequence_outputs& out, mask_row mask = {}, E& on = thread_pool::shared()) {
  const auto scored = detail::check_reducer(by, targets, mask, layout);
  detail::output_row("log_prob (sums)", out.log_prob, layout.sequences());
  detail::output_row("tokens", out.tokens, layout.sequences());
  if (!out.tokens.empty()) detail::check_lengths(layout, targets.size());
  if (out.log_prob.empty() && out.tokens.empty()) return;
  const prospect::detail::default_float_mode mode;
  detail::for_each_reduced(layout, targets.size(), on, [&](std::int64_t i) {
    double sum = 0;
    std::int32_t tokens = 0;
    std::int64_t scored_tokens = 0;
    detail::for_each_scored(scored, layout, i, [&](std::int64_t t, std::int64_t rank) {
      const double x = by.term(t);
      const double w = by.weight(i, rank);
      if (w > 0) sum += w * x;
      if (!by.count_nonzero || x != 0) ++tokens;
      scored_tokens = rank + 1;
    });
    if (!out.log_prob.empty()) out.log_prob[i] = sum;
    if (!out.tokens.empty()) out.tokens[i] = scored_tokens > 0 ? (std::max)(tokens, 1) : 0;
  });
}

/// The reverse of it by the same reducer: gives every scored token dL/dS of its sequence times the
/// token's weight, 0 where a clamp holds the token, and 0 to rows that are not scored, those of no
/// sequence included.
/// @throws std::invalid_argument as `sequence_sums` does.
template <executor E = thread_pool>
void spread(const token_reducer& by, const const_any_row& d_sequence, index_row targets,
            const sequence_layout& layout, any_row d_token, mask_row mask = {},
            E& on = thread_pool::shared()) {
  const auto scored = detail::check_reducer(by, targets, mask, layout);
  detail::require_row("d_sequence", d_sequence, layout.sequences());
  detail::require_row("d_token", d_token, targets.size());
  detail::output_row("d_token", d_token, targets.size());
  const prospect::detail::default_float_mode mode;
  const auto clear = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) d_token.put(t, 0.0);
  };
  detail::for_each_sequence(layout, targets.size(), on, clear,
                            [&](std::int64_t first, std::int64_t last, std::int64_t i) {
                              clear(first, last);
                              const auto d = d_sequence.get<double>(i);
                              detail::for_each_scored(scored, layout, i,
                                                      [&](std::int64_t t, std::int64_t rank) {
                                                        const double w = by.weight(i, rank);
                                                        if (w > 0 && by.passes(t))
                                                          d_token.put(t, w * d);
                                                      });
                            });
}

/// The public length of LD-DPO: for each sequence that is in a pair the smaller of the two token
/// counts of the pair, for the others their own count.
/// @param tokens the number of scored tokens of each sequence, as `sequence_sums` writes it.
/// @throws std::invalid_argument for sizes that differ, an index that names no sequence, or a
///         sequence that is in more than one pair, and so has more than one such length: lay it out
///         once for each.
inline void public_tokens(strided_span<const std::int32_t> tokens, const sequence_pairs& pairs,
                          strided_span<std::int32_t> out) {
  const std::int64_t n = tokens.size();
  detail::describes_memory("tokens", prospect::detail::view_problem(tokens));
  detail::require_row("public_tokens", out, n);
  detail::output_row("public_tokens", out, n);
  detail::check_pairs(pairs, n);
  detail::token_counts("tokens", tokens, n);  // read once it is known that there are as many
  std::vector<bool> paired(static_cast<std::size_t>(n));
  const auto pair_up = [&](std::int64_t s) {
    if (paired[static_cast<std::size_t>(s)]) {
      detail::reject("pairs", "have sequence " + std::to_string(s) + " more than once");
    }
    paired[static_cast<std::size_t>(s)] = true;
  };
  const std::int64_t count = pairs.size(n);
  for (std::int64_t i = 0; i < count; ++i) {
    pair_up(pairs.chosen(i));
    pair_up(pairs.rejected(i, n));
  }
  for (std::int64_t s = 0; s < n; ++s) out[s] = tokens[s];
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t c = pairs.chosen(i);
    const std::int64_t r = pairs.rejected(i, n);
    out[c] = out[r] = (std::min)(tokens[c], tokens[r]);
  }
}

/// The weight of each sequence in WPO (Zhou et al. 2024, arXiv:2406.11827, eq. 2), how likely the
/// policy is to have written it, against how likely it is to write anything:
///
///   w = exp( (1 / n) sum_t [log p(y_t) - log sum_v p_v^2] )
///
/// over its n scored tokens; 1 without any. Both rows are those of `token_log_probs`, of the
/// policy. Nothing is clamped, and w may exceed 1; no gradient passes through it.
/// @throws std::invalid_argument for sizes that differ, or a layout that does not fit the rows.
template <executor E = thread_pool>
void wpo_weights(const const_any_row& log_prob, const const_any_row& sum_squares, index_row targets,
                 const sequence_layout& layout, any_row weight, mask_row mask = {},
                 E& on = thread_pool::shared()) {
  detail::require_row("log_prob", log_prob, targets.size());
  detail::require_row("sum_squares", sum_squares, targets.size());
  const auto scored = detail::check_sequences(targets, mask, layout);
  detail::require_row("weight", weight, layout.sequences());
  detail::output_row("weight", weight, layout.sequences());
  const prospect::detail::default_float_mode mode;
  detail::for_each_reduced(layout, targets.size(), on, [&](std::int64_t i) {
    double sum = 0;
    std::int64_t tokens = 0;
    detail::for_each_scored(scored, layout, i, [&](std::int64_t t, std::int64_t rank) {
      sum += log_prob.get<double>(t) - log(sum_squares.get<double>(t));
      tokens = rank + 1;
    });
    weight.put(i, tokens == 0 ? 1.0 : exp(sum / static_cast<double>(tokens)));
  });
}

/// The weight of a pair in WPO, the product of those of its sequences: the `weight` of a paired
/// batch, or of pairs by index.
/// @throws std::invalid_argument for sizes that differ, or an index that names no sequence.
inline void pair_weights(const const_any_row& weight, const sequence_pairs& pairs, any_row out) {
  const std::int64_t n = weight.size();
  detail::require_row("weight", weight, n);
  detail::check_pairs(pairs, n);
  const std::int64_t count = pairs.size(n);
  detail::require_row("pair_weight", out, count);
  detail::output_row("pair_weight", out, count);
  const prospect::detail::default_float_mode mode;
  for (std::int64_t i = 0; i < count; ++i) {
    out.put(i, weight.get<double>(pairs.chosen(i)) * weight.get<double>(pairs.rejected(i, n)));
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
