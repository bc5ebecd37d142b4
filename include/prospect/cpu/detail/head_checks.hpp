// Argument checks of the head path.
#pragma once

#include <prospect/cpu/checks.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/head.hpp>
#include <prospect/layout.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

inline token_options token_options_of(const head_options& options) {
  return {.temperature = options.temperature,
          .soft_cap = options.soft_cap,
          .inverse_temperatures = options.inverse_temperatures,
          .mask = options.mask,
          .zero_padding = options.zero_padding};
}

/// `hidden` and `head.weight` have been checked.
template <storage S>
void check_lora(const lora_adapter<S>& lora, const matrix_view<const S>& hidden,
                const matrix_view<const S>& weight) {
  if (lora.empty()) return;
  check_matrix("head.lora.a", lora.a);
  check_matrix("head.lora.b", lora.b);
  if (lora.a.rows == 0) reject("head.lora.a", "has no rows");
  const auto agree = [](std::string_view name, std::int64_t has, const std::string& needs,
                        std::int64_t needed, const char* of_those) {
    if (has == needed) return;
    reject(name, "has " + std::to_string(has) + needs + std::to_string(needed) + of_those);
  };
  agree("head.lora.a", lora.a.columns, " columns, hidden has ", hidden.columns, "");
  agree("head.lora.b", lora.b.rows, " rows, head.weight has ", weight.rows, "");
  agree("head.lora.b", lora.b.columns, " columns, head.lora.a has ", lora.a.rows, " rows");
  if (!(std::abs(lora.scale) <= 1e30)) reject("head.lora.scale", "must lie within 1e30 of 0");
}

template <storage S>
checked_rows check_head(const matrix_view<const S>& hidden, const lm_head<S>& head,
                        const index_row& targets, const token_options& options) {
  parameters(prospect::detail::problem(options, head.weight.rows));
  check_matrix("hidden", hidden);
  if (hidden.rows > 0 && hidden.columns == 0) reject("hidden", "has no columns");
  check_matrix("head.weight", head.weight);
  if (head.weight.columns != hidden.columns) {
    reject("head.weight", "has " + std::to_string(head.weight.columns) + " columns, hidden has " +
                              std::to_string(hidden.columns));
  }
  optional_row("head.bias", head.bias, head.weight.rows);
  check_lora(head.lora, hidden, head.weight);
  if (targets.size() != hidden.rows) {
    reject("targets", "has " + std::to_string(targets.size()) + " elements, hidden has " +
                          std::to_string(hidden.rows) + " rows");
  }
  describes_memory("targets", targets.problem());
  check_mask(options.mask, hidden.rows);
  const scored_targets scored{targets, options.mask};
  check_indices("targets", scored, head.weight.rows);
  return {.targets = scored, .maps = check_maps(options, scored)};
}

/// A matrix without data and without rows is none.
template <class T>
bool wanted(const matrix_view<T>& m) {
  return m.data != nullptr || m.rows != 0;
}

/// A gradient, if it is wanted: like the matrix it belongs to.
template <class T, class S>
void check_gradient_of(std::string_view name, const matrix_view<T>& gradient,
                       const matrix_view<const S>& matrix, std::string_view matrix_name,
                       const token_options& options) {
  if (!wanted(gradient)) return;
  check_gradient(name, gradient, options);
  if (gradient.rows != matrix.rows || gradient.columns != matrix.columns) {
    reject(name, std::string{"differs in size from "}.append(matrix_name));
  }
  if (static_cast<const void*>(gradient.data) == matrix.data) {
    reject(name, std::string{"must not be "}.append(matrix_name).append(" itself"));
  }
}

template <storage S>
void check_gradients(const head_gradients<S>& g, const matrix_view<const S>& hidden,
                     const lm_head<S>& head, const token_options& options) {
  check_gradient_of("gradients.hidden", g.hidden, hidden, "hidden", options);
  check_gradient_of("gradients.weight", g.weight, head.weight, "head.weight", options);
  output_row("gradients.bias", g.bias, head.weight.rows);
  const bool none = head.lora.empty();
  if (none && wanted(g.lora_a)) reject("gradients.lora_a", "is given, and the head has no adapter");
  if (none && wanted(g.lora_b)) reject("gradients.lora_b", "is given, and the head has no adapter");
  check_gradient_of("gradients.lora_a", g.lora_a, head.lora.a, "head.lora.a", options);
  check_gradient_of("gradients.lora_b", g.lora_b, head.lora.b, "head.lora.b", options);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
