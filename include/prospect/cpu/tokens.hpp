// Phases 1 and 3 on the CPU: logits to log-probabilities of the target tokens, sums over sequences,
// and one coefficient per token back into the logits. Arguments are checked here; the arithmetic on
// a row is in detail/row_kernels.hpp, and what follows from a row's sums in vocabulary.hpp.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/detail/row_kernels.hpp>
#include <prospect/executor.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu {

namespace detail {

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

inline logit_map map_of(const token_options& options) {
  if (!(options.temperature > 0) || !std::isfinite(options.temperature) ||
      !std::isfinite(1 / options.temperature)) {
    reject("temperature", "and its inverse must be positive and finite");
  }
  if (!(options.soft_cap > 0)) reject("soft_cap", "must be positive");
  return {.inverse_temperature = 1 / options.temperature, .soft_cap = options.soft_cap};
}

template <class T>
void check_matrix(std::string_view name, const matrix_view<T>& m) {
  if (m.rows < 0 || m.columns < 0) reject(name, "have a negative size");
  if (m.pitch < m.columns) reject(std::string{name} + ".pitch", "is smaller than the columns");
}

template <class T>
void check_logits(const matrix_view<T>& logits, const index_row& targets,
                  const token_options& options) {
  check_matrix("logits", logits);
  if (targets.size() != logits.rows) {
    reject("targets", "has " + std::to_string(targets.size()) + " elements, the logits have " +
                          std::to_string(logits.rows) + " rows");
  }
  const std::int64_t vocabulary = options.vocabulary == 0 ? logits.columns : options.vocabulary;
  if (options.first_token < 0 || vocabulary < logits.columns ||
      options.first_token > vocabulary - logits.columns) {
    reject("first_token", "and the columns reach beyond the vocabulary");
  }
  check_indices("targets", targets, vocabulary);
}

template <std::floating_point R>
void check_outputs(const token_outputs<R>& out, std::int64_t rows) {
  output_row("log_prob", out.log_prob, rows);
  output_row("lse", out.lse, rows);
  output_row("entropy", out.entropy, rows);
  output_row("sum_squares", out.sum_squares, rows);
  output_row("mean_logit", out.mean_logit, rows);
  output_row("target_is_argmax", out.target_is_argmax, rows);
}

/// A forward pass over whole rows: the columns must be the whole vocabulary.
template <class T, std::floating_point R>
void check_forward(const matrix_view<T>& logits, const index_row& targets,
                   const token_outputs<R>& out, const token_options& options) {
  check_logits(logits, targets, options);
  if (options.vocabulary != 0 && options.vocabulary != logits.columns) {
    reject("vocabulary", "is split here: use vocabulary_partials and combine");
  }
  check_outputs(out, logits.rows);
}

template <std::floating_point R>
void put_scores(const token_outputs<R>& out, std::int64_t t, const token_scores& scores) {
  const auto put = [t](const auto& row, auto x) {
    using T = typename std::remove_cvref_t<decltype(row)>::value_type;
    if (!row.empty()) row[t] = static_cast<T>(x);
  };
  put(out.log_prob, scores.log_prob);
  put(out.lse, scores.lse);
  put(out.entropy, scores.entropy);
  put(out.sum_squares, scores.sum_squares);
  put(out.mean_logit, scores.mean_logit);
  put(out.target_is_argmax, scores.target_is_argmax ? 1 : 0);
}

/// The target's column in the part of the vocabulary that starts at `first_token`, or -1.
inline std::int64_t column_of(std::int64_t target, std::int64_t first_token,
                              std::int64_t columns) noexcept {
  const std::int64_t column = target - first_token;
  return column >= 0 && column < columns ? column : -1;
}

/// Calls body(t) for every row, in pieces big enough to be worth a thread's while, and that what is
/// prefetched beyond their end, into the rows of another thread, is little. Rows are independent,
/// so that the pieces do not show in the results.
template <executor E, class Body>
void for_each_row(std::int64_t rows, std::int64_t row_bytes, E& on, const Body& body) {
  constexpr std::int64_t piece_bytes = std::int64_t{1} << 20;
  const std::int64_t piece =
      std::max<std::int64_t>(1, piece_bytes / std::max<std::int64_t>(1, row_bytes));
  on.run((rows + piece - 1) / piece, [&](std::int64_t i) {
    const std::int64_t end = std::min(rows, (i + 1) * piece);
    for (std::int64_t t = i * piece; t < end; ++t) body(t);
  });
}

template <storage S, executor E>
void token_log_probs(const row_kernels<S>& kernels, matrix_view<const S> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out, const token_options& options, E& on) {
  const logit_map map = map_of(options);
  check_forward(logits, targets, out, options);
  const bool statistics = out.statistics();
  for_each_row(logits.rows, logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    token_scores scores{};
    if (targets[t] != ignored_target) {
      scores = finish(kernels.sum(logits.row(t), logits.columns, targets[t], statistics, map));
    }
    put_scores(out, t, scores);
  });
}

