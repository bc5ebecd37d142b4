// What the C functions on tokens refuse: each argument of each function by its name, before
// anything is written.
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"

namespace {

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
const function forward{"log_probs", [](small_batch& b) {
                         return prospect_token_log_probs_cpu(b.x, &b.tokens, &b.results, nullptr,
                                                             &b.error);
                       }};
const function deferred{"log_probs_and_gradient", [](small_batch& b) {
                          return prospect_token_log_probs_and_gradient_cpu(
                              b.x, &b.tokens, &b.results, nullptr, &b.error);
                        }};
const function gradient{"logits_gradient", [](small_batch& b) {
                          return prospect_logits_gradient_cpu(b.x, b.to, &b.tokens, &b.coefficients,
                                                              nullptr, &b.error);
                        }};
const function partials{"vocabulary_partials", [](small_batch& b) {
                          return prospect_vocabulary_partials_cpu(
                              b.x, &b.tokens, 0, b.partials.data(), nullptr, &b.error);
                        }};
const function combine{"combine_partials", [](small_batch& b) {
                         return prospect_combine_partials_cpu(b.partials.data(), b.parts, &b.tokens,
                                                              &b.results, nullptr, &b.error);
                       }};
const function scale{"scale_rows", [](small_batch& b) {
                       return prospect_scale_rows_cpu(b.x, b.factors_row, nullptr, &b.error);
                     }};
const function sum{"sequence_sums", [](small_batch& b) {
                     return prospect_sequence_sums_cpu(&b.tokens, b.token_log_prob, b.sums_row,
                                                       b.counts_row, nullptr, &b.error);
                   }};
const function spread{"spread", [](small_batch& b) {
                        return prospect_spread_cpu(&b.tokens, b.d_sequence_row, b.d_token_row,
                                                   nullptr, &b.error);
                      }};
const function shift{"shift_targets", [](small_batch& b) {
                       return prospect_shift_targets_cpu(b.labels, &b.layout, b.shifted_row,
                                                         nullptr, &b.error);
                     }};
const function reduced_sum{"reduced_sums", [](small_batch& b) {
                             return prospect_reduced_sums_cpu(&b.tokens, &b.reducer, b.sums_row,
                                                              b.counts_row, nullptr, &b.error);
                           }};
const function reduced_spread{"reduced_spread", [](small_batch& b) {
                                return prospect_reduced_spread_cpu(
                                    &b.tokens, &b.reducer, b.d_sequence_row, b.reduced_d_token,
                                    nullptr, &b.error);
                              }};
const function wpo{"wpo_weights", [](small_batch& b) {
                     return prospect_wpo_weights_cpu(&b.tokens, b.wpo_log_prob, b.squares_row,
                                                     b.weight_row, nullptr, &b.error);
                   }};
const function in_pairs{"public_tokens", [](small_batch& b) {
                          return prospect_public_tokens_cpu(b.lengths_row, b.chosen_row,
                                                            b.rejected_row, b.public_row, nullptr,
                                                            &b.error);
                        }};
const function weigh_pairs{"pair_weights", [](small_batch& b) {
                             return prospect_pair_weights_cpu(b.given_weight, b.chosen_row,
                                                              b.rejected_row, b.pair_weight_row,
                                                              nullptr, &b.error);
                           }};

using spoiler = std::function<void(small_batch&)>;

/// Spoils a batch for each of the functions and expects each to say so.
void refused(std::initializer_list<function> functions, prospect_status status,
             const std::string& words, const spoiler& spoil) {
  for (const function& f : functions) {
    CAPTURE(f.name);
    small_batch b;
    spoil(b);
    testing::refused(f.call(b), status, b.error, words);
    CHECK(b.untouched());
  }
}

/// A row, the functions that take it and how many bytes its elements have.
struct named_token_row {
  const char* name;
  prospect_row& (*of)(small_batch&);
  std::vector<function> functions;
};
#define ROW(name, expression, ...)                                                            \
  named_token_row {                                                                           \
    name, [](small_batch& b) -> prospect_row& { return expression; }, std::vector<function> { \
      __VA_ARGS__                                                                             \
    }                                                                                         \
  }
const named_token_row all_rows[] = {
    ROW("targets", b.tokens.targets, forward, deferred, gradient, partials, combine, sum, spread,
        reduced_sum, reduced_spread, wpo),
    ROW("mask", b.tokens.mask, forward, deferred, gradient, partials, combine, sum, spread,
        reduced_sum, reduced_spread, wpo),
    ROW("inverse_temperatures", b.tokens.inverse_temperatures, forward, deferred, gradient,
        partials),
    ROW("log_prob", b.results.log_prob, forward, deferred, combine),
    ROW("lse", b.results.lse, forward, deferred, combine),
    ROW("entropy", b.results.entropy, forward, deferred, combine),
    ROW("sum_squares", b.results.sum_squares, forward, deferred, combine),
    ROW("mean_logit", b.results.mean_logit, forward, deferred, combine),
    ROW("target_is_argmax", b.results.target_is_argmax, forward, deferred, combine),
    ROW("log_prob", b.coefficients.log_prob, gradient),
    ROW("lse", b.coefficients.lse, gradient),
    ROW("d_token", b.coefficients.d_token, gradient),
    ROW("factors", b.factors_row, scale),
    ROW("log_prob", b.token_log_prob, sum),
    ROW("log_prob", b.sums_row, sum),
    ROW("tokens", b.counts_row, sum),
    ROW("d_sequence", b.d_sequence_row, spread),
    ROW("d_token", b.d_token_row, spread),
    ROW("labels", b.labels, shift),
    ROW("targets", b.shifted_row, shift),
    ROW("layout", b.layout.offsets, sum, spread, shift, reduced_sum, reduced_spread, wpo),
    ROW("log_prob", b.reducer.log_prob, reduced_sum, reduced_spread),
    ROW("reference", b.reducer.reference, reduced_sum, reduced_spread),
    ROW("public_tokens", b.reducer.public_tokens, reduced_sum, reduced_spread),
    ROW("log_prob", b.sums_row, reduced_sum),
    ROW("tokens", b.counts_row, reduced_sum),
    ROW("d_sequence", b.d_sequence_row, reduced_spread),
    ROW("d_token", b.reduced_d_token, reduced_spread),
    ROW("log_prob", b.wpo_log_prob, wpo),
    ROW("sum_squares", b.squares_row, wpo),
    ROW("weight", b.weight_row, wpo),
    ROW("tokens", b.lengths_row, in_pairs),
    ROW("public_tokens", b.public_row, in_pairs),
    ROW("chosen", b.chosen_row, in_pairs, weigh_pairs),
    ROW("rejected", b.rejected_row, in_pairs, weigh_pairs),
    ROW("pair_weight", b.pair_weight_row, weigh_pairs),
};
#undef ROW

}  // namespace

