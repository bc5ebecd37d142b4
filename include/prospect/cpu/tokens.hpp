// Phases 1 and 3 on the CPU: logits to log-probabilities of the target tokens, sums over sequences,
// and one coefficient per token back into the logits, in place.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/layout.hpp>

#include <algorithm>

namespace prospect::inline v0::cpu {

/// Per-token results of the forward pass; an empty row is not written.
template <std::floating_point R>
struct token_outputs {
  strided_span<R> log_prob{};  ///< log p(target), at most 0; 0 where the target is ignored
  strided_span<double>
      lse{};  ///< log of the sum of exponentials; fp64, because the gradient needs it
};

/// Per-sequence sums; an empty row is not written.
struct sequence_outputs {
  strided_span<double> log_prob{};      ///< sum over scored tokens
  strided_span<std::int32_t> tokens{};  ///< number of scored tokens
};

namespace detail {

struct row_result {
  double log_prob;
  double lse;
};

/// The label is kept out of the sum, so that a confident token keeps its digits:
/// with q = sum_{j != y} e^(x_j - x_y), log p = -log(1 + q) and 1 - p = q / (1 + q).
template <storage S>
row_result score_row(const S* x, std::int64_t columns, std::int64_t label) {
  const double x_label = load(x[label]);
  double highest = -std::numeric_limits<double>::infinity();
  for (std::int64_t j = 0; j < columns; ++j) {
    if (j != label) highest = std::max(highest, static_cast<double>(load(x[j])));
  }
  // Not a distribution; the other cases of NaN and +inf come out of the sum by themselves.
  if (x_label == std::numeric_limits<double>::infinity()) {
    return {not_a_number<double>, not_a_number<double>};
  }
  // Where every other token is impossible there is nothing to be relative to.
  const double shift = highest > -std::numeric_limits<double>::infinity() ? highest : 0.0;
  double sum = 0;
  for (std::int64_t j = 0; j < columns; ++j) {
    if (j != label) sum += std::exp(load(x[j]) - shift);
  }
  if (x_label >= highest) {
    const double log_one_plus_q = std::log1p(sum * std::exp(highest - x_label));
    return {0.0 - log_one_plus_q, x_label + log_one_plus_q};
  }
  const double log_sum = std::log(sum + std::exp(x_label - highest));
  return {(x_label - highest) - log_sum, highest + log_sum};
}

/// Refuses an index that is neither -100 nor inside [0, end), by its position and value.
inline void check_indices(std::string_view name, const index_row& indices, std::int64_t end) {
  for (std::int64_t t = 0; t < indices.size(); ++t) {
    const std::int64_t index = indices[t];
    if (index == ignored_target || (index >= 0 && index < end)) continue;
    reject(std::string{name} + "[" + std::to_string(t) + "]",
           "= " + std::to_string(index) + " is neither -100 nor inside [0, " + std::to_string(end) +
               ")");
  }
}

template <class T>
void check_logits(const matrix_view<T>& logits, const index_row& targets) {
  if (logits.rows < 0 || logits.columns < 0) reject("logits", "have a negative size");
  if (logits.pitch < logits.columns) reject("logits.pitch", "is smaller than the columns");
  if (targets.size() != logits.rows) {
    reject("targets", "has " + std::to_string(targets.size()) + " elements, the logits have " +
                          std::to_string(logits.rows) + " rows");
  }
  check_indices("targets", targets, logits.columns);
}

inline void check_layout(const sequence_layout& layout, const index_row& targets) {
  if (const char* why = layout.problem(targets.size())) reject("layout", why);
}

}  // namespace detail

/// Log-probabilities of the target tokens.
///
/// Row t of `logits` ([tokens, vocabulary], any pitch) is scored against `targets[t]`, which is
/// aligned with it (`shift_targets` aligns label rows). A row whose target is -100 is not read and
/// yields 0. -inf logits are impossible tokens; NaN or +inf makes that row NaN and no other.
///
/// @tparam S storage type of the logits; outputs are `compute_t<S>`.
/// @throws std::invalid_argument for sizes that differ or a target outside the vocabulary.
template <storage S>
void token_log_probs(matrix_view<const std::type_identity_t<S>> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out) {
  detail::check_logits(logits, targets);
  detail::output_row("log_prob", out.log_prob, logits.rows);
  detail::output_row("lse", out.lse, logits.rows);
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    detail::row_result result{};
    if (targets[t] != ignored_target) {
      result = detail::score_row<S>(logits.row(t), logits.columns, targets[t]);
    }
    if (!out.log_prob.empty()) out.log_prob[t] = static_cast<compute_t<S>>(result.log_prob);
    if (!out.lse.empty()) out.lse[t] = result.lse;
  }
}

