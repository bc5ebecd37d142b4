// What the token phases refuse on the CPU, by the name of the argument and before any work.

#include <prospect/cpu/token_checks.hpp>
#include <prospect/cpu/tokens.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::ignored_target;
using prospect::matrix_view;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::token_options;
using prospect::cpu::logits_gradient;
using prospect::cpu::token_log_probs;
using prospect::cpu::token_log_probs_and_gradient;
using prospect::cpu::vocabulary_partials;
using testing::logits_matrix;
using testing::refuses;
using testing::same_bits;

using testing::infinity;
using testing::not_a_number;
constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();

}  // namespace

TEST_CASE("a target outside the vocabulary is refused with its place and value",
          "[tokens][errors]") {
  logits_matrix<float> logits{3, 8};
  const auto clean = logits.elements();
  for (const std::int64_t bad :
       {std::int64_t{8}, std::int64_t{-1}, std::int64_t{-101}, (std::int64_t{1} << 32) + 2}) {
    const std::vector<std::int64_t> targets{1, 2, bad};
    std::vector<float> log_prob(3, testing::poison<float>());
    const auto poisoned = log_prob;
    const std::vector<float> d(3, 1.0F);
    const std::vector<double> lse(3);
    CAPTURE(bad);
    const auto run_forward = [&] {
      token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob});
    };
    const auto run_backward = [&] {
      logits_gradient<float>(logits.view(), targets, log_prob, lse, d);
    };
    CHECK(testing::refuses("targets[2]", run_forward));
    CHECK(testing::refuses(std::to_string(bad), run_forward));
    CHECK(testing::refuses("targets[2]", run_backward));
    CHECK(same_bits(log_prob, poisoned));
    CHECK(same_bits(logits.elements(), clean));
  }
}

TEST_CASE("rows of the wrong size are refused by name", "[tokens][errors]") {
  logits_matrix<float> logits{3, 8};
  const std::vector<std::int32_t> targets{1, 2, 3}, two_targets{1, 2};
  std::vector<float> three(3), two(2);
  std::vector<double> lse(3), two_lse(2);
  using testing::refuses;
  CHECK(refuses("targets",
                [&] { token_log_probs<float>(logits.view(), two_targets, {.log_prob = three}); }));
  CHECK(refuses("log_prob",
                [&] { token_log_probs<float>(logits.view(), targets, {.log_prob = two}); }));
  CHECK(refuses("lse", [&] { token_log_probs<float>(logits.view(), targets, {.lse = two_lse}); }));
  CHECK(refuses("lse", [&] {
    token_log_probs<float>(logits.view(), targets, {.lse = {lse.data(), 3, 0}});
  }));
  auto narrow = logits.view();
  narrow.pitch = 7;
  CHECK(refuses("pitch", [&] { token_log_probs<float>(narrow, targets, {.log_prob = three}); }));
  auto negative = logits.view();
  negative.columns = -1;
  CHECK(refuses("logits", [&] { token_log_probs<float>(negative, targets, {.log_prob = three}); }));

  CHECK(refuses("targets",
                [&] { logits_gradient<float>(logits.view(), two_targets, three, lse, three); }));
  CHECK(refuses("log_prob",
                [&] { logits_gradient<float>(logits.view(), targets, two, lse, three); }));
  CHECK(refuses("lse",
                [&] { logits_gradient<float>(logits.view(), targets, three, two_lse, three); }));
  CHECK(
      refuses("d_token", [&] { logits_gradient<float>(logits.view(), targets, three, lse, two); }));
}

TEST_CASE("each row of results and of coefficients is refused by its own name",
          "[tokens][errors]") {
  logits_matrix<float> logits{3, 8};
  const std::vector<std::int32_t> targets{1, 2, 3};
  std::vector<float> three(3), two(2);
  std::vector<double> lse(3), two_lse(2);
  std::vector<std::uint8_t> two_flags(2);
  const auto forward = [&](const prospect::token_outputs<float>& out) {
    return testing::refusal([&] { token_log_probs<float>(logits.view(), targets, out); });
  };
  const std::string short_row = " has 2 elements, 3 are needed";
  CHECK(forward({.log_prob = two}) == "prospect: log_prob" + short_row);
  CHECK(forward({.lse = two_lse}) == "prospect: lse" + short_row);
  CHECK(forward({.entropy = two}) == "prospect: entropy" + short_row);
  CHECK(forward({.sum_squares = two}) == "prospect: sum_squares" + short_row);
  CHECK(forward({.mean_logit = two}) == "prospect: mean_logit" + short_row);
  CHECK(forward({.target_is_argmax = two_flags}) == "prospect: target_is_argmax" + short_row);

  const auto backward = [&](const prospect::token_coefficients<float>& c) {
    return testing::refusal(
        [&] { logits_gradient<float>(logits.view(), logits.view(), targets, three, lse, c); });
  };
  CHECK(backward({.softmax = two, .onehot = three}) ==
        "prospect: coefficients.softmax" + short_row);
  CHECK(backward({.softmax = three, .onehot = two}) == "prospect: coefficients.onehot" + short_row);
}

