// What the C functions on tokens refuse of rows: each row of each function by its name, before
// anything is written.
#include <cstdint>
#include <limits>
#include <memory>
#include <string>

#include "c/token_calls.hpp"

namespace {

using namespace testing::token_calls;

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
