// What the head path on CUDA runs on, and why a call makes no sense, as far as the host can see.
#pragma once

#include <prospect/cuda/token_checks.hpp>
#include <prospect/head.hpp>

#include <algorithm>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// Tokens and the head that they go through, all on the device.
template <storage S>
struct head_rows {
  matrix_view<const S> hidden;  ///< [tokens, hidden], any pitch
  lm_head<S> head;
  index_row targets;  ///< [tokens], tokens of the whole vocabulary; -100: not scored
  head_options options{};
  /// How many tokens are scored at most: the host's word, which decides how much is computed.
  std::int64_t scored_at_most;
  std::int64_t first_token =
      0;  ///< the token of the head's first row, where ranks share a vocabulary
  std::int64_t vocabulary = 0;     ///< its whole size; 0: the head is all of it
  std::int64_t* scored = nullptr;  ///< becomes how many tokens were scored; nullptr: not asked for
};

/// What a forward pass left in its memory for the backward pass that follows it with the same rows:
/// gradients of the first so many scored tokens. Memory that was used for anything else between the
/// two has none; then {} is the ticket.
struct head_ticket {
  std::int64_t kept = 0;
};

namespace detail {

/// Rows of a product are a multiple of this, padded with 0.
inline constexpr std::int64_t head_row_multiple = 128;

constexpr std::int64_t up_to_multiple(std::int64_t n, std::int64_t of) {
  return (n + of - 1) / of * of;
}

template <storage S>
static token_options token_options_of(const head_rows<S>& rows) {
  const head_options& o = rows.options;
  return {.temperature = o.temperature,
          .soft_cap = o.soft_cap,
          .first_token = rows.first_token,
          .vocabulary = rows.vocabulary,
          .inverse_temperatures = o.inverse_temperatures,
          .mask = o.mask,
          .zero_padding = o.zero_padding};
}

template <storage S>
static const char* adapter_problem(const lm_head<S>& head) {
  const lora_adapter<S>& lora = head.lora;
  if (lora.empty()) return nullptr;
  if (const char* why =
          first_of(matrix_problem<"head.lora.a">(lora.a), matrix_problem<"head.lora.b">(lora.b))) {
    return why;
  }
  if (lora.a.rows < 1) return "head.lora.a has no rows";
  if (lora.a.rows > std::int64_t{1} << 30) return "head.lora.a has more than 2^30 rows";
  if (lora.a.columns != head.weight.columns) {
    return "head.lora.a has other columns than head.weight";
  }
  if (lora.b.rows != head.weight.rows) return "head.lora.b has other rows than head.weight";
  if (lora.b.columns != lora.a.rows) {
    return "head.lora.b has other columns than head.lora.a has rows";
  }
  if (!(lora.scale >= -1e30 && lora.scale <= 1e30)) {
    return "head.lora.scale must lie within 1e30 of 0";
  }
  return nullptr;
}

template <storage S>
static const char* head_problem(const head_rows<S>& rows) {
  const lm_head<S>& head = rows.head;
  if (const char* why = first_of(tiles_problem<"hidden">(rows.hidden),
                                 matrix_problem<"head.weight">(head.weight))) {
    return why;
  }
  if (rows.hidden.rows > 0 && rows.hidden.columns == 0) return "hidden has no columns";
  if (head.weight.columns != rows.hidden.columns) {
    return "head.weight has other columns than hidden";
  }
  if (head.weight.rows < 1) return "head.weight has no rows";
  if (head.weight.rows > std::int64_t{1} << 30) return "head.weight has more than 2^30 rows";
  if (!head.bias.empty() && head.bias.size() != head.weight.rows) {
    return "head.bias must have an element for each row of head.weight";
  }
  if (const char* why = memory_problem<"head.bias">(head.bias)) return why;
  if (const char* why = adapter_problem(head)) return why;
  if (rows.scored_at_most < 0) return "scored_at_most is negative";
  if (rows.scored_at_most > rows.hidden.rows) return "scored_at_most is more than there are tokens";
  const token_options options = token_options_of(rows);
  if (const char* why = prospect::detail::problem(options, head.weight.rows)) return why;
  return first_of(
      own_problem<"targets">(rows.targets, rows.hidden.rows),
      mask_problem(options.mask, rows.hidden.rows),
      options.inverse_temperatures.empty()
          ? nullptr
          : input_problem<"inverse_temperatures">(options.inverse_temperatures, rows.hidden.rows));
}

/// Of a gradient, if it is wanted: like the matrix it belongs to.
template <literal name, class T, class S>
static const char* gradient_of_problem(const matrix_view<T>& gradient,
                                       const matrix_view<const S>& matrix,
                                       const token_options& options) {
  if (gradient.data == nullptr && gradient.rows == 0) return nullptr;
  if (const char* why =
          first_of(matrix_problem<name>(gradient), padding_problem<name>(gradient, options))) {
    return why;
  }
  if (gradient.rows != matrix.rows || gradient.columns != matrix.columns) {
    return says<name, "differs in size from what it is the gradient of">;
  }
  if (static_cast<const void*>(gradient.data) == matrix.data) {
    return says<name, "must not lie where what it is the gradient of lies">;
  }
  return nullptr;
}

template <storage S>
static bool is_whole(const head_rows<S>& rows) {
  return rows.vocabulary == 0 || rows.vocabulary == rows.head.weight.rows;
}
inline constexpr const char* split_here = "vocabulary is split here: use head_vocabulary_partials";

}  // namespace detail