TEST_CASE("options without a meaning are refused by name", "[tokens][options][errors]") {
  logits_matrix<float> logits{1, 4};
  logits.fill_row(0, [](std::int64_t) { return 0.0; });
  const auto clean = logits.elements();
  const std::vector<std::int64_t> targets{1};
  std::vector<float> log_prob{testing::poison<float>()};
  std::vector<double> lse{0};
  const std::vector<float> one{1.0F};
  std::vector<prospect::vocabulary_partial> partials(1);
  const auto refused_everywhere = [&](const std::string& name, const token_options& options) {
    using namespace prospect::cpu;
    const prospect::token_outputs<float> out{.log_prob = log_prob};
    const std::vector<float> zero{0.0F};
    return testing::refuses(
               name, [&] { token_log_probs<float>(logits.view(), targets, out, options); }) &&
           testing::refuses(name,
                            [&] {
                              token_log_probs_and_gradient<float>(logits.view(), targets, out,
                                                                  options);
                            }) &&
           testing::refuses(
               name,
               [&] { logits_gradient<float>(logits.view(), targets, zero, lse, one, options); }) &&
           testing::refuses(name, [&] {
             vocabulary_partials<float>(logits.view(), targets, partials, options);
           });
  };
  for (const double bad : {0.0, -1.0, 1e-300, 0.99e-30, 1.01e30, 1e300, infinity, not_a_number}) {
    CAPTURE(bad);
    CHECK(refused_everywhere("temperature", {.temperature = bad}));
  }
  for (const double bad : {0.0, -30.0, 1e-300, 0.99e-30, 1.01e30, -infinity, not_a_number}) {
    CAPTURE(bad);
    CHECK(refused_everywhere("soft_cap", {.soft_cap = bad}));
  }
  CHECK(refused_everywhere("first_token", {.first_token = -1}));
  CHECK(refused_everywhere("first_token", {.first_token = 1}));
  CHECK(refused_everywhere("first_token", {.first_token = 7, .vocabulary = 10}));
  CHECK(refused_everywhere("first_token", {.first_token = most, .vocabulary = most}));
  CHECK(refused_everywhere("vocabulary", {.vocabulary = 3}));
  CHECK(refused_everywhere("vocabulary is negative", {.vocabulary = -1}));
  // The rows of options.
  const std::vector<float> two_factors{1, 1};
  CHECK(refused_everywhere("inverse_temperatures", {.inverse_temperatures = two_factors}));
  CHECK(refused_everywhere("inverse_temperatures", {.inverse_temperatures = {nullptr, 1}}));
  const std::vector<std::uint8_t> two_marks{1, 1};
  CHECK(refused_everywhere("mask", {.mask = two_marks}));
  const std::int32_t* const no_marks = nullptr;
  CHECK(refused_everywhere("mask", {.mask = {no_marks, 1}}));
  CHECK(same_bits(log_prob[0], testing::poison<float>()));
  CHECK(same_bits(logits.elements(), clean));
  // A part of the vocabulary has no log-prob of its own.
  CHECK(testing::refuses("vocabulary", [&] {
    prospect::cpu::token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob},
                                          {.vocabulary = 8});
  }));
}

TEST_CASE("a row's temperature that is none is refused with its place and value",
          "[tokens][errors]") {
  logits_matrix<float> logits{3, 4};
  for (std::int64_t t = 0; t < 3; ++t) logits.fill_row(t, [](std::int64_t) { return 0.0; });
  const std::vector<std::int64_t> targets{1, ignored_target, 2};
  std::vector<float> log_prob(3, 7.0F);
  const auto run = [&](float x, double temperature, std::size_t place) {
    std::vector<float> own(3, 1.0F);
    own[place] = x;
    return testing::refusal([&] {
      token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob},
                             {.temperature = temperature, .inverse_temperatures = own});
    });
  };
  for (const float bad : {0.0F, -1.0F, 1e-31F, 1e31F, static_cast<float>(infinity),
                          static_cast<float>(not_a_number)}) {
    CAPTURE(bad);
    CHECK(run(bad, 1, 2).find("inverse_temperatures[2]") != std::string::npos);
    CHECK(run(bad, 1, 1) == "accepted");  // of a row that is not scored
  }
  // It is the product that counts.
  CHECK(run(1e20F, 1e-20, 0).find("inverse_temperatures[0]") != std::string::npos);
  CHECK(run(1e20F, 1e20, 0) == "accepted");
}

