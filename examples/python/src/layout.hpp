// What is known of the tokens of a batch, beside their logits: targets, mask, and which sequence
// they belong to.
#pragma once

#include "arrays.hpp"

namespace prospect::python {

/// `sequences` blocks of `length` rows, or packed by `offsets` where those are given.
inline prospect_layout layout_of(arrays& held, std::int64_t sequences, std::int64_t length,
                                 nb::handle offsets) {
  prospect_layout layout{};
  PROSPECT_INIT(layout);
  layout.offsets = held.read("offsets", offsets, made_of::indices);
  if (offsets.is_none()) {
    layout.sequences = sequences;
    layout.length = length;
  }
  return layout;
}

/// The tokens of a call on logits or hidden states; see prospect/c/tokens.h.
inline prospect_tokens tokens_of(arrays& held, nb::handle targets, nb::handle mask,
                                 nb::handle inverse_temperatures, double temperature,
                                 double soft_cap) {
  prospect_tokens tokens{};
  PROSPECT_INIT(tokens);
  tokens.targets = held.read("targets", targets, made_of::indices);
  tokens.mask = held.read("mask", mask, made_of::masks);
  tokens.inverse_temperatures =
      held.read("inverse_temperatures", inverse_temperatures, made_of::reals);
  tokens.temperature = temperature;
  tokens.soft_cap = soft_cap;
  return tokens;
}

/// Rows of results or coefficients; see prospect/c/tokens.h.
inline constexpr named_row<prospect_token_results> token_results[] = {
    {"log_prob", &prospect_token_results::log_prob},
    {"lse", &prospect_token_results::lse},
    {"entropy", &prospect_token_results::entropy},
    {"sum_squares", &prospect_token_results::sum_squares},
    {"mean_logit", &prospect_token_results::mean_logit},
    {"target_is_argmax", &prospect_token_results::target_is_argmax, made_of::flags},
};
inline constexpr named_row<prospect_token_coefficients> token_coefficients[] = {
    {"log_prob", &prospect_token_coefficients::log_prob},
    {"lse", &prospect_token_coefficients::lse},
    {"d_token", &prospect_token_coefficients::d_token},
    {"softmax", &prospect_token_coefficients::softmax},
    {"onehot", &prospect_token_coefficients::onehot},
    {"d_entropy", &prospect_token_coefficients::d_entropy},
    {"entropy", &prospect_token_coefficients::entropy},
};

}  // namespace prospect::python
