// Why a call on tokens makes no sense, as far as the host can see: what lies on the device is not
// looked at. The launchers answer cudaErrorInvalidValue, the C API repeats the text.
#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/checks.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cmath>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cuda::detail {

inline const char* options_problem(const token_options& options) {
  if (!(options.temperature > 0) || !std::isfinite(options.temperature) ||
      !std::isfinite(1 / options.temperature)) {
    return "temperature and its inverse must be positive and finite";
  }
  return options.soft_cap > 0 ? nullptr : "soft_cap must be positive";
}

inline const char* matrix_problem(std::int64_t rows, std::int64_t columns, std::int64_t pitch,
                                  const void* data) {
  if (rows < 0 || columns < 0) return "logits have a negative size";
  if (pitch < columns) return "logits.pitch is smaller than the columns";
  if (columns > std::int64_t{1} << 30) return "logits have more than 2^30 columns";
  if (rows > std::int64_t{1} << 27) return "logits have more than 2^27 rows";
  if (data == nullptr && rows > 0 && columns > 0) return "logits.data is null";
  return nullptr;
}

template <class T>
const char* logits_problem(const matrix_view<T>& logits, const index_row& targets,
                           const token_options& options) {
  if (const char* why = options_problem(options)) return why;
  if (const char* why = matrix_problem(logits.rows, logits.columns, logits.pitch, logits.data)) {
    return why;
  }
  if (targets.size() != logits.rows) return "targets and logits differ in their number of rows";
  const std::int64_t vocabulary = options.vocabulary == 0 ? logits.columns : options.vocabulary;
  if (options.first_token < 0 || vocabulary < logits.columns ||
      options.first_token > vocabulary - logits.columns) {
    return "first_token and the columns reach beyond the vocabulary";
  }
  return nullptr;
}

inline const char* outputs_problem(const token_outputs<float>& out, std::int64_t rows) {
  if (!output_fits(out.log_prob, rows)) return "log_prob must have an element for each row";
  if (!output_fits(out.lse, rows)) return "lse must have an element for each row";
  if (!output_fits(out.entropy, rows)) return "entropy must have an element for each row";
  if (!output_fits(out.sum_squares, rows)) return "sum_squares must have an element for each row";
  if (!output_fits(out.mean_logit, rows)) return "mean_logit must have an element for each row";
  if (!output_fits(out.target_is_argmax, rows)) {
    return "target_is_argmax must have an element for each row";
  }
  return nullptr;
}

/// Offsets and ranges lie on the device: a layout is only known to be wrong where that shows
/// without them.
inline const char* layout_problem(const sequence_layout& layout, std::int64_t rows) {
  if (layout.sequences() < 0 || layout.sequences() > (std::int64_t{1} << 31) - 1) {
    return "layout has too many sequences";
  }
  return layout.shape_problem(rows) == nullptr
             ? nullptr
             : "layout does not cover the rows: sequences x length must be their number, offsets "
               "and ranges be given in full and lie in memory";
}

}  // namespace prospect::inline v1::cuda::detail

