// What the head paths of all back ends work on: the last layer of a model, how its logits become a
// distribution, and where its gradients go.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>
#include <prospect/core/strided_span.hpp>
#include <prospect/tokens.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

/// A low-rank adapter of the head (LoRA): its weight is weight + scale b a, which is never formed.
/// Both matrices or neither; the rank, at least 1, is what they have in common.
template <storage S>
struct lora_adapter {
  matrix_view<const S> a{};  ///< [rank, hidden], any pitch
  matrix_view<const S> b{};  ///< [vocabulary, rank], any pitch
  double scale = 1;          ///< alpha / rank as a rule; within 1e30 of 0, which it may be

  /// Whether there is none.
  PROSPECT_HD constexpr bool empty() const noexcept {
    return a.data == nullptr && a.rows == 0 && b.data == nullptr && b.rows == 0;
  }
};

/// The last layer of a language model: logits = hidden (weight + scale b a)^T + bias.
template <storage S>
struct lm_head {
  matrix_view<const S> weight;   ///< [vocabulary, hidden], any pitch
  strided_span<const S> bias{};  ///< [vocabulary]; empty: none
  lora_adapter<S> lora{};        ///< empty: none, logits = hidden weight^T + bias
};

/// As in `token_options`.
struct head_options {
  double temperature = 1;
  double soft_cap = no_cap;
  strided_span<const float> inverse_temperatures{};  ///< [tokens]; empty: 1 for all
  mask_row mask{};                                   ///< [tokens]; empty: everything is scored
  /// Whether columns [columns, pitch) of every row of the gradients that are matrices become 0.
  /// Otherwise they are left as they are.
  bool zero_padding = false;
};

/// What a backward pass leaves; a part that is empty is neither written nor computed. Those of an
/// adapter are refused where the head has none; beside them that of the weight is one's choice.
template <storage S>
struct head_gradients {
  matrix_view<S> hidden{};             ///< [tokens, hidden], not the hidden states themselves
  matrix_view<compute_t<S>> weight{};  ///< [vocabulary, hidden]
  strided_span<compute_t<S>> bias{};   ///< [vocabulary]
  matrix_view<compute_t<S>> lora_a{};  ///< [rank, hidden]
  matrix_view<compute_t<S>> lora_b{};  ///< [vocabulary, rank]
  bool accumulate = false;  ///< add to all but hidden, which is overwritten, instead of overwriting
};

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
