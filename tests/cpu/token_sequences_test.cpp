// From tokens to sequences and back: sums over padded and packed batches and over ranges,
// coefficients spread over tokens, labels shifted into targets.

#include <prospect/cpu/token_sequences.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using real = long double;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::cpu::sequence_sums;
using prospect::cpu::shift_targets;
using prospect::cpu::spread;
using testing::near;
using testing::random_source;
using testing::refuses;
using testing::same_bits;

using testing::not_a_number;

}  // namespace

// ------------------------------------------------------------------------------ sums and spreads

TEST_CASE("padded and packed batches give the same sums, and the same coefficients back",
          "[tokens]") {
  random_source random{101};
  CAPTURE(random.seed());
  const std::vector<std::int64_t> lengths{3, 0, 7, 1, 5};
  const std::int64_t width = 9, count = 5;
  std::vector<std::int32_t> offsets{0}, packed_targets, padded_targets;
  std::vector<float> packed, padded;
  for (const std::int64_t length : lengths) {
    offsets.push_back(offsets.back() + static_cast<std::int32_t>(length));
    for (std::int64_t t = 0; t < width; ++t) {
      const bool scored = t < length && !random.chance(0.3);
      const auto x = scored ? static_cast<float>(-std::abs(random.normal(5)))
                            : static_cast<float>(not_a_number);
      const std::int32_t target = scored ? 1 : ignored_target;
      padded.push_back(x);
      padded_targets.push_back(target);
      if (t < length) packed.push_back(x), packed_targets.push_back(target);
    }
  }
  const std::vector<std::int64_t> wide_offsets(offsets.begin(), offsets.end());
  const auto pad = sequence_layout::padded(count, width);

  std::vector<double> want_sum(5), sum(5);
  std::vector<std::int32_t> want_tokens(5), tokens(5);
  sequence_sums<float>(padded, padded_targets, pad, {.log_prob = want_sum, .tokens = want_tokens});
  for (std::size_t i = 0; i < 5; ++i) {
    real naive = 0;
    std::int32_t scored = 0;
    for (std::size_t t = i * 9; t < (i + 1) * 9; ++t) {
      if (padded_targets[t] == 1) naive += padded[t], ++scored;
    }
    CHECK(near(want_sum[i], naive, 1e-14L));
    CHECK(want_tokens[i] == scored);
  }
  CHECK(want_sum[1] == 0);
  CHECK(want_tokens[1] == 0);

  const std::vector<double> d_sequence = random.normals(count, 1);
  std::vector<double> d_padded(padded.size()), d_packed(packed.size());
  spread<double>(d_sequence, padded_targets, pad, d_padded);
  for (const auto& layout :
       {sequence_layout::packed(offsets), sequence_layout::packed(wide_offsets)}) {
    sequence_sums<float>(packed, packed_targets, layout, {.log_prob = sum, .tokens = tokens});
    CHECK(same_bits(sum, want_sum));
    CHECK(tokens == want_tokens);
    spread<double>(d_sequence, packed_targets, layout, d_packed);
    for (std::size_t i = 0; i < 5; ++i) {
      for (std::int64_t t = 0; t < lengths[i]; ++t) {
        const auto at = static_cast<std::size_t>(t);
        const double d = d_packed[static_cast<std::size_t>(offsets[i]) + at];
        CHECK(d == d_padded[i * 9 + at]);
        CHECK(d == (padded_targets[i * 9 + at] == 1 ? d_sequence[i] : 0));
      }
    }
  }
}

TEST_CASE("sums over tokens are fp64", "[tokens]") {
  // 200,000 times -0.1 in fp32 is off by hundreds of nats in fp32.
  const std::int64_t n = 200'000;
  const float x = -0.1F;
  const std::int32_t target = 0;
  double sum = 0;
  std::int32_t tokens = 0;
  sequence_sums<float>({&x, n, 0}, strided_span<const std::int32_t>{&target, n, 0},
                       sequence_layout::padded(1, n),
                       {.log_prob = {&sum, 1}, .tokens = {&tokens, 1}});
  CHECK(near(sum, static_cast<real>(x) * n, 1e-12L));
  CHECK(tokens == n);
}

