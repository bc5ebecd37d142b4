// The head path's arguments as the C API has them, as those of the library; for the host and for
// the device.
#pragma once

#include "tokens.hpp"

#include <prospect/head.hpp>

#include <string>

namespace prospect::kernels {

/// Whether a caller means a matrix.
inline bool given(const prospect_matrix& m) { return m.data != nullptr || m.rows != 0; }

inline const char* dtype_name(dtype type) {
  switch (type) {
    case dtype::f32:
      return "PROSPECT_F32";
    case dtype::f64:
      return "PROSPECT_F64";
    case dtype::f16:
      return "PROSPECT_F16";
    case dtype::bf16:
      return "PROSPECT_BF16";
  }
  return "";
}

/// A dtype that the hidden states' decides.
template <storage S>
void check_dtype(const char* name, std::int32_t type) {
  if (type == static_cast<std::int32_t>(dtype_of<S>)) return;
  const std::string wanted = std::string{dtype_name(dtype_of<S>)} + ", as the hidden states are";
  wrong_dtype(name, wanted.c_str());
}

/// A matrix of T's storage type, if it is given.
template <class T>
matrix_view<T> typed_matrix(const char* name, const prospect_matrix& m) {
  if (!given(m)) {
    check_reserved(name, m.reserved);
    return {};
  }
  check_dtype<std::remove_const_t<T>>(name, m.dtype);
  return matrix<T>(name, m);
}

/// The same of a row.
template <class T>
strided_span<T> typed_row(const char* name, const prospect_row& r) {
  check_row(name, r);
  if (r.size == 0) return {};
  check_dtype<std::remove_const_t<T>>(name, r.dtype);
  return {static_cast<T*>(r.data), r.size, r.stride};
}

template <storage S>
lm_head<S> head_of(const prospect_head* pointer) {
  const prospect_head h = versioned(pointer, "head");
  lm_head<S> head{.weight = typed_matrix<const S>("head.weight", h.weight),
                  .bias = typed_row<const S>("head.bias", h.bias)};
  if (!given(h.lora.a) && !given(h.lora.b)) return head;
  if (h.lora.scale == 0) {
    fail(PROSPECT_INVALID_ARGUMENT,
         "head.lora.scale is 0: leave an adapter out that is not to be seen");
  }
  head.lora = {.a = typed_matrix<const S>("head.lora.a", h.lora.a),
               .b = typed_matrix<const S>("head.lora.b", h.lora.b),
               .scale = h.lora.scale};
  return head;
}

template <storage S>
head_gradients<S> gradients_of(const prospect_head_gradients* pointer) {
  using R = compute_t<S>;
  const prospect_head_gradients g = versioned(pointer, "gradients");
  check_reserved("gradients", g.reserved);
  return {.hidden = typed_matrix<S>("gradients.hidden", g.hidden),
          .weight = typed_matrix<R>("gradients.weight", g.weight),
          .bias = typed_row<R>("gradients.bias", g.bias),
          .lora_a = typed_matrix<R>("gradients.lora_a", g.lora_a),
          .lora_b = typed_matrix<R>("gradients.lora_b", g.lora_b),
          .accumulate = g.accumulate != 0};
}

inline head_options head_options_of(const token_options& o) {
  return {.temperature = o.temperature,
          .soft_cap = o.soft_cap,
          .inverse_temperatures = o.inverse_temperatures,
          .mask = o.mask,
          .zero_padding = o.zero_padding};
}

/// On the host the head's rows are the whole vocabulary, whatever the tokens say of theirs.
inline head_options head_options_of(const tokens_of& tokens, std::int64_t vocabulary) {
  const token_options& o = tokens.options;
  if (o.first_token != 0 || (o.vocabulary != 0 && o.vocabulary != vocabulary)) {
    fail(PROSPECT_UNSUPPORTED,
         "tokens: the head path takes the whole vocabulary: first_token must be 0, and vocabulary "
         "0 or the rows of head.weight");
  }
  return head_options_of(o);
}

/// A step's own coefficients: from its own log-probs.
template <class R>
coefficients_of<R> step_coefficients_of(const prospect_token_coefficients* pointer) {
  const prospect_token_coefficients c = versioned(pointer, "coefficients");
  if (given(c.log_prob) || given(c.lse)) {
    fail(PROSPECT_INVALID_ARGUMENT,
         "coefficients.log_prob and coefficients.lse are given, and a step reads its own");
  }
  return coefficients_of<R>{pointer};
}

}  // namespace prospect::kernels
