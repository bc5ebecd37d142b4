// Why a call on tokens makes no sense, as far as the host can see: what lies on the device is not
// looked at. The launchers answer cudaErrorInvalidValue, the C API repeats the text.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/detail/texts.hpp>
#include <prospect/layout.hpp>
#include <prospect/token_reducer.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cstddef>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// A row of logits is cut into tiles of so many bytes, which warps deal with, so many in a block.
inline constexpr std::int64_t tile_bytes = 8192;
inline constexpr int warps = 8;
/// How many blocks a launch may have.
inline constexpr std::int64_t grid_limit = (std::int64_t{1} << 31) - 1;

template <literal name, class T>
static const char* matrix_problem(const matrix_view<T>& m) {
  if (m.rows < 0 || m.columns < 0) return says<name, "have a negative size">;
  if (m.rows > 1 && m.pitch < m.columns) return says<name, "have a pitch below their columns">;
  if (prospect::detail::view_problem(m) == nullptr) return nullptr;
  return m.data == nullptr ? says<name, "have no data">
                           : says<name, "are misaligned, or larger than any memory">;
}

/// Of a matrix that kernels over rows of logits run on.
template <literal name, class T>
static const char* tiles_problem(const matrix_view<T>& m) {
  if (const char* why = matrix_problem<name>(m)) return why;
  if (m.columns > std::int64_t{1} << 30) return says<name, "have more than 2^30 columns">;
  if (m.rows > std::int64_t{1} << 27) return says<name, "have more than 2^27 rows">;
  constexpr std::int64_t tile = tile_bytes / std::int64_t{sizeof(T)};
  if (m.rows * ((m.columns + tile - 1) / tile) > grid_limit * warps) {
    return says<name, "have more tiles than one launch has blocks for">;
  }
  return nullptr;
}

/// How many columns of padding a gradient's rows end with that are to be written.
template <class T>
static std::int64_t padding_of(const matrix_view<T>& gradient, const token_options& options) {
  return options.zero_padding && gradient.pitch > gradient.columns
             ? gradient.pitch - gradient.columns
             : 0;
}
/// Padding that is written is memory, too.
template <literal name, class T>
static const char* padding_problem(const matrix_view<T>& m, const token_options& options) {
  const std::int64_t padding = padding_of(m, options);
  return padding == 0 ? nullptr : tiles_problem<name>(matrix_view<T>{m.data, m.rows, m.pitch});
}

/// Of indices or a mask, which know themselves what memory they describe.
template <literal name, class Row>
static const char* own_problem(const Row& row, std::int64_t rows) {
  if (row.size() != rows) return says<name, "must have an element for each row of the batch">;
  return row.problem() == nullptr
             ? nullptr
             : says<name, "has no data, is misaligned, or larger than any memory">;
}
static inline const char* mask_problem(const mask_row& mask, std::int64_t rows) {
  return mask.empty() ? nullptr : own_problem<"mask">(mask, rows);
}

template <class T>
static const char* logits_problem(const matrix_view<T>& logits, const index_row& targets,
                                  const token_options& options) {
  if (const char* why = tiles_problem<"logits">(logits)) return why;
  if (const char* why = prospect::detail::problem(options, logits.columns)) return why;
  return first_of(own_problem<"targets">(targets, logits.rows),
                  option_problem<"inverse_temperatures">(options.inverse_temperatures, logits.rows),
                  mask_problem(options.mask, logits.rows));
}

static inline const char* outputs_problem(const token_outputs<float>& out, std::int64_t rows) {
  return first_of(output_problem<"log_prob">(out.log_prob, rows),
                  output_problem<"lse">(out.lse, rows),
                  output_problem<"entropy">(out.entropy, rows),
                  output_problem<"sum_squares">(out.sum_squares, rows),
                  output_problem<"mean_logit">(out.mean_logit, rows),
                  output_problem<"target_is_argmax">(out.target_is_argmax, rows));
}

/// Offsets and ranges lie on the device: a layout is only known to be wrong where that shows
/// without them.
static inline const char* layout_problem(const sequence_layout& layout, std::int64_t rows) {
  if (layout.sequences() < 0 || layout.sequences() > grid_limit) {
    return "layout has a negative number of sequences, or more than 2^31 - 1";
  }
  return layout.shape_problem(rows) == nullptr
             ? nullptr
             : "layout does not cover the rows: sequences x length must be their number, offsets "
               "and ranges be given in full and lie in memory";
}

/// Of the sums over sequences of a layout that is none of the problems.
static inline const char* sums_problem(const sequence_layout& layout, const sequence_outputs& out) {
  if (const char* why =
          first_of(output_problem<"log_prob (sums)">(out.log_prob, layout.sequences()),
                   output_problem<"tokens">(out.tokens, layout.sequences()))) {
    return why;
  }
  // Of offsets and ranges the kernel finds out.
  constexpr std::int64_t most_tokens = (std::int64_t{1} << 31) - 1;
  if (!out.tokens.empty() && layout.padded() && layout.end(0) > most_tokens) {
    return "tokens cannot count sequences of more than 2^31 - 1 rows";
  }
  return nullptr;
}