TEST_CASE("the batch that is spoilt below is right") {
  for (const function& f : {forward, deferred, gradient, partials, combine, scale, sum, spread,
                            shift, reduced_sum, reduced_spread, wpo, in_pairs, weigh_pairs}) {
    CAPTURE(f.name);
    small_batch b;
    const prospect_status status = f.call(b);
    CAPTURE(std::string{b.error.message});
    CHECK(status == PROSPECT_OK);
  }
}

TEST_CASE("what may be wrong with a row is found in every row of every function") {
  for (const named_token_row& row : all_rows) {
    CAPTURE(row.name);
    for (const function& f : row.functions) {
      CAPTURE(f.name);
      const auto spoilt = [&](prospect_status status, const std::string& words,
                              void (*spoil)(prospect_row&)) {
        small_batch b;
        spoil(row.of(b));
        const prospect_status got = f.call(b);
        // Where counts and sums are called what they are.
        const std::string name = row.name == std::string{"tokens"} ? "" : row.name;
        testing::refused(got, status, b.error, name);
        CHECK(std::string{b.error.message}.find(words) != std::string::npos);
        CHECK(b.untouched());
      };
      spoilt(PROSPECT_INVALID_ARGUMENT, "has a negative size",
             [](prospect_row& r) { r.size = -2; });
      spoilt(PROSPECT_INVALID_ARGUMENT, "has no data", [](prospect_row& r) { r.data = nullptr; });
      spoilt(PROSPECT_INVALID_ARGUMENT, "larger than any memory",
             [](prospect_row& r) { r.size = std::numeric_limits<std::int64_t>::max() / 2; });
      spoilt(PROSPECT_INVALID_ARGUMENT, "larger than any memory",
             [](prospect_row& r) { r.stride = std::int64_t{1} << 62, r.size += 1; });
      spoilt(PROSPECT_UNSUPPORTED, "reserved", [](prospect_row& r) { r.reserved = 1; });
      spoilt(PROSPECT_UNSUPPORTED, "dtype must be", [](prospect_row& r) { r.dtype = 77; });
      spoilt(PROSPECT_UNSUPPORTED, "dtype must be", [](prospect_row& r) {
        r.dtype = r.dtype == PROSPECT_F64 ? PROSPECT_I32 : PROSPECT_F16;
      });
      small_batch longer;  // one of two rows is then too long: either may be named
      row.of(longer).size += 1;
      CHECK(f.call(longer) == PROSPECT_INVALID_ARGUMENT);
      CHECK(longer.untouched());
      if (prospect_dtype_size(row.of(*std::make_unique<small_batch>()).dtype) > 1) {
        spoilt(PROSPECT_INVALID_ARGUMENT, "is not aligned to its elements",
               [](prospect_row& r) { r.data = static_cast<char*>(r.data) + 1; });
      }
    }
  }
}

