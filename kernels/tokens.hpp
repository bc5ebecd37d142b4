// Tokens as the C API has them, as views and options of the library; for the host and for the
// device.
#pragma once

#include "views.hpp"

#include <prospect/token_reducer.hpp>
#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cstddef>

namespace prospect::kernels {

inline sequence_layout layout_of(const prospect_layout* pointer) {
  const prospect_layout l = versioned(pointer, "layout");
  const bool packed = given(l.offsets), ranges = given(l.begins) || given(l.ends);
  if (packed && ranges) {
    fail(PROSPECT_INVALID_ARGUMENT, "layout has offsets as well as begins and ends");
  }
  if (ranges) {
    return sequence_layout::ranges(indices("layout.begins", l.begins),
                                   indices("layout.ends", l.ends));
  }
  if (!packed) return sequence_layout::padded(l.sequences, l.length);
  if (l.offsets.size == 0)
    fail(PROSPECT_INVALID_ARGUMENT, "layout.offsets has not even one element");
  return sequence_layout::packed(indices("layout.offsets", l.offsets));
}

/// What is known of a batch's tokens. The layout is read where it is needed.
struct tokens_of {
  prospect_tokens given;
  index_row targets;
  token_options options;

  explicit tokens_of(const prospect_tokens* pointer)
      : given{versioned(pointer, "tokens")}, targets{indices("targets", given.targets)} {
    check_reserved("tokens", given.reserved);
    options.mask = kernels::mask("mask", given.mask);
    options.inverse_temperatures =
        row<const float>("inverse_temperatures", given.inverse_temperatures);
    if (given.temperature != 0) options.temperature = given.temperature;
    if (given.soft_cap != 0) options.soft_cap = given.soft_cap;
    options.first_token = given.first_token;
    options.vocabulary = given.vocabulary;
    options.zero_padding = given.zero_padding != 0;
  }
  sequence_layout layout() const { return layout_of(given.layout); }
};

inline token_reducer reducer_of(const prospect_token_reducer* pointer) {
  const prospect_token_reducer r = versioned(pointer, "reducer");
  check_reserved("reducer", r.reserved);
  token_reducer by;
  by.log_prob = real_row<const_any_row>("log_prob", r.log_prob);
  by.reference = real_row<const_any_row>("reference", r.reference);
  if (r.log_epsilon_P != 0) by.log_epsilon_P = r.log_epsilon_P;
  if (r.log_epsilon_R != 0) by.log_epsilon_R = r.log_epsilon_R;
  by.count_nonzero = r.count_nonzero != 0;
  by.public_tokens = row<const std::int32_t>("public_tokens", r.public_tokens);
  by.ld_alpha = r.ld_alpha;
  return by;
}

inline sequence_pairs pairs_of(const prospect_row& chosen, const prospect_row& rejected) {
  if (!given(chosen) && !given(rejected)) return sequence_pairs::halves();
  return sequence_pairs::indexed(indices("chosen", chosen), indices("rejected", rejected));
}

template <class R>
token_outputs<R> outputs_of(const prospect_token_results* pointer) {
  const prospect_token_results r = versioned(pointer, "results");
  return {.log_prob = row<R>("log_prob", r.log_prob),
          .lse = row<double>("lse", r.lse),
          .entropy = row<R>("entropy", r.entropy),
          .sum_squares = row<R>("sum_squares", r.sum_squares),
          .mean_logit = row<R>("mean_logit", r.mean_logit),
          .target_is_argmax = row<std::uint8_t>("target_is_argmax", r.target_is_argmax)};
}

/// Calls `body` with a value of the type that gathered partials become: that of the first row that
/// is wanted.
template <class Body>
void with_results(const prospect_token_results* pointer, const Body& body) {
  const prospect_token_results r = versioned(pointer, "results");
  if (r.log_prob.size != 0) return with_arithmetic("log_prob", r.log_prob.dtype, body);
  if (r.entropy.size != 0) return with_arithmetic("entropy", r.entropy.dtype, body);
  if (r.sum_squares.size != 0) return with_arithmetic("sum_squares", r.sum_squares.dtype, body);
  if (r.mean_logit.size != 0) return with_arithmetic("mean_logit", r.mean_logit.dtype, body);
  body(float{});
}

/// What goes back into the logits: one coefficient a row, or two and perhaps that of its entropy.
template <class R>
struct coefficients_of {
  strided_span<const R> log_prob;
  strided_span<const double> lse;
  strided_span<const R> d_token;
  token_coefficients<R> rows;
  bool one;

  explicit coefficients_of(const prospect_token_coefficients* pointer) {
    const prospect_token_coefficients c = versioned(pointer, "coefficients");
    log_prob = row<const R>("log_prob", c.log_prob);
    lse = row<const double>("lse", c.lse);
    d_token = row<const R>("d_token", c.d_token);
    rows = {.softmax = row<const R>("softmax", c.softmax),
            .onehot = row<const R>("onehot", c.onehot),
            .d_entropy = row<const R>("d_entropy", c.d_entropy),
            .entropy = row<const R>("entropy", c.entropy)};
    const bool two = kernels::given(c.softmax) || kernels::given(c.onehot);
    const bool third = kernels::given(c.d_entropy) || kernels::given(c.entropy);
    one = !two && !third;
    if (two && kernels::given(c.d_token)) {
      fail(PROSPECT_INVALID_ARGUMENT,
           "d_token is given as well as softmax and onehot: which of them is meant?");
    }
    if (third && !two) {
      fail(PROSPECT_INVALID_ARGUMENT, "d_entropy goes with softmax and onehot, not with d_token");
    }
    if (!third) return;
    as_long("d_entropy", rows.d_entropy);
    as_long("entropy", rows.entropy);
  }

 private:
  /// An empty row is none to the library: of one that is meant, the coefficient would be lost.
  void as_long(const char* name, const strided_span<const R>& given) const {
    if (given.size() == rows.softmax.size()) return;
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " has " + std::to_string(given.size()) +
                                        " elements, softmax has " +
                                        std::to_string(rows.softmax.size()));
  }
};

/// Logits and their gradient, which is in their place or elsewhere.
template <storage S>
matrix_view<S> gradient_matrix(const prospect_matrix& logits, const prospect_matrix& gradient) {
  if (gradient.dtype != logits.dtype) {
    fail(PROSPECT_UNSUPPORTED, "gradient.dtype must be that of the logits");
  }
  return matrix<S>("gradient", gradient);
}

static_assert(sizeof(prospect_partial) == sizeof(vocabulary_partial) &&
              alignof(prospect_partial) == alignof(vocabulary_partial) &&
              offsetof(prospect_partial, after) == offsetof(vocabulary_partial, after));

/// The same numbers under the library's name, `rows` in each of so many parts.
inline matrix_view<const vocabulary_partial> gathered(const prospect_partial* p, std::int64_t parts,
                                                      std::int64_t rows) {
  const matrix_view<const vocabulary_partial> all{
      reinterpret_cast<const vocabulary_partial*>(&require(p, "partials")), parts, rows};
  if (const char* why = detail::view_problem(all)) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{"partials "} + why);
  }
  return all;
}
inline strided_span<vocabulary_partial> partials_row(prospect_partial* p, std::int64_t rows) {
  const strided_span<vocabulary_partial> all{
      reinterpret_cast<vocabulary_partial*>(&require(p, "partials")), rows};
  if (const char* why = detail::view_problem(all)) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{"partials "} + why);
  }
  return all;
}

}  // namespace prospect::kernels