namespace prospect::inline v1::cuda {

/// Why `token_log_probs` or `token_log_probs_and_gradient` would refuse these arguments, or
/// nullptr.
template <class T>
const char* problem(const matrix_view<T>& logits, const index_row& targets,
                    const token_outputs<float>& out, const token_options& options) {
  if (const char* why = detail::logits_problem(logits, targets, options)) return why;
  if (options.vocabulary != 0 && options.vocabulary != logits.columns) {
    return "vocabulary is split here: use vocabulary_partials";
  }
  return detail::outputs_problem(out, logits.rows);
}

/// Of `logits_gradient`.
template <class T, class U>
const char* problem(const matrix_view<T>& logits, const matrix_view<U>& gradient,
                    const index_row& targets, strided_span<const float> log_prob,
                    strided_span<const double> lse, const token_coefficients<float>& coefficients,
                    const token_options& options) {
  if (const char* why = detail::logits_problem(logits, targets, options)) return why;
  if (gradient.rows != logits.rows || gradient.columns != logits.columns) {
    return "gradient differs in size from the logits";
  }
  if (gradient.pitch < gradient.columns) return "gradient.pitch is smaller than the columns";
  if (gradient.data == nullptr && gradient.rows > 0 && gradient.columns > 0) {
    return "gradient.data is null";
  }
  if (!detail::input_fits(log_prob, logits.rows))
    return "log_prob must have an element for each row";
  if (!detail::input_fits(lse, logits.rows)) return "lse must have an element for each row";
  if (!detail::input_fits(coefficients.softmax, logits.rows)) {
    return "coefficients.softmax must have an element for each row";
  }
  if (!detail::input_fits(coefficients.onehot, logits.rows)) {
    return "coefficients.onehot must have an element for each row";
  }
  return nullptr;
}

/// Of `vocabulary_partials`.
template <class T>
const char* problem(const matrix_view<T>& logits, const index_row& targets,
                    strided_span<vocabulary_partial> out, const token_options& options) {
  if (const char* why = detail::logits_problem(logits, targets, options)) return why;
  if (out.size() != logits.rows || !detail::output_fits(out, logits.rows)) {
    return "partials must have an element for each row";
  }
  return nullptr;
}

/// Of `token_log_probs` of gathered partials.
inline const char* problem(const matrix_view<const vocabulary_partial>& parts,
                           const index_row& targets, const token_outputs<float>& out) {
  if (parts.rows <= 0) return "parts are none";
  if (parts.pitch < parts.columns) return "parts.pitch is smaller than the tokens";
  if (parts.data == nullptr && parts.columns > 0) return "parts.data is null";
  if (parts.columns != targets.size()) return "targets differ in number from the parts";
  return detail::outputs_problem(out, parts.columns);
}

/// Of `sequence_sums`.
template <class R>
const char* problem(strided_span<const R> log_prob, const index_row& targets,
                    const sequence_layout& layout, const sequence_outputs& out) {
  if (!detail::input_fits(log_prob, targets.size())) return "log_prob and targets differ in size";
  if (const char* why = detail::layout_problem(layout, targets.size())) return why;
  if (!detail::output_fits(out.log_prob, layout.sequences())) {
    return "log_prob (sums) must have an element for each sequence";
  }
  if (!detail::output_fits(out.tokens, layout.sequences())) {
    return "tokens must have an element for each sequence";
  }
  return nullptr;
}

/// Of `spread`.
template <class R>
const char* problem(strided_span<const double> d_sequence, const index_row& targets,
                    const sequence_layout& layout, strided_span<R> d_token) {
  if (const char* why = detail::layout_problem(layout, targets.size())) return why;
  if (!detail::input_fits(d_sequence, layout.sequences())) {
    return "d_sequence must have an element for each sequence";
  }
  if (d_token.size() != targets.size() || !detail::output_fits(d_token, targets.size())) {
    return "d_token must have an element for each token";
  }
  return nullptr;
}

/// Of `shift_targets`.
template <class Index>
const char* problem(const index_row& labels, const sequence_layout& layout,
                    strided_span<Index> targets) {
  if (const char* why = detail::layout_problem(layout, labels.size())) return why;
  if (targets.size() != labels.size() || !detail::output_fits(targets, labels.size())) {
    return "targets must have an element for each label";
  }
  return nullptr;
}

/// Of `scale_rows`.
template <class T>
const char* problem(const matrix_view<T>& matrix, strided_span<const float> factors) {
  if (detail::matrix_problem(matrix.rows, matrix.columns, matrix.pitch, matrix.data)) {
    return "matrix has a negative or too large size, a pitch below its columns, or no data";
  }
  return detail::input_fits(factors, matrix.rows) ? nullptr
                                                  : "factors must have an element for each row";
}

}  // namespace prospect::inline v1::cuda
PROSPECT_STRICT_END