TEST_CASE("short rows are refused where a function needs all of them") {
  const auto missing = [](const function& f, const char* words, const spoiler& spoil) {
    refused({f}, PROSPECT_INVALID_ARGUMENT, words, spoil);
  };
  for (const std::int64_t size : {0, 1}) {
    CAPTURE(size);
    missing(gradient, "log_prob", [=](auto& b) { b.coefficients.log_prob.size = size; });
    missing(gradient, "lse", [=](auto& b) { b.coefficients.lse.size = size; });
    missing(gradient, "d_token", [=](auto& b) { b.coefficients.d_token.size = size; });
    missing(scale, "factors", [=](auto& b) { b.factors_row.size = size; });
    missing(spread, "d_token", [=](auto& b) { b.d_token_row.size = size; });
    missing(sum, "log_prob", [=](auto& b) { b.token_log_prob.size = size; });
    missing(shift, "targets", [=](auto& b) { b.shifted_row.size = size; });
    refused({forward, deferred, gradient, partials}, PROSPECT_INVALID_ARGUMENT, "targets",
            [=](auto& b) { b.tokens.targets.size = size; });
    // Two coefficients.
    const auto two = [=](auto& b, std::int64_t softmax, std::int64_t onehot) {
      b.coefficients.softmax = b.coefficients.onehot = b.coefficients.d_token;
      b.coefficients.d_token = {};
      b.coefficients.softmax.size = softmax;
      b.coefficients.onehot.size = onehot;
    };
    missing(gradient, "softmax", [=](auto& b) { two(b, size, 2); });
    missing(gradient, "onehot", [=](auto& b) { two(b, 2, size); });
    // And a third, with the entropies.
    const auto third = [=](auto& b, std::int64_t d_entropy, std::int64_t entropy) {
      two(b, 2, 2);
      b.coefficients.d_entropy = b.coefficients.entropy = b.coefficients.softmax;
      b.coefficients.d_entropy.size = d_entropy;
      b.coefficients.entropy.size = entropy;
    };
    missing(gradient, "d_entropy has", [=](auto& b) { third(b, size, 2); });
    missing(gradient, "entropy has", [=](auto& b) { third(b, 2, size); });
    missing(gradient, "d_entropy has", [=](auto& b) { third(b, size, size); });
  }
  missing(spread, "d_sequence", [](auto& b) { b.d_sequence_row.size = 0; });
}

