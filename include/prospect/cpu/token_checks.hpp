// Argument checks of the token phases on the CPU: sizes, targets, masks and options, before any
// work is done. The twin of cuda/token_checks.hpp, with a look at the rows themselves.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/cpu/checks.hpp>
#include <prospect/layout.hpp>
#include <prospect/tokens.hpp>

#include <limits>
#include <string>
#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

using prospect::detail::coefficient_rows;
using prospect::detail::loss_coefficients;
using prospect::detail::row_coefficients;
using prospect::detail::row_maps;
using prospect::detail::scored_targets;

inline std::string place_in(std::string_view name, std::int64_t i) {
  return std::string{name}.append("[").append(std::to_string(i)).append("]");
}

/// Refuses an index that is neither -100 nor inside [0, end), by its position and value.
template <class Indices>
void check_indices(std::string_view name, const Indices& indices, std::int64_t end) {
  for (std::int64_t t = 0; t < indices.size(); ++t) {
    const std::int64_t index = indices[t];
    if (index == ignored_target || (index >= 0 && index < end)) continue;
    reject(place_in(name, t), "= " + std::to_string(index) + " is neither -100 nor inside [0, " +
                                  std::to_string(end) + ")");
  }
}

/// A mask may be left out.
inline void check_mask(const mask_row& mask, std::int64_t rows) {
  if (mask.empty()) return;
  if (mask.size() != rows) wrong_size("mask", mask.size(), rows);
  describes_memory("mask", mask.problem());
}

template <class T>
void check_matrix(std::string_view name, const matrix_view<T>& m) {
  describes_memory(name, prospect::detail::view_problem(m));
}

/// The matrix of a gradient: with its padding, where that is to be written.
template <class T>
void check_gradient(std::string_view name, const matrix_view<T>& m, const token_options& options) {
  check_matrix(name, m);
  if (options.zero_padding && m.pitch > m.columns) {
    check_matrix(name, matrix_view<T>{m.data, m.rows, m.pitch});
  }
}

/// The maps of rows, of which those that are scored must be sane.
inline row_maps check_maps(const token_options& options, const scored_targets& targets) {
  const row_maps maps = prospect::detail::maps_of(options);
  const auto& own = options.inverse_temperatures;
  optional_row("inverse_temperatures", own, targets.size());
  for (std::int64_t t = 0; t < own.size(); ++t) {
    if (targets[t] == ignored_target) continue;
    if (prospect::detail::moderate(maps[t].inverse_temperature)) continue;
    reject(place_in("inverse_temperatures", t),
           "= " + std::to_string(own[t]) +
               ", divided by the temperature, must lie inside [1e-30, 1e30]");
  }
  return maps;
}

/// Two coefficients a row; a third comes with the entropies.
template <std::floating_point R>
void check_coefficients(const token_coefficients<R>& given, std::int64_t rows) {
  require_row("coefficients.softmax", given.softmax, rows);
  require_row("coefficients.onehot", given.onehot, rows);
  if (given.d_entropy.empty() && given.entropy.empty()) return;
  require_row("coefficients.d_entropy", given.d_entropy, rows);
  require_row("coefficients.entropy", given.entropy, rows);
}

/// What a pass over rows of logits goes by.
struct checked_rows {
  scored_targets targets;
  row_maps maps;
};

template <class T>
checked_rows check_logits(const matrix_view<T>& logits, const index_row& targets,
                          const token_options& options) {
  check_matrix("logits", logits);
  parameters(prospect::detail::problem(options, logits.columns));
  if (targets.size() != logits.rows) {
    reject("targets", "has " + std::to_string(targets.size()) + " elements, the logits have " +
                          std::to_string(logits.rows) + " rows");
  }
  describes_memory("targets", targets.problem());
  check_mask(options.mask, logits.rows);
  const scored_targets scored{targets, options.mask};
  check_indices("targets", scored, options.vocabulary == 0 ? logits.columns : options.vocabulary);
  return {.targets = scored, .maps = check_maps(options, scored)};
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
checked_rows check_forward(const matrix_view<T>& logits, const index_row& targets,
                           const token_outputs<R>& out, const token_options& options) {
  const checked_rows rows = check_logits(logits, targets, options);
  if (options.vocabulary != 0 && options.vocabulary != logits.columns) {
    reject("vocabulary", "is split here: use vocabulary_partials and combine");
  }
  check_outputs(out, logits.rows);
  return rows;
}

inline void check_layout(const sequence_layout& layout, std::int64_t rows) {
  if (const char* why = layout.problem(rows)) reject("layout", why);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
