// The C functions on tokens against the C++ ones, dtype by dtype, layout by layout, option by
// option.
#include <prospect/cpu/tokens.hpp>

#include <cstdint>
#include <vector>

#include "c/token_cases.hpp"
#include "catch.hpp"

namespace {

using prospect::index_row;
using prospect::sequence_layout;
using testing::c_row;
using testing::close;
using testing::same_bits;
using testing::sized;
using testing::token_case;

void ok(prospect_status status, const prospect_error& error) {
  CAPTURE(std::string{error.message});
  REQUIRE(status == PROSPECT_OK);
}

/// What one batch is called with on both surfaces.
struct call {
  prospect_tokens tokens;
  prospect_layout layout;
  index_row targets;
  sequence_layout layout_of_cpp;
  prospect::token_options options;
};

/// Every function on tokens, one after the other, through both surfaces.
template <class S>
void check_all(call given) {
  using R = prospect::compute_t<S>;
  token_case<S> c, cpp;
  const std::vector<S> before = c.logits;
  given.tokens.layout = &given.layout;
  const prospect_tokens& tokens = given.tokens;
  const prospect::mask_row mask = given.options.mask;
  prospect_error error{};

  const auto results = c.c_results();
  prospect::cpu::token_log_probs<S>(cpp.matrix(), given.targets, cpp.results(), given.options);
  ok(prospect_token_log_probs_cpu(c.c_matrix(), &tokens, &results, nullptr, &error), error);
  CHECK(close(c.log_prob, cpp.log_prob));
  CHECK(close(c.lse, cpp.lse));
  CHECK(close(c.entropy, cpp.entropy));
  CHECK(close(c.squares, cpp.squares));
  CHECK(close(c.mean, cpp.mean));
  CHECK(c.hit == cpp.hit);
  CHECK(same_bits(c.logits, before));

  prospect::cpu::sequence_sums<R>(c.log_prob, given.targets, given.layout_of_cpp,
                                  {.log_prob = cpp.sums, .tokens = cpp.counts}, mask);
  ok(prospect_sequence_sums_cpu(&tokens, c_row(c.log_prob), c_row(c.sums), c_row(c.counts), nullptr,
                                &error),
     error);
  CHECK(same_bits(c.sums, cpp.sums));
  CHECK(c.counts == cpp.counts);

  const std::vector<double> d{-0.3, 0.7};
  prospect::cpu::spread<R>(d, given.targets, given.layout_of_cpp, cpp.d_token, mask);
  ok(prospect_spread_cpu(&tokens, c_row(d), c_row(c.d_token), nullptr, &error), error);
  CHECK(same_bits(c.d_token, cpp.d_token));

  // One coefficient elsewhere, two and three elsewhere, one in place.
  token_case<S> elsewhere{73}, elsewhere_of_cpp{73};
  auto coefficients = c.c_coefficients();
  const auto write_gradient = [&](prospect_matrix to) {
    ok(prospect_logits_gradient_cpu(c.c_matrix(), to, &tokens, &coefficients, nullptr, &error),
       error);
  };
  write_gradient(elsewhere.c_matrix());
  prospect::cpu::logits_gradient<S>(cpp.matrix(), elsewhere_of_cpp.matrix(), given.targets,
                                    c.log_prob, c.lse, c.d_token, given.options);
  CHECK(close(elsewhere.logits, elsewhere_of_cpp.logits));
  CHECK_FALSE(same_bits(elsewhere.logits, token_case<S>{73}.logits));
  CHECK(same_bits(c.logits, before));

  std::vector<R> softmax, onehot;
  for (const R x : c.d_token) softmax.push_back(-x), onehot.push_back(R(1) - x);
  coefficients.d_token = {};
  coefficients.softmax = c_row(softmax);
  coefficients.onehot = c_row(onehot);
  write_gradient(elsewhere.c_matrix());
  prospect::cpu::logits_gradient<S>(cpp.matrix(), elsewhere_of_cpp.matrix(), given.targets,
                                    c.log_prob, c.lse, {.softmax = softmax, .onehot = onehot},
                                    given.options);
  CHECK(close(elsewhere.logits, elsewhere_of_cpp.logits));

  coefficients.d_entropy = c_row(onehot);
  coefficients.entropy = c_row(c.entropy);
  write_gradient(elsewhere.c_matrix());
  const auto two = elsewhere_of_cpp.logits;
  prospect::cpu::logits_gradient<S>(
      cpp.matrix(), elsewhere_of_cpp.matrix(), given.targets, c.log_prob, c.lse,
      {.softmax = softmax, .onehot = onehot, .d_entropy = onehot, .entropy = c.entropy},
      given.options);
  CHECK(close(elsewhere.logits, elsewhere_of_cpp.logits));
  CHECK_FALSE(same_bits(elsewhere_of_cpp.logits, two));

  coefficients = c.c_coefficients();
  write_gradient(c.c_matrix());
  prospect::cpu::logits_gradient<S>(cpp.matrix(), given.targets, c.log_prob, c.lse, c.d_token,
                                    given.options);
  CHECK(close(c.logits, cpp.logits));
  CHECK_FALSE(same_bits(c.logits, before));

  // Deferred: the same gradient, its coefficients later.
  token_case<S> one_pass;
  const auto one_pass_results = one_pass.c_results();
  ok(prospect_token_log_probs_and_gradient_cpu(one_pass.c_matrix(), &tokens, &one_pass_results,
                                               nullptr, &error),
     error);
  CHECK(close(one_pass.log_prob, c.log_prob));
  CHECK(close(one_pass.entropy, c.entropy));
  ok(prospect_scale_rows_cpu(one_pass.c_matrix(), c_row(c.d_token), nullptr, &error), error);
  CHECK(close(one_pass.logits, c.logits, 2));  // 16-bit storage is rounded twice

  ok(prospect_shift_targets_cpu(tokens.targets, &given.layout, c_row(c.shifted), nullptr, &error),
     error);
  prospect::cpu::shift_targets(given.targets, given.layout_of_cpp, cpp.shifted);
  CHECK(c.shifted == cpp.shifted);
}

template <class Index>
struct token_batch {
  std::vector<Index> target{2, -100, 0, 4, -100, 1};
  std::vector<Index> offset{0, 2, 6}, begin{1, 3}, end{2, 5};