TEST_CASE("a row of another type is never read as if it were the right one") {
  // 8 bytes an element in memory that has 4: the read past the end that must not happen.
  refused({gradient}, PROSPECT_UNSUPPORTED, "d_token.dtype must be PROSPECT_F32",
          [](auto& b) { b.coefficients.d_token = c_row(b.given_lse); });
  refused({gradient}, PROSPECT_UNSUPPORTED, "log_prob.dtype must be PROSPECT_F32",
          [](auto& b) { b.coefficients.log_prob = c_row(b.given_lse); });
  refused({gradient}, PROSPECT_UNSUPPORTED, "lse.dtype must be PROSPECT_F64",
          [](auto& b) { b.coefficients.lse = c_row(b.given_log_prob); });
  refused({forward, deferred}, PROSPECT_UNSUPPORTED, "log_prob.dtype must be PROSPECT_F32",
          [](auto& b) { b.results.log_prob = c_row(b.lse); });
  refused({forward, deferred}, PROSPECT_UNSUPPORTED, "lse.dtype must be PROSPECT_F64",
          [](auto& b) { b.results.lse = c_row(b.log_prob); });
  refused({combine}, PROSPECT_UNSUPPORTED, "entropy.dtype must be",
          [](auto& b) { b.results.entropy = c_row(b.lse); });
  refused({scale}, PROSPECT_UNSUPPORTED, "factors.dtype must be PROSPECT_F32",
          [](auto& b) { b.factors_row = c_row(b.given_lse); });
  refused({sum}, PROSPECT_UNSUPPORTED, "log_prob.dtype must be PROSPECT_F64",
          [](auto& b) { b.sums_row = c_row(b.log_prob); });
  refused({sum}, PROSPECT_UNSUPPORTED, "counts.dtype must be PROSPECT_I32",
          [](auto& b) { b.counts_row = c_row(b.sums); });
  refused({shift}, PROSPECT_UNSUPPORTED, "targets.dtype must be PROSPECT_I32",
          [](auto& b) { b.shifted_row = c_row(b.lse); });
}

TEST_CASE("logits and gradients: sizes, pitches, types") {
  const std::initializer_list<function> all{forward, deferred, gradient, partials};
  constexpr auto invalid = PROSPECT_INVALID_ARGUMENT;
  refused(all, PROSPECT_UNSUPPORTED, "logits.reserved", [](auto& b) { b.x.reserved = 1; });
  refused(all, PROSPECT_UNSUPPORTED, "logits.dtype", [](auto& b) { b.x.dtype = PROSPECT_I32; });
  refused(all, invalid, "logits has a negative size", [](auto& b) { b.x.rows = -1; });
  refused(all, invalid, "logits has a pitch smaller than its columns",
          [](auto& b) { b.x.pitch = 2; });
  refused(all, invalid, "logits is larger than any memory",
          [](auto& b) { b.x.pitch = std::numeric_limits<std::int64_t>::max(); });
  refused(all, invalid, "logits has no data", [](auto& b) { b.x.data = nullptr; });
  refused(all, invalid, "logits is not aligned",
          [](auto& b) { b.x.data = reinterpret_cast<char*>(b.logits.data()) + 2; });
  refused({scale}, invalid, "matrix has no data", [](auto& b) { b.x.data = nullptr; });
  refused({gradient}, PROSPECT_UNSUPPORTED, "gradient.dtype must be that of the logits",
          [](auto& b) { b.to.dtype = PROSPECT_BF16; });
  refused({gradient}, PROSPECT_UNSUPPORTED, "gradient.reserved",
          [](auto& b) { b.to.reserved = 1; });
  refused({gradient}, invalid, "gradient differs in size", [](auto& b) { b.to.rows = 1; });
  refused({gradient}, invalid, "gradient differs in size", [](auto& b) { b.to.columns = 2; });
  refused({gradient}, invalid, "gradient has no data", [](auto& b) { b.to.data = nullptr; });
  refused({gradient}, invalid, "gradient has a pitch", [](auto& b) { b.to.pitch = 2; });
  for (const auto row :
       {&prospect_token_coefficients::d_entropy, &prospect_token_coefficients::entropy}) {
    refused({gradient}, invalid, "d_entropy goes with softmax and onehot",
            [=](auto& b) { b.coefficients.*row = b.coefficients.d_token; });
  }
  refused({gradient}, PROSPECT_UNSUPPORTED, "d_entropy.dtype must be PROSPECT_F32",
          [](auto& b) { b.coefficients.d_entropy = c_row(b.given_lse); });
  refused({gradient}, PROSPECT_UNSUPPORTED, "entropy.dtype must be PROSPECT_F32",
          [](auto& b) { b.coefficients.entropy = c_row(b.given_lse); });
  refused({gradient}, invalid, "d_token is given as well as softmax and onehot",
          [](auto& b) { b.coefficients.softmax = b.coefficients.d_token; });
}