TEST_CASE("temperatures at the ends of their interval give numbers", "[tokens]") {
  logits_matrix<float> logits{1, 3};
  const std::vector<std::int64_t> targets{0};
  std::vector<float> log_prob(1);
  const std::vector<double> row{2, 1, -3};
  const auto run = [&](const token_options& options) {
    logits.fill_row(0, [&](std::int64_t j) { return row[static_cast<std::size_t>(j)]; });
    token_log_probs_and_gradient<float>(logits.view(), targets, {.log_prob = log_prob}, options);
    for (const float x : logits.elements()) CHECK(std::isfinite(x));
    return log_prob[0];
  };
  CHECK(run({.temperature = 1e-30}) == 0);
  CHECK(testing::near(run({.temperature = 1e30}), -std::log(3.0L), 1e-6L));
  CHECK(testing::near(run({.soft_cap = 1e-30}), -std::log(3.0L), 1e-6L));
}

TEST_CASE("a mask's target may be anything, an unmasked one may not", "[tokens][errors]") {
  logits_matrix<float> logits{2, 4};
  for (std::int64_t t = 0; t < 2; ++t) logits.fill_row(t, [](std::int64_t) { return 0.0; });
  const std::vector<std::int64_t> targets{1, 99};
  const std::vector<float> hides{1, 0}, shows{0, 1};
  std::vector<float> log_prob(2);
  const prospect::token_outputs<float> out{.log_prob = log_prob};
  token_log_probs<float>(logits.view(), targets, out, {.mask = hides});
  CHECK(log_prob[1] == 0);
  CHECK(refuses("targets[1]",
                [&] { token_log_probs<float>(logits.view(), targets, out, {.mask = shows}); }));
}

TEST_CASE("rows to scale of the wrong size are refused by name", "[tokens][errors]") {
  logits_matrix<float> m{2, 5};
  const std::vector<float> three(3, 1.0F), two(2, 1.0F);
  CHECK(refuses("factors", [&] { prospect::cpu::scale_rows<float>(m.view(), three); }));
  auto narrow = m.view();
  narrow.pitch = 4;
  CHECK(refuses("matrix has a pitch", [&] { prospect::cpu::scale_rows<float>(narrow, two); }));
}

// --------------------------------------------------------------------------------- hostile sizes

TEST_CASE("matrices that no memory holds are refused, and end no program", "[tokens][errors]") {
  float x[64] = {};
  const std::int32_t zero = 0;
  const auto refused = [&](const matrix_view<float>& logits) {
    const strided_span<const std::int32_t> targets{&zero, logits.rows, 0};
    const strided_span<const float> row{x, logits.rows, 0};
    const double lse = 0;
    return refuses("logits", [&] { token_log_probs<float>(logits, targets, {}); }) &&
           refuses("logits", [&] { token_log_probs_and_gradient<float>(logits, targets, {}); }) &&
           refuses("logits",
                   [&] {
                     logits_gradient<float>(logits, targets, row, {&lse, logits.rows, 0}, row);
                   }) &&
           refuses("logits",
                   [&] { vocabulary_partials<float>(logits, targets, {}, token_options{}); }) &&
           refuses("matrix", [&] { prospect::cpu::scale_rows<float>(logits, row); });
  };
  CHECK(refused({x, most / 2, 1, 1}));
  CHECK(refused({x, most / 2, 0, 0}));
  CHECK(refused({x, 2, 8, (std::int64_t{1} << 46) + 3}));
  CHECK(refused({x, 2, 8, most}));
  CHECK(refused({x, 3, 8, std::int64_t{1} << 62}));
  CHECK(refused({x, std::int64_t{1} << 62, 8, 8}));
  CHECK(refused({x, 2, std::int64_t{1} << 62, std::int64_t{1} << 62}));
  CHECK(refused({x, 1, std::int64_t{1} << 62, 1}));
  CHECK(refused({x, -1, 8, 8}));
  CHECK(refused({x, 2, -8, 8}));
  CHECK(refused({x, 2, 8, 7}));
  CHECK(refused({nullptr, 2, 8, 8}));
  CHECK(refused({reinterpret_cast<float*>(reinterpret_cast<char*>(x) + 2), 2, 8, 8}));
}

