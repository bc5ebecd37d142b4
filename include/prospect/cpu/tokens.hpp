// Phases 1 and 3 on the CPU: logits to log-probabilities of the target tokens, and one coefficient
// per token back into the logits; between them token_sequences.hpp. The arithmetic on a row is in
// detail/row_kernels.hpp, and what follows from a row's sums in vocabulary.hpp.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/detail/row_kernels.hpp>
#include <prospect/cpu/token_checks.hpp>
#include <prospect/cpu/token_sequences.hpp>
#include <prospect/executor.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

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

/// Writes 0 to columns [first, end) of a row.
template <storage S>
void zero_columns(const matrix_view<S>& m, std::int64_t t, std::int64_t first, std::int64_t end) {
  S* const x = m.row(t);
  for (std::int64_t j = first; j < end; ++j) x[j] = store<S>(compute_t<S>(0));
}

/// How far a gradient's rows are written: to the last column, or to the pitch.
template <storage S>
std::int64_t end_of_rows(const matrix_view<S>& gradient, const token_options& options) {
  const bool to_pitch = options.zero_padding && gradient.pitch > gradient.columns;
  return to_pitch ? gradient.pitch : gradient.columns;
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
    const std::int64_t end = (std::min)(rows, (i + 1) * piece);
    for (std::int64_t t = i * piece; t < end; ++t) body(t);
  });
}

template <storage S, executor E>
void token_log_probs(const row_kernels<S>& kernels, matrix_view<const S> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out, const token_options& options, E& on) {
  const prospect::detail::default_float_mode mode;
  const checked_rows rows = check_forward(logits, targets, out, options);
  const bool statistics = out.statistics();
  for_each_row(logits.rows, logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    const std::int64_t target = rows.targets[t];
    token_scores scores{};
    if (target != ignored_target) {
      scores = finish(kernels.sum(logits.row(t), logits.columns, target, statistics, rows.maps[t]));
    }
    put_scores(out, t, scores);
  });
}

template <storage S, executor E>
void logits_gradient(const row_kernels<S>& kernels, matrix_view<const S> logits,
                     matrix_view<S> gradient, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     const coefficient_rows<compute_t<S>>& coefficients,
                     const token_options& options, E& on) {
  const prospect::detail::default_float_mode mode;
  const checked_rows rows = check_logits(logits, targets, options);
  check_gradient("gradient", gradient, options);
  if (gradient.rows != logits.rows || gradient.columns != logits.columns) {
    reject("gradient", "differs in size from the logits");
  }
  require_row("log_prob", log_prob, logits.rows);
  require_row("lse", lse, logits.rows);
  const std::int64_t end = end_of_rows(gradient, options);
  for_each_row(logits.rows, 2 * logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    const std::int64_t target = rows.targets[t];
    if (target == ignored_target) return zero_columns(gradient, t, 0, end);
    const auto by = coefficients[t];
    if (by.none()) return zero_columns(gradient, t, 0, end);
    kernels.gradient(logits.row(t), gradient.row(t), logits.columns,
                     column_of(target, options.first_token, logits.columns), log_prob[t], lse[t],
                     by, rows.maps[t]);
    zero_columns(gradient, t, logits.columns, end);
  });
}

template <storage S, executor E>
void token_log_probs_and_gradient(const row_kernels<S>& kernels, matrix_view<S> logits,
                                  index_row targets, const token_outputs<compute_t<S>>& out,
                                  const token_options& options, E& on) {
  using R = compute_t<S>;
  const prospect::detail::default_float_mode mode;
  const checked_rows rows = check_forward(logits, targets, out, options);
  check_gradient("logits", logits, options);
  const bool statistics = out.statistics();
  const std::int64_t end = end_of_rows(logits, options);
  for_each_row(logits.rows, 2 * logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    const std::int64_t target = rows.targets[t];
    token_scores scores{};
    if (target == ignored_target) {
      zero_columns(logits, t, 0, end);
    } else {
      S* const x = logits.row(t);
      const logit_map map = rows.maps[t];
      kept_exponentials kept;
      scores = finish(kernels.sum_keeping(x, logits.columns, target, statistics, map, kept));
      kernels.gradient_of_kept(x, logits.columns, target, static_cast<R>(scores.log_prob),
                               scores.lse, R(-1), R(-1), map, kept);
      zero_columns(logits, t, logits.columns, end);
    }
    put_scores(out, t, scores);
  });
}