TEST_CASE("a matrix of one row has no pitch") {
  small_batch b;
  b.x.rows = b.tokens.targets.size = b.tokens.mask.size = 1;
  b.tokens.inverse_temperatures.size = 1;
  b.x.pitch = 1;
  b.results = sized<prospect_token_results>();
  b.results.log_prob = c_row(b.log_prob);
  b.results.log_prob.size = 1;
  REQUIRE(forward.call(b) == PROSPECT_OK);
  CHECK_THAT(b.log_prob[0], WithinAbs(-2.4076059, 1e-6));
}

TEST_CASE("targets, masks, options and layouts that make no sense") {
  constexpr auto invalid = PROSPECT_INVALID_ARGUMENT;
  const std::initializer_list<function> all{forward, deferred, gradient, partials};
  refused(all, invalid, "targets[1] = 3", [](auto& b) { b.target[1] = 3; });
  refused(all, invalid, "targets[0] = -1", [](auto& b) { b.target[0] = -1; });
  refused(all, invalid, "temperature", [](auto& b) { b.tokens.temperature = -1; });
  refused(all, invalid, "temperature", [](auto& b) { b.tokens.temperature = 1e-300; });
  refused(all, invalid, "soft_cap", [](auto& b) { b.tokens.soft_cap = -30; });
  refused(all, invalid, "first_token", [](auto& b) { b.tokens.first_token = 1; });
  refused(all, invalid, "vocabulary", [](auto& b) { b.tokens.vocabulary = -1; });
  refused(all, invalid, "inverse_temperatures[1]", [](auto& b) { b.inverse[1] = 0; });
  refused(all, PROSPECT_UNSUPPORTED, "tokens.reserved", [](auto& b) { b.tokens.reserved = 1; });
  refused({forward, deferred}, invalid, "vocabulary", [](auto& b) { b.tokens.vocabulary = 9; });
  refused({combine}, invalid, "parts", [](auto& b) { b.parts = 0; });
  refused({combine}, invalid, "negative size", [](auto& b) { b.parts = -1; });
  refused({combine}, invalid, "larger than any memory",
          [](auto& b) { b.parts = std::int64_t{1} << 60; });

  const std::initializer_list<function> laid_out{sum, spread, shift};
  const auto padded = [](std::int64_t sequences, std::int64_t length) {
    return [=](auto& b) {
      b.layout = sized<prospect_layout>();
      b.layout.sequences = sequences;
      b.layout.length = length;
    };
  };
  refused(laid_out, invalid, "layout", padded(2, 2));
  refused(laid_out, invalid, "layout", padded(-1, -2));
  refused(laid_out, invalid, "layout", padded(std::int64_t{1} << 62, 2));
  refused(laid_out, invalid, "layout.offsets has not even one element",
          [](auto& b) { b.layout.offsets.size = 0; });
  refused(laid_out, invalid, "layout does not start", [](auto& b) { b.offset[0] = 1; });
  refused(laid_out, invalid, "layout has offsets as well as begins and ends",
          [](auto& b) { b.layout.begins = c_row(b.begin); });
  const auto ranges = [](auto& b) {
    b.layout = sized<prospect_layout>();
    b.layout.begins = c_row(b.begin);
    b.layout.ends = c_row(b.end);
  };
  refused(laid_out, invalid, "layout has a range that ends beyond", [=](auto& b) {
    ranges(b);
    b.end[0] = 3;
  });
  refused(laid_out, invalid, "layout has not as many ends", [=](auto& b) {
    ranges(b);
    b.layout.ends = {};
  });
  refused(laid_out, PROSPECT_UNSUPPORTED, "layout.ends.dtype", [=](auto& b) {
    ranges(b);
    b.layout.ends = c_row(b.inverse);
  });
  refused({shift}, invalid, "labels[1] = 2147483648", [](auto& b) {
    static const std::vector<std::int64_t> wide{0, std::int64_t{1} << 31};
    b.labels = c_row(wide);
  });
}