/// Of the coefficients of sequences, and of tokens.
template <class Row>
static const char* spread_problem(const const_any_row& d_sequence, const sequence_layout& layout,
                                  const Row& d_token, std::int64_t rows) {
  return first_of(input_problem<"d_sequence">(d_sequence, layout.sequences()),
                  input_problem<"d_token">(d_token, rows),
                  output_problem<"d_token">(d_token, rows));
}

template <class T, class U>
static const char* gradient_problem(const matrix_view<T>& logits, const matrix_view<U>& gradient,
                                    const index_row& targets, strided_span<const float> log_prob,
                                    strided_span<const double> lse, const token_options& options) {
  if (const char* why = logits_problem(logits, targets, options)) return why;
  if (const char* why = tiles_problem<"gradient">(gradient)) return why;
  if (const char* why = padding_problem<"gradient">(gradient, options)) return why;
  if (gradient.rows != logits.rows || gradient.columns != logits.columns) {
    return "gradient differs in size from the logits";
  }
  return first_of(input_problem<"log_prob">(log_prob, logits.rows),
                  input_problem<"lse">(lse, logits.rows));
}

}  // namespace prospect::inline v2::cuda::detail

namespace prospect::inline v2::cuda {

/// Why `token_log_probs` or `token_log_probs_and_gradient` would refuse these arguments, or
/// nullptr.
template <class T>
static const char* problem(const matrix_view<T>& logits, const index_row& targets,
                           const token_outputs<float>& out, const token_options& options) {
  if (const char* why = detail::logits_problem(logits, targets, options)) return why;
  if (options.vocabulary != 0 && options.vocabulary != logits.columns) {
    return "vocabulary is split here: use vocabulary_partials";
  }
  if constexpr (!std::is_const_v<T>) {
    if (const char* why = detail::padding_problem<"logits">(logits, options)) return why;
  }
  return detail::outputs_problem(out, logits.rows);
}

/// Of `logits_gradient` with one coefficient.
template <class T, class U>
static const char* problem(const matrix_view<T>& logits, const matrix_view<U>& gradient,
                           const index_row& targets, strided_span<const float> log_prob,
                           strided_span<const double> lse, strided_span<const float> d_token,
                           const token_options& options) {
  if (const char* why =
          detail::gradient_problem(logits, gradient, targets, log_prob, lse, options)) {
    return why;
  }
  return detail::input_problem<"d_token">(d_token, logits.rows);
}
/// With two, or a third for the entropy.
template <class T, class U>
static const char* problem(const matrix_view<T>& logits, const matrix_view<U>& gradient,
                           const index_row& targets, strided_span<const float> log_prob,
                           strided_span<const double> lse,
                           const token_coefficients<float>& coefficients,
                           const token_options& options) {
  if (const char* why =
          detail::gradient_problem(logits, gradient, targets, log_prob, lse, options)) {
    return why;
  }
  const bool third = !coefficients.d_entropy.empty() || !coefficients.entropy.empty();
  return detail::first_of(
      detail::input_problem<"coefficients.softmax">(coefficients.softmax, logits.rows),
      detail::input_problem<"coefficients.onehot">(coefficients.onehot, logits.rows),
      third ? detail::input_problem<"coefficients.d_entropy">(coefficients.d_entropy, logits.rows)
            : nullptr,
      third ? detail::input_problem<"coefficients.entropy">(coefficients.entropy, logits.rows)
            : nullptr);
}

/// Of `vocabulary_partials`.
template <class T>
static const char* problem(const matrix_view<T>& logits, const index_row& targets,
                           strided_span<vocabulary_partial> out, const token_options& options) {
  if (const char* why = detail::logits_problem(logits, targets, options)) return why;
  return detail::first_of(detail::input_problem<"partials">(out, logits.rows),
                          detail::output_problem<"partials">(out, logits.rows));
}

/// Of `token_log_probs` of gathered partials.
static inline const char* problem(const matrix_view<const vocabulary_partial>& parts,
                                  const index_row& targets, const token_outputs<float>& out,
                                  const mask_row& mask = {}) {
  if (const char* why = detail::matrix_problem<"parts">(parts)) return why;
  if (parts.rows == 0) return "parts are none";
  if (parts.columns > std::int64_t{1} << 27) return "parts are of more than 2^27 tokens";
  return detail::first_of(detail::own_problem<"targets">(targets, parts.columns),
                          detail::mask_problem(mask, parts.columns),
                          detail::outputs_problem(out, parts.columns));
}

/// Of `sequence_sums`.
template <class R>
static const char* problem(strided_span<const R> log_prob, const index_row& targets,
                           const sequence_layout& layout, const sequence_outputs& out,
                           const mask_row& mask = {}) {
  const std::int64_t rows = targets.size();
  if (const char* why = detail::first_of(detail::own_problem<"targets">(targets, rows),
                                         detail::input_problem<"log_prob">(log_prob, rows),
                                         detail::layout_problem(layout, rows),
                                         detail::mask_problem(mask, rows))) {
    return why;
  }
  return detail::sums_problem(layout, out);
}

/// Of `sequence_sums` and `spread` by a reducer: what they have in common.
static inline const char* problem(const token_reducer& by, const index_row& targets,
                                  const sequence_layout& layout, const mask_row& mask) {
  const std::int64_t rows = targets.size();
  return detail::first_of(
      detail::own_problem<"targets">(targets, rows),
      detail::input_problem<"log_prob">(by.log_prob, rows), prospect::detail::problem(by),
      detail::option_problem<"reference">(by.reference, rows), detail::layout_problem(layout, rows),
      detail::mask_problem(mask, rows),
      detail::option_problem<"public_tokens">(by.public_tokens, layout.sequences()));
}
/// Of `sequence_sums` by a reducer.
static inline const char* problem(const token_reducer& by, const index_row& targets,
                                  const sequence_layout& layout, const sequence_outputs& out,
                                  const mask_row& mask) {
  if (const char* why = problem(by, targets, layout, mask)) return why;
  return detail::sums_problem(layout, out);
}
/// Of `spread` by a reducer.
static inline const char* problem(const token_reducer& by, const const_any_row& d_sequence,
                                  const index_row& targets, const sequence_layout& layout,
                                  const any_row& d_token, const mask_row& mask) {
  if (const char* why = problem(by, targets, layout, mask)) return why;
  return detail::spread_problem(d_sequence, layout, d_token, targets.size());
}

/// Of `public_tokens`.
static inline const char* problem(strided_span<const std::int32_t> tokens,
                                  const sequence_pairs& pairs, strided_span<std::int32_t> out) {
  const std::int64_t n = tokens.size();
  return detail::first_of(detail::memory_problem<"tokens">(tokens), pairs.problem(n),
                          detail::input_problem<"public_tokens">(out, n),
                          detail::output_problem<"public_tokens">(out, n));
}

/// Of `wpo_weights`.
static inline const char* problem(const const_any_row& log_prob, const const_any_row& sum_squares,
                                  const index_row& targets, const sequence_layout& layout,
                                  const any_row& weight, const mask_row& mask) {
  const std::int64_t rows = targets.size();
  return detail::first_of(detail::own_problem<"targets">(targets, rows),
                          detail::input_problem<"log_prob">(log_prob, rows),
                          detail::input_problem<"sum_squares">(sum_squares, rows),
                          detail::layout_problem(layout, rows), detail::mask_problem(mask, rows),
                          detail::input_problem<"weight">(weight, layout.sequences()),
                          detail::output_problem<"weight">(weight, layout.sequences()));
}

/// Of `pair_weights`.
static inline const char* problem(const const_any_row& weight, const sequence_pairs& pairs,
                                  const any_row& out) {
  const std::int64_t n = weight.size();
  return detail::first_of(detail::memory_problem<"weight">(weight), pairs.problem(n),
                          detail::input_problem<"pair_weight">(out, pairs.size(n)),
                          detail::output_problem<"pair_weight">(out, pairs.size(n)));
}

/// Of `spread`.
template <class R>
static const char* problem(const const_any_row& d_sequence, const index_row& targets,
                           const sequence_layout& layout, strided_span<R> d_token,
                           const mask_row& mask = {}) {
  const std::int64_t rows = targets.size();
  return detail::first_of(detail::own_problem<"targets">(targets, rows),
                          detail::layout_problem(layout, rows), detail::mask_problem(mask, rows),
                          detail::spread_problem(d_sequence, layout, d_token, rows));
}

/// Of `shift_targets`.
template <class Index>
static const char* problem(const index_row& labels, const sequence_layout& layout,
                           strided_span<Index> targets) {
  const std::int64_t rows = labels.size();
  return detail::first_of(detail::own_problem<"labels">(labels, rows),
                          detail::layout_problem(layout, rows),
                          detail::input_problem<"targets">(targets, rows),
                          detail::output_problem<"targets">(targets, rows));
}

/// Of `scale_rows`.
template <class T>
static const char* problem(const matrix_view<T>& matrix, strided_span<const float> factors) {
  if (const char* why = detail::tiles_problem<"rows of the matrix">(matrix)) return why;
  return detail::input_problem<"factors">(factors, matrix.rows);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