TEST_CASE("rows that no memory holds are refused by name", "[tokens][errors]") {
  float x[8] = {};
  const matrix_view<float> logits{x, 2, 4};
  const std::int32_t targets[] = {0, 0};
  std::vector<float> row(2);
  std::vector<double> lse(2);
  constexpr std::int64_t far = std::int64_t{1} << 62;
  CHECK(refuses("log_prob", [&] {
    token_log_probs<float>(logits, targets, {.log_prob = {row.data(), 2, far}});
  }));
  CHECK(refuses("lse", [&] { token_log_probs<float>(logits, targets, {.lse = {nullptr, 2}}); }));
  CHECK(refuses("targets", [&] {
    token_log_probs<float>(logits, strided_span<const std::int32_t>{targets, 2, far}, {});
  }));
  CHECK(refuses("targets", [&] {
    token_log_probs<float>(logits, strided_span<const std::int64_t>{nullptr, 2}, {});
  }));
  CHECK(refuses("gradient", [&] {
    logits_gradient<float>(logits, {x, 2, 4, most}, targets, row, lse, row);
  }));
  CHECK(refuses("gradient", [&] {
    logits_gradient<float>(logits, {nullptr, 2, 4}, targets, row, lse, row);
  }));
  CHECK(refuses("gradient", [&] {
    logits_gradient<float>(logits, {x, 2, 3}, targets, row, lse, row);
  }));
  CHECK(refuses("d_token", [&] {
    logits_gradient<float>(logits, logits, targets, row, lse, strided_span<const float>{x, 1});
  }));
  CHECK(refuses("d_token", [&] {
    logits_gradient<float>(logits, logits, targets, row, lse,
                           strided_span<const float>{nullptr, 2});
  }));
  CHECK(refuses("factors", [&] {
    prospect::cpu::scale_rows<float>(logits, {row.data(), 2, -far});
  }));
  // One row: its padding counts where it is written.
  const matrix_view<float> one{x, 1, 4, std::int64_t{1} << 60};
  CHECK(refuses("logits", [&] {
    token_log_probs_and_gradient<float>(one, strided_span<const std::int32_t>{targets, 1}, {},
                                        {.zero_padding = true});
  }));
  const std::vector<prospect::vocabulary_partial> parts(2);
  CHECK(refuses("parts", [&] { token_log_probs<float>({parts.data(), 2, 2, most}, targets, {}); }));
  CHECK(refuses("mask", [&] {
    const std::vector<float> three(3);
    token_log_probs<float>({parts.data(), 1, 2}, targets, {}, three);
  }));
}

TEST_CASE("sequences of more tokens than are counted, and layouts that overflow",
          "[tokens][errors]") {
  const float x = -1;
  const std::int32_t zero = 0;
  constexpr std::int64_t n = (std::int64_t{1} << 31) + 3;
  const strided_span<const std::int32_t> targets{&zero, n, 0};
  const strided_span<const float> log_prob{&x, n, 0};
  std::int32_t tokens = 7;
  const std::vector<std::int64_t> offsets{0, n};
  for (const auto& layout : {sequence_layout::padded(1, n), sequence_layout::packed(offsets)}) {
    CHECK(refuses("tokens", [&] {
      prospect::cpu::sequence_sums<float>(log_prob, targets, layout, {.tokens = {&tokens, 1}});
    }));
  }
  CHECK(tokens == 7);

  const strided_span<const std::int32_t> four{&zero, 4, 0};
  const strided_span<const float> four_log_probs{&x, 4, 0};
  for (const auto& layout :
       {sequence_layout::padded(std::int64_t{1} << 62, 4),
        sequence_layout::padded((std::int64_t{1} << 62) + 1, 4),
        sequence_layout::padded(most, most), sequence_layout::padded(4, std::int64_t{1} << 62)}) {
    CHECK(refuses("layout",
                  [&] { prospect::cpu::sequence_sums<float>(four_log_probs, four, layout, {}); }));
  }
  // However many sequences share no rows, nothing is to be done.
  prospect::cpu::sequence_sums<float>({}, strided_span<const std::int32_t>{},
                                      sequence_layout::padded(std::int64_t{1} << 62, 0), {});
  prospect::cpu::shift_targets(strided_span<const std::int32_t>{},
                               sequence_layout::padded(std::int64_t{1} << 62, 0), {});
}