TEST_CASE("reducers and pairs that make no sense") {
  constexpr auto invalid = PROSPECT_INVALID_ARGUMENT;
  const std::initializer_list<function> reducing{reduced_sum, reduced_spread};
  refused(reducing, PROSPECT_UNSUPPORTED, "reducer.reserved",
          [](auto& b) { b.reducer.reserved = 1; });
  refused(reducing, invalid, "ld_alpha", [](auto& b) { b.reducer.ld_alpha = 1.5; });
  refused(reducing, invalid, "log_epsilon_P", [](auto& b) {
    b.reducer.log_epsilon_P = 2;
    b.reducer.log_epsilon_R = 1.5;
  });
  refused(reducing, invalid, "reference is missing", [](auto& b) {
    b.reducer.log_epsilon_R = 1.5;
    b.reducer.reference = {};
  });
  refused(reducing, invalid, "reference is missing", [](auto& b) {
    b.reducer.count_nonzero = 1;
    b.reducer.reference = {};
  });
  refused(reducing, invalid, "public_tokens is negative", [](auto& b) { b.in_common[0] = -1; });
  refused({in_pairs, weigh_pairs}, invalid, "rejected[0] = 2", [](auto& b) { b.rejected[0] = 2; });
  refused({in_pairs}, invalid, "more than once", [](auto& b) { b.rejected[0] = 0; });
  // Of weights there may be more than are in pairs.
  refused({weigh_pairs}, invalid, "weight has no data",
          [](auto& b) { b.given_weight.data = nullptr; });
  refused({weigh_pairs}, PROSPECT_UNSUPPORTED, "weight.dtype",
          [](auto& b) { b.given_weight.dtype = PROSPECT_I32; });
  refused({weigh_pairs}, invalid, "rejected[0] = 1", [](auto& b) { b.given_weight.size = 1; });
  // A row of no pairs is not the same as none.
  refused({weigh_pairs}, invalid, "pair_weight",
          [](auto& b) { b.chosen_row.size = b.rejected_row.size = 0; });
}

