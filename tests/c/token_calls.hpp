// Every C function on tokens with all that it takes, on a batch that can be spoilt in one place:
// what the tests of refused arguments start from.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"

namespace testing::token_calls {

using testing::c_row;
using testing::sized;

/// Two rows of three logits, all that every function takes, and outputs that would show a write.
struct small_batch {
  std::vector<float> logits{1, 2, 3, 3, 2, 1}, gradient{7, 7, 7, 7, 7, 7};
  std::vector<float> log_prob{7, 7}, entropy{7, 7}, squares{7, 7}, mean{7, 7}, d_token{7, 7};
  std::vector<double> lse{7, 7}, sums{7}, d_sequence{1};
  std::vector<float> given_log_prob{-1, -1}, given_d{1, 1}, inverse{1, 1}, factors{2, 2};
  std::vector<double> given_lse{2, 2};
  std::vector<std::int32_t> target{0, 1}, offset{0, 2, 9}, begin{0}, end{2}, counts{7},
      shifted{7, 7};
  std::vector<std::uint8_t> hit{7, 7}, scored{1, 1};
  std::vector<double> wide_log_prob{-1, -1}, wide_reference{-2, -2}, wide_d_token{7, 7}, weight{7},
      pair_weight{7};
  std::vector<std::int32_t> in_common{2}, lengths{2, 2}, public_lengths{7, 7}, chosen{0},
      rejected{1};
  std::vector<prospect_partial> partials{prospect_partial{}, prospect_partial{}};
  prospect_error error{};

  prospect_matrix x = PROSPECT_MATRIX(logits.data(), 2, 3);
  prospect_matrix to = PROSPECT_MATRIX(gradient.data(), 2, 3);
  prospect_layout layout = sized<prospect_layout>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_token_results results = sized<prospect_token_results>();
  prospect_token_coefficients coefficients = sized<prospect_token_coefficients>();
  prospect_row token_log_prob = c_row(given_log_prob), sums_row = c_row(sums),
               counts_row = c_row(counts), d_sequence_row = c_row(d_sequence),
               d_token_row = c_row(d_token), factors_row = c_row(factors), labels = c_row(target),
               shifted_row = c_row(shifted);
  prospect_token_reducer reducer = sized<prospect_token_reducer>();
  prospect_row reduced_d_token = c_row(wide_d_token), squares_row = c_row(given_lse),
               wpo_log_prob = c_row(wide_log_prob), weight_row = c_row(weight),
               lengths_row = c_row(lengths), public_row = c_row(public_lengths),
               given_weight = c_row(given_lse), chosen_row = c_row(chosen),
               rejected_row = c_row(rejected), pair_weight_row = c_row(pair_weight);
  std::int64_t parts = 1;

  small_batch() {
    layout.offsets = PROSPECT_ROW(offset.data(), 2);  // and what a longer row would read
    tokens.targets = c_row(target);
    tokens.mask = c_row(scored);
    tokens.inverse_temperatures = c_row(inverse);
    tokens.layout = &layout;
    results.log_prob = c_row(log_prob);
    results.lse = c_row(lse);
    results.entropy = c_row(entropy);
    results.sum_squares = c_row(squares);
    results.mean_logit = c_row(mean);
    results.target_is_argmax = c_row(hit);
    coefficients.log_prob = c_row(given_log_prob);
    coefficients.lse = c_row(given_lse);
    coefficients.d_token = c_row(given_d);
    reducer.log_prob = c_row(wide_log_prob);
    reducer.reference = c_row(wide_reference);
    reducer.public_tokens = c_row(in_common);
  }
  small_batch(const small_batch&) = delete;

