// What the C functions on tokens refuse beside rows: matrices, targets, masks, options, layouts,
// reducers, and NULL where a struct must be.
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "c/token_calls.hpp"

namespace {

using namespace testing::token_calls;

}  // namespace

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