TEST_CASE("a reducer's fields that are 0 are not used") {
  small_batch b;
  b.reducer.public_tokens = {};
  REQUIRE(reduced_sum.call(b) == PROSPECT_OK);
  CHECK(b.sums == std::vector<double>{2});
  CHECK(b.counts == std::vector<std::int32_t>{2});
  b.reducer.log_epsilon_R = 0.25;
  REQUIRE(reduced_sum.call(b) == PROSPECT_OK);
  CHECK(b.sums == std::vector<double>{0.5});
  REQUIRE(reduced_spread.call(b) == PROSPECT_OK);
  CHECK(b.wide_d_token == std::vector<double>{0, 0});
  // But alpha, which cuts off.
  b.reducer = sized<prospect_token_reducer>();
  b.reducer.log_prob = c_row(b.wide_log_prob);
  b.reducer.public_tokens = c_row(b.in_common);
  b.in_common[0] = 1;
  REQUIRE(reduced_sum.call(b) == PROSPECT_OK);
  CHECK(b.sums == std::vector<double>{-1});
  // Pairs are halves where no indices are given.
  b.lengths = {2, 5};
  b.chosen_row = b.rejected_row = {};
  REQUIRE(in_pairs.call(b) == PROSPECT_OK);
  CHECK(b.public_lengths == std::vector<std::int32_t>{2, 2});
  REQUIRE(weigh_pairs.call(b) == PROSPECT_OK);
  CHECK(b.pair_weight == std::vector<double>{4});
}

TEST_CASE("the largest label that a target can hold is one") {
  small_batch b;
  const std::vector<std::int64_t> wide{0, (std::int64_t{1} << 31) - 1};
  b.labels = c_row(wide);
  REQUIRE(shift.call(b) == PROSPECT_OK);
  CHECK(b.shifted == std::vector<std::int32_t>{2147483647, -100});
}

TEST_CASE("NULL where a struct or memory must be") {
  small_batch b;
  prospect_error& e = b.error;
  const auto null = [&](prospect_status status, const char* words) {
    testing::refused(status, PROSPECT_INVALID_ARGUMENT, e, words);
  };
  null(prospect_token_log_probs_cpu(b.x, nullptr, &b.results, nullptr, &e), "tokens is NULL");
  null(prospect_token_log_probs_cpu(b.x, &b.tokens, nullptr, nullptr, &e), "results is NULL");
  null(prospect_token_log_probs_and_gradient_cpu(b.x, nullptr, &b.results, nullptr, &e),
       "tokens is NULL");
  null(prospect_token_log_probs_and_gradient_cpu(b.x, &b.tokens, nullptr, nullptr, &e),
       "results is NULL");
  null(prospect_logits_gradient_cpu(b.x, b.to, nullptr, &b.coefficients, nullptr, &e),
       "tokens is NULL");
  null(prospect_logits_gradient_cpu(b.x, b.to, &b.tokens, nullptr, nullptr, &e),
       "coefficients is NULL");
  null(prospect_vocabulary_partials_cpu(b.x, nullptr, 0, b.partials.data(), nullptr, &e),
       "tokens is NULL");
  null(prospect_vocabulary_partials_cpu(b.x, &b.tokens, 0, nullptr, nullptr, &e),
       "partials is NULL");
  null(prospect_combine_partials_cpu(nullptr, 1, &b.tokens, &b.results, nullptr, &e),
       "partials is NULL");
  null(prospect_combine_partials_cpu(b.partials.data(), 1, nullptr, &b.results, nullptr, &e),
       "tokens is NULL");
  null(prospect_combine_partials_cpu(b.partials.data(), 1, &b.tokens, nullptr, nullptr, &e),
       "results is NULL");
  null(prospect_sequence_sums_cpu(nullptr, b.token_log_prob, b.sums_row, {}, nullptr, &e),
       "tokens is NULL");
  null(prospect_spread_cpu(nullptr, b.d_sequence_row, b.d_token_row, nullptr, &e),
       "tokens is NULL");
  null(prospect_shift_targets_cpu(b.labels, nullptr, b.shifted_row, nullptr, &e), "layout is NULL");
  null(prospect_reduced_sums_cpu(&b.tokens, nullptr, b.sums_row, {}, nullptr, &e),
       "reducer is NULL");
  null(prospect_reduced_spread_cpu(nullptr, &b.reducer, b.d_sequence_row, b.reduced_d_token,
                                   nullptr, &e),
       "tokens is NULL");
  b.tokens.layout = nullptr;
  null(reduced_sum.call(b), "layout is NULL");
  null(sum.call(b), "layout is NULL");
  null(spread.call(b), "layout is NULL");
  CHECK(b.untouched());
}
