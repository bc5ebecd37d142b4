// What the head paths of all back ends work on: the last layer of a model, how its logits become a
// distribution, and where its gradients go.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>
#include <prospect/tokens.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// The last layer of a language model: logits = hidden weight^T + bias.
template <storage S>
struct lm_head {
  matrix_view<const S> weight;   ///< [vocabulary, hidden], any pitch
  strided_span<const S> bias{};  ///< [vocabulary]; empty: none
};

/// As in `token_options`.
struct head_options {
  double temperature = 1;
  double soft_cap = no_cap;
  strided_span<const float> inverse_temperatures{};  ///< [tokens]; empty: 1 for all
  mask_row mask{};                                   ///< [tokens]; empty: everything is scored
  /// Whether columns [columns, pitch) of every row of `hidden` and `weight` gradients become 0.
  /// Otherwise they are left as they are.
  bool zero_padding = false;
};

/// What a backward pass leaves; a part that is empty is neither written nor computed.
template <storage S>
struct head_gradients {
  matrix_view<S> hidden{};             ///< [tokens, hidden], not the hidden states themselves
  matrix_view<compute_t<S>> weight{};  ///< [vocabulary, hidden]
  strided_span<compute_t<S>> bias{};   ///< [vocabulary]
  bool accumulate = false;             ///< add to weight and bias instead of overwriting them
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