  call padded() const {
    call c{.tokens = sized<prospect_tokens>(),
           .layout = sized<prospect_layout>(),
           .targets = target,
           .layout_of_cpp = sequence_layout::padded(2, 3),
           .options = {}};
    c.tokens.targets = c_row(target);
    c.layout.sequences = 2;
    c.layout.length = 3;
    return c;
  }
  call packed() const {
    call c = padded();
    // Nonsense in the fields that a packed layout ignores.
    c.layout.sequences = -5;
    c.layout.length = 99;
    c.layout.offsets = c_row(offset);
    c.layout_of_cpp = sequence_layout::packed(offset);
    return c;
  }
  call ranges() const {
    call c = padded();
    c.layout.begins = c_row(begin);
    c.layout.ends = c_row(end);
    c.layout_of_cpp = sequence_layout::ranges(begin, end);
    return c;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("the token functions of the archive are those of the headers", "", float, double,
                   prospect::float16, prospect::bfloat16) {
  const token_batch<std::int32_t> narrow;
  const token_batch<std::int64_t> wide;
  for (const call& c : {narrow.padded(), narrow.packed(), narrow.ranges(), wide.padded(),
                        wide.packed(), wide.ranges()}) {
    check_all<TestType>(c);
  }
}

TEMPLATE_TEST_CASE("options reach the kernels", "", float, prospect::bfloat16) {
  const token_batch<std::int32_t> b;
  call c = b.packed();
  SECTION("temperature and soft cap") {
    c.tokens.temperature = c.options.temperature = 0.7;
    c.tokens.soft_cap = c.options.soft_cap = 4;
    check_all<TestType>(c);
  }
  SECTION("inverse temperatures") {
    const std::vector<float> inverse{1.5F, 0.25F, 2, 1, 3, 0.5F};
    c.tokens.inverse_temperatures = c_row(inverse);
    c.options.inverse_temperatures = inverse;
    c.tokens.temperature = c.options.temperature = 0.7;
    check_all<TestType>(c);
  }
  SECTION("masks of every type") {
    const std::vector<std::uint8_t> bytes{1, 1, 0, 255, 1, 0};
    const std::vector<std::int32_t> words{1, 1, 0, -7, 1, 0};
    const std::vector<float> numbers{1, 1, 0, 0.5F, 1, -0.0F};
    const auto masked = [&](prospect_row row, prospect::mask_row of_cpp) {
      c.tokens.mask = row;
      c.options.mask = of_cpp;
      check_all<TestType>(c);
    };
    masked(c_row(bytes), bytes);
    masked(c_row(words), words);
    masked(c_row(numbers), numbers);
    prospect_row flags = c_row(bytes);
    flags.dtype = PROSPECT_BOOL;
    masked(flags, bytes);
  }
  SECTION("padding that becomes 0") {
    c.tokens.zero_padding = 1;
    c.options.zero_padding = true;
    check_all<TestType>(c);
  }
}

TEST_CASE("the padding of an in-place gradient: left alone, or 0 where that is asked for") {
  // Vocabulary 3 in a pitch of 4, as a host has it that multiplies over all four.
  std::vector<float> logits{1, 2, 3, 77, 2, 1, 0, 77};
  const std::vector<std::int32_t> target{1, -100};
  std::vector<float> log_prob(2), d{-1, 5};
  std::vector<double> lse(2);
  auto tokens = sized<prospect_tokens>();
  tokens.targets = c_row(target);
  auto results = sized<prospect_token_results>();
  results.log_prob = c_row(log_prob);
  results.lse = c_row(lse);
  prospect_matrix x = PROSPECT_MATRIX(logits.data(), 2, 3);
  x.pitch = 4;
  REQUIRE(prospect_token_log_probs_cpu(x, &tokens, &results, nullptr, nullptr) == PROSPECT_OK);
  auto coefficients = sized<prospect_token_coefficients>();
  coefficients.log_prob = c_row(log_prob);
  coefficients.lse = c_row(lse);
  coefficients.d_token = c_row(d);
  const std::vector<float> saved = logits;
  REQUIRE(prospect_logits_gradient_cpu(x, x, &tokens, &coefficients, nullptr, nullptr) ==
          PROSPECT_OK);
  CHECK(logits[3] == 77);
  CHECK(logits[7] == 77);
  logits = saved;
  tokens.zero_padding = 1;
  REQUIRE(prospect_logits_gradient_cpu(x, x, &tokens, &coefficients, nullptr, nullptr) ==
          PROSPECT_OK);
  CHECK(logits[3] == 0);
  CHECK(logits[7] == 0);
  CHECK_THAT(logits[0], WithinAbs(0.09003057, 1e-6));
  CHECK_THAT(logits[1], WithinAbs(-0.75527153, 1e-6));
}

TEST_CASE("a vocabulary in parts, combined in fp32 and fp64") {
  token_case<float> c;
  const token_batch<std::int32_t> b;
  call given = b.packed();
  prospect_error error{};
  std::vector<prospect_partial> gathered(2 * 6);
  const std::int64_t first[] = {0, 2}, width[] = {2, 3};
  for (std::size_t part = 0; part < 2; ++part) {
    given.tokens.first_token = first[part];
    given.tokens.vocabulary = 5;
    prospect_matrix x = c.c_matrix();
    x.data = c.logits.data() + first[part];
    x.columns = width[part];
    ok(prospect_vocabulary_partials_cpu(x, &given.tokens, 1, gathered.data() + 6 * part, nullptr,
                                        &error),
       error);
  }
  given.tokens.first_token = given.tokens.vocabulary = 0;
  const auto results = c.c_results();
  ok(prospect_combine_partials_cpu(gathered.data(), 2, &given.tokens, &results, nullptr, &error),
     error);
  token_case<float> whole;
  prospect::cpu::token_log_probs<float>(whole.matrix(), b.target, whole.results());
  CHECK(close(c.log_prob, whole.log_prob));
  CHECK(close(c.entropy, whole.entropy));
  CHECK(c.hit == whole.hit);
  // The same numbers as doubles.
  std::vector<double> wide(6, 7);
  auto doubles = sized<prospect_token_results>();
  doubles.log_prob = c_row(wide);
  ok(prospect_combine_partials_cpu(gathered.data(), 2, &given.tokens, &doubles, nullptr, &error),
     error);
  CHECK(close(std::vector<float>(wide.begin(), wide.end()), whole.log_prob));
}

TEST_CASE("coefficients go back to the tokens from whatever row they are in") {
  const std::vector<std::int32_t> target{1, -100, 0};
  auto layout = sized<prospect_layout>();
  layout.sequences = 1;
  layout.length = 3;
  auto tokens = sized<prospect_tokens>();
  tokens.targets = c_row(target);
  tokens.layout = &layout;
  const auto spread_to = [&](const auto& d, auto zero) {
    std::vector<decltype(zero)> d_token(3, decltype(zero)(7));
    REQUIRE(prospect_spread_cpu(&tokens, c_row(d), c_row(d_token), nullptr, nullptr) ==
            PROSPECT_OK);
    CHECK(d_token[1] == 0);
    CHECK(d_token[0] == d_token[2]);
    return d_token[0];
  };
  // Those of an fp32 batch, that of a bf16 one, and fp64 into fp32 logits' rows.
  CHECK(spread_to(std::vector<float>{-0.024F}, 0.0F) == -0.024F);
  CHECK(spread_to(std::vector<float>{-0.024F}, 0.0) == double{-0.024F});
  CHECK(spread_to(std::vector<double>{-0.024}, 0.0F) == -0.024F);
  CHECK(spread_to(std::vector<double>{-0.024}, 0.0) == -0.024);
  CHECK(spread_to(std::vector<prospect::bfloat16>{prospect::bfloat16{-0.75F}}, 0.0F) == -0.75F);
}