  bool untouched() const {
    return logits == std::vector<float>{1, 2, 3, 3, 2, 1} &&
           gradient == std::vector<float>{7, 7, 7, 7, 7, 7} &&
           log_prob == std::vector<float>{7, 7} && entropy == log_prob && squares == log_prob &&
           mean == log_prob && d_token == log_prob && lse == std::vector<double>{7, 7} &&
           sums == std::vector<double>{7} && counts == std::vector<std::int32_t>{7} &&
           wide_d_token == lse && weight == sums && pair_weight == sums &&
           public_lengths == shifted && shifted == std::vector<std::int32_t>{7, 7} &&
           hit == std::vector<std::uint8_t>{7, 7};
  }
};

struct function {
  const char* name;
  prospect_status (*call)(small_batch&);
};
inline const function forward{"log_probs", [](small_batch& b) {
                                return prospect_token_log_probs_cpu(b.x, &b.tokens, &b.results,
                                                                    nullptr, &b.error);
                              }};
inline const function deferred{"log_probs_and_gradient", [](small_batch& b) {
                                 return prospect_token_log_probs_and_gradient_cpu(
                                     b.x, &b.tokens, &b.results, nullptr, &b.error);
                               }};
inline const function gradient{"logits_gradient", [](small_batch& b) {
                                 return prospect_logits_gradient_cpu(
                                     b.x, b.to, &b.tokens, &b.coefficients, nullptr, &b.error);
                               }};
inline const function partials{"vocabulary_partials", [](small_batch& b) {
                                 return prospect_vocabulary_partials_cpu(
                                     b.x, &b.tokens, 0, b.partials.data(), nullptr, &b.error);
                               }};
inline const function combine{"combine_partials", [](small_batch& b) {
                                return prospect_combine_partials_cpu(b.partials.data(), b.parts,
                                                                     &b.tokens, &b.results, nullptr,
                                                                     &b.error);
                              }};
inline const function scale{"scale_rows", [](small_batch& b) {
                              return prospect_scale_rows_cpu(b.x, b.factors_row, nullptr, &b.error);
                            }};
inline const function sum{"sequence_sums", [](small_batch& b) {
                            return prospect_sequence_sums_cpu(&b.tokens, b.token_log_prob,
                                                              b.sums_row, b.counts_row, nullptr,
                                                              &b.error);
                          }};
inline const function spread{"spread", [](small_batch& b) {
                               return prospect_spread_cpu(&b.tokens, b.d_sequence_row,
                                                          b.d_token_row, nullptr, &b.error);
                             }};
inline const function shift{"shift_targets", [](small_batch& b) {
                              return prospect_shift_targets_cpu(b.labels, &b.layout, b.shifted_row,
                                                                nullptr, &b.error);
                            }};
inline const function reduced_sum{"reduced_sums", [](small_batch& b) {
                                    return prospect_reduced_sums_cpu(&b.tokens, &b.reducer,
                                                                     b.sums_row, b.counts_row,
                                                                     nullptr, &b.error);
                                  }};
inline const function reduced_spread{"reduced_spread", [](small_batch& b) {
                                       return prospect_reduced_spread_cpu(
                                           &b.tokens, &b.reducer, b.d_sequence_row,
                                           b.reduced_d_token, nullptr, &b.error);
                                     }};
inline const function wpo{"wpo_weights", [](small_batch& b) {
                            return prospect_wpo_weights_cpu(&b.tokens, b.wpo_log_prob,
                                                            b.squares_row, b.weight_row, nullptr,
                                                            &b.error);
                          }};
inline const function in_pairs{"public_tokens", [](small_batch& b) {
                                 return prospect_public_tokens_cpu(b.lengths_row, b.chosen_row,
                                                                   b.rejected_row, b.public_row,
                                                                   nullptr, &b.error);
                               }};
inline const function weigh_pairs{"pair_weights", [](small_batch& b) {
                                    return prospect_pair_weights_cpu(
                                        b.given_weight, b.chosen_row, b.rejected_row,
                                        b.pair_weight_row, nullptr, &b.error);
                                  }};

using spoiler = std::function<void(small_batch&)>;

/// Spoils a batch for each of the functions and expects each to say so.
inline void refused(std::initializer_list<function> functions, prospect_status status,
                    const std::string& words, const spoiler& spoil) {
  for (const function& f : functions) {
    CAPTURE(f.name);
    small_batch b;
    spoil(b);
    testing::refused(f.call(b), status, b.error, words);
    CHECK(b.untouched());
  }
}

}  // namespace testing::token_calls