template <storage S, executor E>
void vocabulary_partials(const row_kernels<S>& kernels, matrix_view<const S> logits,
                         index_row targets, strided_span<vocabulary_partial> out,
                         const token_options& options, bool statistics, E& on) {
  const prospect::detail::default_float_mode mode;
  const checked_rows rows = check_logits(logits, targets, options);
  require_row("partials", out, logits.rows);
  output_row("partials", out, logits.rows);
  for_each_row(logits.rows, logits.columns * std::int64_t{sizeof(S)}, on, [&](std::int64_t t) {
    const std::int64_t target = rows.targets[t];
    out[t] = target == ignored_target
                 ? vocabulary_partial{}
                 : kernels.sum(logits.row(t), logits.columns,
                               column_of(target, options.first_token, logits.columns), statistics,
                               rows.maps[t]);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

inline namespace PROSPECT_CPU_ISA {

/// Log-probabilities of the target tokens, and what else `out` asks for, in one pass over memory.
///
/// Row t of `logits` ([tokens, vocabulary], any pitch and alignment) is scored against
/// `targets[t]`, which is aligned with it (`shift_targets` aligns label rows). A row whose target
/// is -100, or whose mask is 0, is not read and yields 0. -inf logits are impossible tokens; NaN or
/// +inf makes that row NaN and no other (under a soft cap +inf is the cap).
///
/// @tparam S storage type of the logits; outputs are `compute_t<S>`.
/// @param on runs the loop over rows; the results do not depend on it.
/// @throws std::invalid_argument for sizes that differ, memory that cannot be, a target outside the
///         vocabulary, a temperature or soft cap outside [1e-30, 1e30].
template <storage S, executor E = thread_pool>
void token_log_probs(matrix_view<const std::type_identity_t<S>> logits, index_row targets,
                     const token_outputs<compute_t<S>>& out, const token_options& options = {},
                     E& on = thread_pool::shared()) {
  detail::token_log_probs<S>(detail::compiled_kernels<S>(), logits, targets, out, options, on);
}

/// Replaces every row of logits by the gradient of the loss in it:
/// row t becomes d_token[t] (onehot(targets[t]) - softmax(z)) dz/dx.
///
/// Rows that are not scored or whose coefficient is 0 become 0 without being read. `log_prob` and
/// `lse` are those `token_log_probs` gave for the same logits and options: one that is not finite
/// makes its row NaN, a NaN among the logits that it does not know of its own column. Of a split
/// vocabulary each part is handled alone, with the `log_prob` and `lse` of the whole.
///
/// @throws std::invalid_argument for sizes that differ or a target outside the vocabulary.
template <storage S, executor E = thread_pool>
void logits_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     strided_span<const compute_t<S>> d_token, const token_options& options = {},
                     E& on = thread_pool::shared()) {
  detail::check_matrix("logits", logits);
  detail::require_row("d_token", d_token, logits.rows);
  detail::logits_gradient<S>(detail::compiled_kernels<S>(), logits, logits, targets, log_prob, lse,
                             detail::loss_coefficients(d_token), options, on);
}

/// The same into `gradient`, which may be a matrix of its own or the logits themselves (in place,
/// and twice as fast: the memory is touched once); it may not overlap them otherwise.
template <storage S, executor E = thread_pool>
void logits_gradient(matrix_view<const std::type_identity_t<S>> logits,
                     matrix_view<std::type_identity_t<S>> gradient, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     strided_span<const compute_t<S>> d_token, const token_options& options = {},
                     E& on = thread_pool::shared()) {
  detail::check_matrix("logits", logits);
  detail::require_row("d_token", d_token, logits.rows);
  detail::logits_gradient<S>(detail::compiled_kernels<S>(), logits, gradient, targets, log_prob,
                             lse, detail::loss_coefficients(d_token), options, on);
}

/// The same with two coefficients per token, or a third for its entropy; mind their sign
/// (`token_coefficients`). Of a split vocabulary the entropy is that of the whole, too.
template <storage S, executor E = thread_pool>
void logits_gradient(matrix_view<const std::type_identity_t<S>> logits,
                     matrix_view<std::type_identity_t<S>> gradient, index_row targets,
                     strided_span<const compute_t<S>> log_prob, strided_span<const double> lse,
                     const token_coefficients<compute_t<S>>& coefficients,
                     const token_options& options = {}, E& on = thread_pool::shared()) {
  detail::check_matrix("logits", logits);
  detail::check_coefficients(coefficients, logits.rows);
  detail::logits_gradient<S>(detail::compiled_kernels<S>(), logits, gradient, targets, log_prob,
                             lse, {.rows = coefficients}, options, on);
}

/// The deferred schedule: log-probabilities as `token_log_probs`, and in the same pass over memory
/// row t of the logits becomes (onehot(targets[t]) - softmax(z)) dz/dx, the gradient of its
/// log-prob.
///
/// The coefficients come later and cost nothing extra where they are folded into the rows of the
/// product that follows; `scale_rows` applies them to the logits' gradient itself. 16-bit storage
/// then rounds twice. Rows that are not scored become 0 unread. An entropy's gradient is no
/// multiple of a log-prob's, so that no coefficient brings it in later: `logits_gradient` does.
template <storage S, executor E = thread_pool>
void token_log_probs_and_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                                  const token_outputs<compute_t<S>>& out,
                                  const token_options& options = {},
                                  E& on = thread_pool::shared()) {
  detail::token_log_probs_and_gradient<S>(detail::compiled_kernels<S>(), logits, targets, out,
                                          options, on);
}

/// Multiplies row t of a matrix by `factors[t]`. A row of factor 0 becomes 0 unread. What lies
/// between the columns and the pitch stays what it is: 0, where the gradient was written with
/// `zero_padding`.
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
                           return detail::zero_columns(matrix, t, 0, matrix.columns);
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
/// that every rank that does this gets the same bits. `mask` is that of the options that the
/// partials were made with.
template <std::floating_point R, executor E = thread_pool>
void token_log_probs(matrix_view<const vocabulary_partial> parts, index_row targets,
                     const token_outputs<std::type_identity_t<R>>& out, mask_row mask = {},
                     E& on = thread_pool::shared()) {
  detail::check_matrix("parts", parts);
  if (parts.rows == 0) detail::reject("parts", "are none");
  if (parts.columns != targets.size()) detail::reject("targets", "differ in number from the parts");
  detail::describes_memory("targets", targets.problem());
  detail::check_mask(mask, targets.size());
  detail::check_outputs(out, targets.size());
  const detail::scored_targets scored{targets, mask};
  const prospect::detail::default_float_mode mode;
  const std::int64_t bytes = parts.rows * std::int64_t{sizeof(vocabulary_partial)};
  detail::for_each_row(targets.size(), bytes, on, [&](std::int64_t t) {
    vocabulary_partial whole = parts.row(0)[t];
    for (std::int64_t i = 1; i < parts.rows; ++i) whole = combine(whole, parts.row(i)[t]);
    detail::put_scores(out, t, scored[t] == ignored_target ? token_scores{} : finish(whole));
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