template <class R>
struct row_coefficients {
  R softmax, onehot;
};

/// Those of a loss that gives each token's log-prob one coefficient.
template <class R>
auto loss_coefficients(strided_span<const R> d_token) {
  return [d_token](std::int64_t t) {
    return row_coefficients<R>{.softmax = -d_token[t], .onehot = -d_token[t]};
  };
}

/// `coefficients(t)` gives a row's two coefficients.
template <storage S, class Coefficients, executor E>
void logits_gradient(const row_kernels<S>& kernels, matrix_view<const S> logits,
                     matrix_view<S> gradient, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     const Coefficients& coefficients, const token_options& options, E& on) {
  using R = compute_t<S>;
  const logit_map map = map_of(options);
  check_logits(logits, targets, options);
  check_matrix("gradient", gradient);
  if (gradient.rows != logits.rows || gradient.columns != logits.columns) {
    reject("gradient", "differs in size from the logits");
  }
  require_row("log_prob", log_prob, logits.rows);
  require_row("lse", lse, logits.rows);
  for_each_row(logits.rows, 2 * logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    S* const out = gradient.row(t);
    const row_coefficients<R> c = coefficients(t);
    if (targets[t] == ignored_target || (c.softmax == 0 && c.onehot == 0)) {
      std::fill(out, out + logits.columns, store<S>(R(0)));
    } else {
      kernels.gradient(logits.row(t), out, logits.columns,
                       column_of(targets[t], options.first_token, logits.columns), log_prob[t],
                       lse[t], c.softmax, c.onehot, map);
    }
  });
}

template <storage S, executor E>
void token_log_probs_and_gradient(const row_kernels<S>& kernels, matrix_view<S> logits,
                                  index_row targets, const token_outputs<compute_t<S>>& out,
                                  const token_options& options, E& on) {
  using R = compute_t<S>;
  const logit_map map = map_of(options);
  check_forward(logits, targets, out, options);
  const bool statistics = out.statistics();
  for_each_row(logits.rows, 2 * logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    S* const x = logits.row(t);
    token_scores scores{};
    if (targets[t] == ignored_target) {
      std::fill(x, x + logits.columns, store<S>(R(0)));
    } else {
      kept_exponentials kept;
      scores = finish(kernels.sum_keeping(x, logits.columns, targets[t], statistics, map, kept));
      kernels.gradient_of_kept(x, logits.columns, targets[t], static_cast<R>(scores.log_prob),
                               scores.lse, R(-1), R(-1), map, kept);
    }
    put_scores(out, t, scores);
  });
}

template <storage S, executor E>
void vocabulary_partials(const row_kernels<S>& kernels, matrix_view<const S> logits,
                         index_row targets, strided_span<vocabulary_partial> out,
                         const token_options& options, bool statistics, E& on) {
  const logit_map map = map_of(options);
  check_logits(logits, targets, options);
  require_row("partials", out, logits.rows);
  output_row("partials", out, logits.rows);
  for_each_row(logits.rows, logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    out[t] = targets[t] == ignored_target
                 ? vocabulary_partial{}
                 : kernels.sum(logits.row(t), logits.columns,
                               column_of(targets[t], options.first_token, logits.columns),
                               statistics, map);
  });
}

inline void check_layout(const sequence_layout& layout, const index_row& targets) {
  if (const char* why = layout.problem(targets.size())) reject("layout", why);
}

}  // namespace detail

/// Log-probabilities of the target tokens, and what else `out` asks for, in one pass over memory.
///
/// Row t of `logits` ([tokens, vocabulary], any pitch and alignment) is scored against
/// `targets[t]`, which is aligned with it (`shift_targets` aligns label rows). A row whose target
/// is -100 is not read and yields 0. -inf logits are impossible tokens; NaN or +inf makes that row
/// NaN and no other (under a soft cap +inf is the cap).
///
/// @tparam S storage type of the logits; outputs are `compute_t<S>`.
/// @param on runs the loop over rows; the results do not depend on it.
/// @throws std::invalid_argument for sizes that differ, a target outside the vocabulary, a
///         temperature or soft cap that is not positive.
template <storage S, executor E = thread_pool>
void token_log_probs(matrix_view<const std::type_identity_t<S>> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out, const token_options& options = {},
                     E& on = thread_pool::shared()) {
  detail::token_log_probs<S>(detail::compiled_kernels<S>(), logits, targets, out, options, on);
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
/// row t becomes d_token[t] (onehot(targets[t]) - softmax(z)) dz/dx.
///
/// Rows whose target is -100 or whose coefficient is 0 become 0 without being read. `log_prob` and
/// `lse` are those `token_log_probs` gave for the same logits and options. Of a split vocabulary
/// each part is handled alone, with the `log_prob` and `lse` of the whole.
///
/// @throws std::invalid_argument for sizes that differ or a target outside the vocabulary.
template <storage S, executor E = thread_pool>
void logits_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     strided_span<const compute_t<S>> d_token, const token_options& options = {},
                     E& on = thread_pool::shared()) {
  detail::require_row("d_token", d_token, logits.rows);
  detail::logits_gradient<S>(detail::compiled_kernels<S>(), logits, logits, targets, log_prob, lse,
                             detail::loss_coefficients(d_token), options, on);
}