/// Sums token log-probabilities over the scored tokens of each sequence, in fp64.
///
/// Tokens with target -100 are skipped, whatever their log-probability. A sequence without scored
/// tokens sums to 0 and counts 0 tokens.
/// @throws std::invalid_argument for sizes that differ or a layout that does not cover the rows.
template <std::floating_point R>
void sequence_sums(strided_span<const std::type_identity_t<R>> log_prob, index_row targets,
                   const sequence_layout& layout, const sequence_outputs& out) {
  detail::require_row("log_prob", log_prob, targets.size());
  detail::check_layout(layout, targets);
  detail::output_row("log_prob (sums)", out.log_prob, layout.sequences());
  detail::output_row("tokens", out.tokens, layout.sequences());
  for (std::int64_t i = 0; i < layout.sequences(); ++i) {
    double sum = 0;
    std::int32_t tokens = 0;
    for (std::int64_t t = layout.begin(i); t < layout.end(i); ++t) {
      if (targets[t] == ignored_target) continue;
      sum += log_prob[t];
      ++tokens;
    }
    if (!out.log_prob.empty()) out.log_prob[i] = sum;
    if (!out.tokens.empty()) out.tokens[i] = tokens;
  }
}

/// Gives every scored token its sequence's coefficient dL/dP, and 0 to the others: the reverse of
/// `sequence_sums`.
/// @throws std::invalid_argument for sizes that differ or a layout that does not cover the rows.
template <std::floating_point R>
void spread(strided_span<const double> d_sequence, index_row targets, const sequence_layout& layout,
            strided_span<std::type_identity_t<R>> d_token) {
  detail::check_layout(layout, targets);
  detail::require_row("d_sequence", d_sequence, layout.sequences());
  detail::require_row("d_token", d_token, targets.size());
  detail::output_row("d_token", d_token, targets.size());
  for (std::int64_t i = 0; i < layout.sequences(); ++i) {
    for (std::int64_t t = layout.begin(i); t < layout.end(i); ++t) {
      d_token[t] = targets[t] == ignored_target ? R(0) : static_cast<R>(d_sequence[i]);
    }
  }
}

/// Replaces every row of logits by the gradient of the loss in it:
/// row t becomes d_token[t] (onehot(targets[t]) - softmax(row t)).
///
/// Rows whose target is -100 or whose coefficient is 0 become 0 without being read. `log_prob` and
/// `lse` are those `token_log_probs` gave for the same logits.
///
/// @throws std::invalid_argument for sizes that differ or a target outside the vocabulary.
template <storage S>
void logits_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     strided_span<const compute_t<S>> d_token) {
  using R = compute_t<S>;
  detail::check_logits(logits, targets);
  detail::require_row("log_prob", log_prob, logits.rows);
  detail::require_row("lse", lse, logits.rows);
  detail::require_row("d_token", d_token, logits.rows);
  for (std::int64_t t = 0; t < logits.rows; ++t) {
    S* const x = logits.row(t);
    const std::int64_t label = targets[t];
    const double d = d_token[t];
    if (label == ignored_target || d == 0) {
      std::fill(x, x + logits.columns, store<S>(R(0)));
      continue;
    }
    for (std::int64_t j = 0; j < logits.columns; ++j) {
      // 1 - p from log p: at the label the difference would lose a confident token's digits.
      const double onehot_minus_p = j == label ? -std::expm1(static_cast<double>(log_prob[t]))
                                               : -std::exp(load(x[j]) - lse[t]);
      x[j] = store<S>(static_cast<R>(d * onehot_minus_p));
    }
  }
}

/// Aligns label rows in the Hugging Face manner (the label of position t stands at t) with logits
/// rows, whose row t predicts position t + 1: targets[t] = labels[t + 1] inside each sequence, and
/// -100 at its last row.
/// @throws std::invalid_argument for sizes that differ, a layout that does not cover the rows, or a
///         label that is neither -100 nor an int32 token id.
inline void shift_targets(index_row labels, const sequence_layout& layout,
                          strided_span<std::int32_t> targets) {
  detail::check_layout(layout, labels);
  detail::require_row("targets", targets, labels.size());
  detail::output_row("targets", targets, labels.size());
  constexpr std::int64_t end = std::int64_t{std::numeric_limits<std::int32_t>::max()} + 1;
  detail::check_indices("labels", labels, end);
  for (std::int64_t i = 0; i < layout.sequences(); ++i) {
    for (std::int64_t t = layout.begin(i); t < layout.end(i); ++t) {
      const bool last = t + 1 == layout.end(i);
      targets[t] = static_cast<std::int32_t>(last ? ignored_target : labels[t + 1]);
    }
  }
}

}  // namespace prospect::inline v0::cpu
