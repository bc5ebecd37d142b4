// Tokens as the C API has them, as views of the library; for the host and for the device.
#pragma once

#include "boundary.hpp"

#include <prospect/core/matrix_view.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cstddef>

namespace prospect::kernels {

template <class T>
matrix_view<T> matrix(const prospect_logits& l) {
  check_reserved("logits", l.reserved);
  if (l.rows < 0 || l.columns < 0) fail(PROSPECT_INVALID_ARGUMENT, "logits have a negative size");
  if (l.rows == 0) return {nullptr, 0, l.columns, l.pitch};
  // One row through the common checks: NULL and alignment.
  const auto first = row("logits", static_cast<T*>(l.data), l.columns, 1);
  return {first.data(), l.rows, l.columns, l.pitch};
}

inline sequence_layout layout_of(const prospect_layout* pointer) {
  const prospect_layout& l = require(pointer, "layout");
  if (l.offsets.row.size != 0) {
    return sequence_layout::packed(indices("layout.offsets", l.offsets));
  }
  return sequence_layout::padded(l.sequences, l.length);
}

inline index_row targets_of(const prospect_indices* targets) {
  return indices("targets", require(targets, "targets"));
}

template <class R>
token_outputs<R> outputs_of(prospect_row log_prob, prospect_row lse,
                            const prospect_token_statistics* pointer) {
  const prospect_token_statistics s =
      pointer == nullptr ? prospect_token_statistics{} : versioned(pointer, "statistics");
  return {.log_prob = out<R>("log_prob", log_prob),
          .lse = out<double>("lse", lse),
          .entropy = out<R>("entropy", s.entropy),
          .sum_squares = out<R>("sum_squares", s.sum_squares),
          .mean_logit = out<R>("mean_logit", s.mean_logit),
          .target_is_argmax = out<std::uint8_t>("target_is_argmax", s.target_is_argmax)};
}

/// Options of a call; an executor is the host's alone.
inline token_options token_options_of(const prospect_token_options& given) {
  token_options options;
  if (given.temperature != 0) options.temperature = given.temperature;
  if (given.soft_cap != 0) options.soft_cap = given.soft_cap;
  options.first_token = given.first_token;
  options.vocabulary = given.vocabulary;
  return options;
}
inline prospect_token_options given_options(const prospect_token_options* pointer) {
  return pointer == nullptr ? prospect_token_options{} : versioned(pointer, "options");
}

static_assert(sizeof(prospect_partial) == sizeof(vocabulary_partial) &&
              alignof(prospect_partial) == alignof(vocabulary_partial) &&
              offsetof(prospect_partial, after) == offsetof(vocabulary_partial, after));

/// The same numbers under the library's name.
inline vocabulary_partial* partials_of(prospect_partial* p) {
  return reinterpret_cast<vocabulary_partial*>(p);
}
inline const vocabulary_partial* partials_of(const prospect_partial* p) {
  return reinterpret_cast<const vocabulary_partial*>(p);
}

}  // namespace prospect::kernels
