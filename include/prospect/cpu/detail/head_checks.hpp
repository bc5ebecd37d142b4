// Argument checks of the head path.
#pragma once

#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/head_arguments.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/layout.hpp>

#include <cstdint>
#include <string>
#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu::detail {

inline token_options token_options_of(const head_options& options) {
  return {.temperature = options.temperature, .soft_cap = options.soft_cap};
}

template <class T>
void check_view(std::string_view name, const matrix_view<T>& m) {
  describes_memory(name, prospect::detail::view_problem(m));
}

template <storage S>
void check_head(const matrix_view<const S>& hidden, const lm_head<S>& head,
                const index_row& targets) {
  check_view("hidden", hidden);
  if (hidden.rows > 0 && hidden.columns == 0) reject("hidden", "has no columns");
  check_view("head.weight", head.weight);
  if (head.weight.columns != hidden.columns) {
    reject("head.weight", "has " + std::to_string(head.weight.columns) + " columns, hidden has " +
                              std::to_string(hidden.columns));
  }
  optional_row("head.bias", head.bias, head.weight.rows);
  describes_memory("targets", targets.problem());
  if (targets.size() != hidden.rows) {
    reject("targets", "has " + std::to_string(targets.size()) + " elements, hidden has " +
                          std::to_string(hidden.rows) + " rows");
  }
  check_indices("targets", targets, head.weight.rows);
}

/// A matrix without data and without rows is none.
template <class T>
bool wanted(const matrix_view<T>& m) {
  return m.data != nullptr || m.rows != 0;
}

/// How far a row of a gradient is written.
template <class T>
std::int64_t written_columns(const matrix_view<T>& m, bool zero_padding) {
  return zero_padding && m.pitch > m.columns ? m.pitch : m.columns;
}

template <class T>
void check_gradient_matrix(std::string_view name, const matrix_view<T>& m, std::int64_t rows,
                           std::int64_t columns, std::string_view like, bool zero_padding) {
  if (!wanted(m)) return;
  check_view(name, m);
  if (m.rows != rows || m.columns != columns)
    reject(name, "differs in size from " + std::string{like});
  // That of a single row counts here and nowhere else.
  using prospect::detail::matrix_problem;
  describes_memory(name, matrix_problem(m.data, m.rows, written_columns(m, zero_padding), m.pitch,
                                        sizeof(T), alignof(T)));
}

template <storage S>
void check_hidden_gradient(std::string_view name, const matrix_view<S>& gradient,
                           const matrix_view<const S>& hidden, bool zero_padding) {
  check_gradient_matrix(name, gradient, hidden.rows, hidden.columns, "hidden", zero_padding);
  if (wanted(gradient) && gradient.data == hidden.data) {
    reject(name, "must not be hidden itself");
  }
}

template <storage S>
void check_gradients(const head_gradients<S>& g, const matrix_view<const S>& hidden,
                     const lm_head<S>& head, bool zero_padding) {
  check_hidden_gradient("gradients.hidden", g.hidden, hidden, zero_padding);
  check_gradient_matrix("gradients.weight", g.weight, head.weight.rows, head.weight.columns,
                        "head.weight", zero_padding);
  output_row("gradients.bias", g.bias, head.weight.rows);
}

}  // namespace prospect::inline v1::cpu::detail
PROSPECT_STRICT_END