TEST_CASE("sums and spreads read and write strided rows", "[tokens]") {
  const std::vector<double> backwards{-3, 0, -2, 0, -1};
  const std::vector<std::int32_t> targets{0, 0, 0};
  const auto layout = sequence_layout::padded(3, 1);
  testing::laid_out_row<double> sum{3, {.offset = 2, .stride = 3}}, d_token{3, {.stride = -2}};
  testing::laid_out_row<std::int32_t> tokens{3, {.offset = 1, .stride = -2}};
  sequence_sums<double>({backwards.data() + 4, 3, -2}, targets, layout,
                        {.log_prob = sum.view(), .tokens = tokens.view()});
  CHECK(sum.elements() == std::vector<double>{-1, -2, -3});
  CHECK(tokens.elements() == std::vector<std::int32_t>{1, 1, 1});
  spread<double>(sum.view(), targets, layout, d_token.view());
  CHECK(d_token.elements() == std::vector<double>{-1, -2, -3});
  CHECK(sum.only_elements_written());
  CHECK(tokens.only_elements_written());
  CHECK(d_token.only_elements_written());
}

TEST_CASE("ranges leave rows out, and share no rows", "[tokens]") {
  // Rows 0, 1 | 2..4 | 5 | (none) | 6, 7 | 8, 9: out, in, out, in, in, out.
  const std::vector<std::int32_t> begins{2, 6, 6}, ends{5, 6, 8};
  const std::vector<std::int64_t> wide_begins{2, 6, 6}, wide_ends{5, 6, 8};
  const std::vector<double> log_prob{not_a_number, not_a_number, -1,  -2,           -4,
                                     not_a_number, -8,           -16, not_a_number, not_a_number};
  const std::vector<std::int32_t> targets{1, 1, 1, ignored_target, 1, 1, 1, 1, 1, 1};
  const std::vector<std::int32_t> labels{10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const std::int32_t out = ignored_target;
  for (const auto& layout :
       {sequence_layout::ranges(begins, ends), sequence_layout::ranges(wide_begins, wide_ends)}) {
    std::vector<double> sums(3), d_token(10, 7);
    std::vector<std::int32_t> tokens(3), shifted(10);
    sequence_sums<double>(log_prob, targets, layout, {.log_prob = sums, .tokens = tokens});
    CHECK(sums == std::vector<double>{-5, 0, -24});
    CHECK(tokens == std::vector<std::int32_t>{2, 0, 2});
    const std::vector<double> d{3, 5, 9};
    spread<double>(d, targets, layout, d_token);
    CHECK(d_token == std::vector<double>{0, 0, 3, 0, 3, 0, 9, 9, 0, 0});
    shift_targets(labels, layout, shifted);
    CHECK(shifted == std::vector<std::int32_t>{out, out, 13, 14, out, out, 17, out, out, out});
  }
  // No sequence at all: every row is outside.
  const auto none = sequence_layout::ranges({}, {});
  std::vector<double> d_token(10, 7);
  std::vector<std::int32_t> shifted(10, 7);
  spread<double>({}, targets, none, d_token);
  CHECK(d_token == std::vector<double>(10, 0));
  shift_targets(labels, none, shifted);
  CHECK(shifted == std::vector<std::int32_t>(10, out));
}

TEMPLATE_TEST_CASE("a mask is a target of -100 to sums and spreads", "[tokens]", std::uint8_t,
                   std::int32_t, float) {
  const std::vector<TestType> mask{0, 1, TestType(2), 0, 1, 1};
  const std::vector<std::int64_t> targets{5, 5, -7, 1'000'000'000'000, ignored_target, 5};
  const std::vector<std::int64_t> ignored{ignored_target, 5, -7, ignored_target, ignored_target, 5};
  const std::vector<float> log_prob{static_cast<float>(not_a_number), -1, -2,
                                    static_cast<float>(not_a_number), -4, -8};
  const auto layout = sequence_layout::padded(2, 3);
  std::vector<double> want(2), got(2);
  std::vector<std::int32_t> want_tokens(2), tokens(2);
  sequence_sums<float>(log_prob, ignored, layout, {.log_prob = want, .tokens = want_tokens});
  sequence_sums<float>(log_prob, targets, layout, {.log_prob = got, .tokens = tokens}, mask);
  CHECK(want == std::vector<double>{-3, -8});
  CHECK(same_bits(got, want));
  CHECK(tokens == want_tokens);
  std::vector<float> d_token(6);
  const std::vector<double> d{0.5, 2};
  spread<float>(d, targets, layout, d_token, mask);
  CHECK(d_token == std::vector<float>{0, 0.5F, 0.5F, 0, 0, 2});
}

// ---------------------------------------------------------------------------------------- labels

TEST_CASE("labels become targets of the row before, inside each sequence", "[tokens]") {
  const std::vector<std::int32_t> labels{ignored_target, 11, 12, 13, 21, 22, 31};
  const std::vector<std::int64_t> wide(labels.begin(), labels.end());
  const std::vector<std::int32_t> offsets{0, 4, 6, 6, 7};
  const std::vector<std::int32_t> want{
      11, 12, 13, ignored_target, 22, ignored_target, ignored_target};
  std::vector<std::int32_t> targets(7);
  shift_targets(labels, sequence_layout::packed(offsets), targets);
  CHECK(targets == want);
  shift_targets(wide, sequence_layout::packed(offsets), targets);
  CHECK(targets == want);
  // The same padded.
  const std::vector<std::int32_t> grid{1, 2, 3, 4, 5, 6};
  std::vector<std::int32_t> shifted(6);
  shift_targets(grid, sequence_layout::padded(2, 3), shifted);
  CHECK(shifted == std::vector<std::int32_t>{2, 3, ignored_target, 5, 6, ignored_target});
}

TEST_CASE("a label too large for int32 does not wrap into the vocabulary", "[tokens][errors]") {
  const auto run = [](std::int64_t label) {
    const std::vector<std::int64_t> labels{0, label};
    std::vector<std::int32_t> targets(2);
    const std::string refused =
        testing::refusal([&] { shift_targets(labels, sequence_layout::padded(1, 2), targets); });
    if (refused == "accepted") return targets[0] == label;
    CHECK(refused.find("labels[1]") != std::string::npos);
    return false;
  };
  constexpr std::int64_t largest = (std::int64_t{1} << 31) - 1;
  CHECK(run(largest));
  CHECK_FALSE(run(largest + 1));
  CHECK_FALSE(run((std::int64_t{1} << 32) + 5));
  CHECK_FALSE(run((std::int64_t{1} << 32) - 100));  // would be ignored
  CHECK_FALSE(run(-1));
  CHECK(run(-100));
}

// ------------------------------------------------------------------------------ what is refused

TEST_CASE("layouts and rows that do not fit are refused by name", "[tokens][errors]") {
  const std::vector<double> four(4);
  const std::vector<std::int32_t> targets(4);
  std::vector<double> two_sums(2), one_sum(1), d_token(4), short_d_token(3);
  std::vector<std::int32_t> two_counts(2), one_count(1), shifted(4), short_shifted(3);
  const auto good = sequence_layout::padded(2, 2), bad = sequence_layout::padded(2, 3);

  CHECK(refuses("layout", [&] { sequence_sums<double>(four, targets, bad, {}); }));
  CHECK(refuses("layout", [&] { spread<double>(two_sums, targets, bad, d_token); }));
  CHECK(refuses("layout", [&] { shift_targets(targets, bad, shifted); }));
  CHECK(refuses("log_prob", [&] {
    sequence_sums<double>(strided_span<const double>{four}.slice(0, 3), targets, good, {});
  }));
  CHECK(refuses("log_prob",
                [&] { sequence_sums<double>(four, targets, good, {.log_prob = one_sum}); }));
  CHECK(refuses("tokens",
                [&] { sequence_sums<double>(four, targets, good, {.tokens = one_count}); }));
  CHECK(refuses("d_sequence", [&] { spread<double>(one_sum, targets, good, d_token); }));
  CHECK(refuses("d_token", [&] { spread<double>(two_sums, targets, good, short_d_token); }));
  CHECK(refuses("d_token", [&] {
    spread<double>(two_sums, targets, good, {d_token.data(), 4, 0});
  }));
  CHECK(refuses("targets", [&] { shift_targets(targets, good, short_shifted); }));
  const std::vector<float> three_marks(3);
  CHECK(refuses("mask", [&] { sequence_sums<double>(four, targets, good, {}, three_marks); }));
  CHECK(refuses("mask", [&] { spread<double>(two_sums, targets, good, d_token, three_marks); }));
  const std::int32_t* const nowhere = nullptr;
  CHECK(refuses("targets", [&] { sequence_sums<double>(four, {nowhere, 4}, good, {}); }));
  CHECK(refuses("targets", [&] { spread<double>(two_sums, {nowhere, 4}, good, d_token); }));
  CHECK(refuses("labels", [&] { shift_targets({nowhere, 4}, good, shifted); }));
  CHECK(refuses("layout", [&] {
    sequence_sums<double>(four, targets, sequence_layout::packed({nowhere, 3}), {});
  }));
  const std::vector<std::int32_t> falling{0, 3, 2, 4};
  CHECK(refuses("layout", [&] {
    sequence_sums<double>(four, targets, sequence_layout::packed(falling), {});
  }));
}