/// The same with two coefficients per token, into `gradient`, which may be the logits themselves
/// (in place, and twice as fast: the memory is touched once) or a matrix of its own.
template <storage S, executor E = thread_pool>
void logits_gradient(matrix_view<const std::type_identity_t<S>> logits,
                     matrix_view<std::type_identity_t<S>> gradient, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     const token_coefficients<compute_t<S>>& coefficients,
                     const token_options& options = {}, E& on = thread_pool::shared()) {
  detail::require_row("coefficients.softmax", coefficients.softmax, logits.rows);
  detail::require_row("coefficients.onehot", coefficients.onehot, logits.rows);
  const auto both = [&](std::int64_t t) {
    return detail::row_coefficients<compute_t<S>>{.softmax = coefficients.softmax[t],
                                                  .onehot = coefficients.onehot[t]};
  };
  detail::logits_gradient<S>(detail::compiled_kernels<S>(), logits, gradient, targets, log_prob,
                             lse, both, options, on);
}

/// The deferred schedule: log-probabilities as `token_log_probs`, and in the same pass over memory
/// row t of the logits becomes (onehot(targets[t]) - softmax(z)) dz/dx, the gradient of its
/// log-prob.
///
/// The coefficients come later and cost nothing extra where they are folded into the rows of the
/// product that follows; `scale_rows` applies them to the logits' gradient itself. 16-bit storage
/// then rounds twice. Rows whose target is -100 become 0 unread.
template <storage S, executor E = thread_pool>
void token_log_probs_and_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                                  const token_outputs<compute_t<S>>& out,
                                  const token_options& options = {},
                                  E& on = thread_pool::shared()) {
  detail::token_log_probs_and_gradient<S>(detail::compiled_kernels<S>(), logits, targets, out,
                                          options, on);
}

/// Multiplies row t of a matrix by `factors[t]`. A row of factor 0 becomes 0 unread.
template <storage S, executor E = thread_pool>
void scale_rows(matrix_view<std::type_identity_t<S>> matrix,
                strided_span<const compute_t<S>> factors, E& on = thread_pool::shared()) {
  using R = compute_t<S>;
  detail::check_matrix("matrix", matrix);
  detail::require_row("factors", factors, matrix.rows);
  detail::for_each_row(matrix.rows, matrix.columns * std::int64_t{sizeof(S)}, on,
                       [&](std::int64_t t) {
                         S* const x = matrix.row(t);
                         const R factor = factors[t];
                         if (factor == 0) {
                           std::fill(x, x + matrix.columns, store<S>(R(0)));
                           return;
                         }
                         detail::scale_row(x, matrix.columns, factor);
                       });
}

/// What each row of a part of the vocabulary contributes, where the columns are tokens
/// [options.first_token, first_token + columns) of options.vocabulary. Targets are tokens of the
/// whole vocabulary.
///
/// Gather the partials of all parts, `combine` them from the first part to the last, and `finish`;
/// or let `token_log_probs` of partials do both.
/// @param statistics whether entropy, sum of squares and mean logit will be asked for.
template <storage S, executor E = thread_pool>
void vocabulary_partials(matrix_view<const std::type_identity_t<S>> logits, index_row targets,
                         strided_span<vocabulary_partial> out, const token_options& options,
                         bool statistics = false, E& on = thread_pool::shared()) {
  detail::vocabulary_partials<S>(detail::compiled_kernels<S>(), logits, targets, out, options,
                                 statistics, on);
}

/// From gathered partials ([parts, tokens], in the order of the vocabulary) to the results of
/// `token_log_probs`. Parts are combined from the first to the last, ((p0 + p1) + p2) + ..., so
/// that every rank that does this gets the same bits.
template <std::floating_point R>
void token_log_probs(matrix_view<const vocabulary_partial> parts, index_row targets,
                     const token_outputs<std::type_identity_t<R>>& out) {
  detail::check_matrix("parts", parts);
  if (parts.rows == 0) detail::reject("parts", "are none");
  if (parts.columns != targets.size()) detail::reject("targets", "differ in number from the parts");
  detail::check_outputs(out, targets.size());
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    vocabulary_partial whole = parts.row(0)[t];
    for (std::int64_t i = 1; i < parts.rows; ++i) whole = combine(whole, parts.row(i)[t]);
    detail::put_scores(out, t, targets[t] == ignored_target ? token_scores{} : finish(whole));
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

}  // namespace prospect::inline v1::cpu
PROSPECT_STRICT_END