/// Why `head_log_probs` would refuse these arguments, or nullptr.
template <storage S>
static const char* problem(const head_rows<S>& rows, const token_outputs<float>& out) {
  if (const char* why = detail::head_problem(rows)) return why;
  if (!detail::is_whole(rows)) return detail::split_here;
  return detail::outputs_problem(out, rows.hidden.rows);
}
/// Of `head_log_probs_and_gradient`.
template <storage S>
static const char* problem(const head_rows<S>& rows, const token_outputs<float>& out,
                           const matrix_view<S>& d_hidden) {
  if (const char* why = problem(rows, out)) return why;
  if (rows.hidden.rows > 0 && d_hidden.data == nullptr) return "d_hidden is missing";
  return detail::gradient_of_problem<"d_hidden">(d_hidden, rows.hidden,
                                                 detail::token_options_of(rows));
}
/// Of `head_vocabulary_partials`.
template <storage S>
static const char* problem(const head_rows<S>& rows, strided_span<vocabulary_partial> out) {
  if (const char* why = detail::head_problem(rows)) return why;
  return detail::output_problem<"partials">(out, rows.hidden.rows);
}
/// Of `head_gradient`.
template <storage S>
static const char* problem(const head_rows<S>& rows, strided_span<const float> log_prob,
                           strided_span<const double> lse,
                           const token_coefficients<float>& coefficients,
                           const head_gradients<S>& gradients) {
  if (const char* why = detail::head_problem(rows)) return why;
  const std::int64_t n = rows.hidden.rows;
  const bool third = !coefficients.d_entropy.empty() || !coefficients.entropy.empty();
  if (const char* why = detail::first_of(
          detail::input_problem<"log_prob">(log_prob, n), detail::input_problem<"lse">(lse, n),
          detail::input_problem<"coefficients.softmax">(coefficients.softmax, n),
          detail::input_problem<"coefficients.onehot">(coefficients.onehot, n),
          third ? detail::input_problem<"coefficients.d_entropy">(coefficients.d_entropy, n)
                : nullptr,
          third ? detail::input_problem<"coefficients.entropy">(coefficients.entropy, n)
                : nullptr)) {
    return why;
  }
  const lm_head<S>& head = rows.head;
  if (head.lora.empty() && (gradients.lora_a.rows != 0 || gradients.lora_b.rows != 0)) {
    return "gradients of an adapter are asked for, and the head has none";
  }
  if (!gradients.bias.empty()) {
    if (const char* why =
            detail::output_problem<"gradients.bias">(gradients.bias, head.weight.rows)) {
      return why;
    }
  }
  const token_options o = detail::token_options_of(rows);
  return detail::first_of(
      detail::gradient_of_problem<"gradients.hidden">(gradients.hidden, rows.hidden, o),
      detail::gradient_of_problem<"gradients.weight">(gradients.weight, head.weight, o),
      detail::gradient_of_problem<"gradients.lora_a">(gradients.lora_a, head.lora.a, o),
      detail::gradient_of_problem<"gradients.lora_b">(gradients.lora_b, head.lora.b, o));
}
/// Of a ticket that `head_gradient` is given for these rows, which nothing else is known of.
template <storage S>
static const char* problem(const head_rows<S>& rows, head_ticket ticket) {
  using namespace detail;
  if (ticket.kept >= 0 && ticket.kept % head_row_multiple == 0 &&
      ticket.kept <=
          up_to_multiple(std::max<std::int64_t>(rows.scored_at_most, 1), head_row_multiple)) {
    return nullptr;
  }
  return "ticket is of no forward pass of these rows";
}

/// Of `head_step`.
template <storage S>
static const char* problem(const head_rows<S>& rows, const sequence_layout& layout,
                           std::int64_t at_a_time, const token_outputs<float>& out,
                           const token_coefficients<float>& coefficients,
                           const head_gradients<S>& gradients) {
  if (const char* why = problem(rows, out)) return why;
  if (const char* why = problem(rows, out.log_prob, out.lse, coefficients, gradients)) return why;
  if (const char* why = detail::layout_problem(layout, rows.hidden.rows)) return why;
  if (at_a_time < 1) return "at_a_time must be at least 1";
  const auto& entropy = coefficients.entropy;
  if (!entropy.empty() &&
      (entropy.data() != out.entropy.data() || entropy.stride() != out.entropy.stride())) {
    return "coefficients.entropy must be the row that out.entropy is";
  }
  return nullptr;
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
