// Sums, coefficients and labels of batches that are large enough for several threads: the same bits
// whoever runs the sequences, at the borders of what a thread takes as elsewhere.

#include <prospect/cpu/token_reducers.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

/// Ranges of 0 to 9 rows with gaps of 0 to 2 between them, over more rows than one thread takes.
struct ranges {
  std::vector<std::int64_t> begin, end;
  std::vector<std::int32_t> target;
  std::vector<double> log_prob, reference, squares, d;

  ranges() {
    testing::random_source random{17};
    std::int64_t t = random.integer(0, 2);
    while (t < 100'000) {
      begin.push_back(t);
      end.push_back(t += random.integer(0, 9));
      t += random.integer(0, 2);
      d.push_back(random.normal(1));
    }
    for (std::int64_t i = 0; i < t + 2; ++i) {
      target.push_back(random.chance(0.2) ? -100 : static_cast<int>(random.integer(0, 9)));
      log_prob.push_back(random.normal(2) - 3);
      reference.push_back(log_prob.back() + random.normal(1));
      squares.push_back(random.uniform(0.01, 1));
    }
  }
};

}  // namespace

TEST_CASE("runs of sequences: every executor writes every row once, and what it should be") {
  const ranges r;
  const auto layout = prospect::sequence_layout::ranges(r.begin, r.end);
  // As it is defined, row by row.
  std::vector<double> sums(r.begin.size()), d_token(r.target.size(), 0);
  std::vector<std::int32_t> counts(r.begin.size()), shifted(r.target.size(), -100);
  for (std::size_t i = 0; i < r.begin.size(); ++i) {
    for (auto t = static_cast<std::size_t>(r.begin[i]); std::int64_t(t) < r.end[i]; ++t) {
      if (std::int64_t(t) + 1 < r.end[i]) shifted[t] = r.target[t + 1];
      if (r.target[t] == -100) continue;
      sums[i] += r.log_prob[t];
      counts[i] += 1;
      d_token[t] = r.d[i];
    }
  }
  testing::with_each_executor([&](const std::string& name, auto& on) {
    CAPTURE(name);
    std::vector<double> got_sums(sums.size(), 7), got_d(d_token.size(), 7);
    std::vector<std::int32_t> got_counts(counts.size(), 7), got_shifted(shifted.size(), 7);
    prospect::cpu::sequence_sums<double>(r.log_prob, r.target, layout,
                                         {.log_prob = got_sums, .tokens = got_counts}, {}, on);
    prospect::cpu::spread<double>(r.d, r.target, layout, got_d, {}, on);
    prospect::cpu::shift_targets(r.target, layout, got_shifted, on);
    CHECK(testing::same_bits(got_sums, sums));
    CHECK(got_counts == counts);
    CHECK(testing::same_bits(got_d, d_token));
    CHECK(got_shifted == shifted);
  });

  // By a reducer, and WPO's weights: any numbers, but always the same.
  prospect::token_reducer by = prospect::token_reducer::humanline(r.log_prob, r.reference);
  const std::vector<std::int32_t> in_common(r.begin.size(), 3);
  by.public_tokens = in_common;
  by.ld_alpha = 0.3;
  std::vector<double> weights(sums.size());
  prospect::serial_executor serial;
  prospect::cpu::sequence_sums(by, r.target, layout, {.log_prob = sums, .tokens = counts}, {},
                               serial);
  prospect::cpu::spread(by, r.d, r.target, layout, d_token, {}, serial);
  prospect::cpu::wpo_weights(r.log_prob, r.squares, r.target, layout, weights, {}, serial);
  testing::with_each_executor([&](const std::string& name, auto& on) {
    CAPTURE(name);
    std::vector<double> got_sums(sums.size(), 7), got_d(d_token.size(), 7), got_w(sums.size(), 7);
    std::vector<std::int32_t> got_counts(counts.size(), 7);
    prospect::cpu::sequence_sums(by, r.target, layout, {.log_prob = got_sums, .tokens = got_counts},
                                 {}, on);
    prospect::cpu::spread(by, r.d, r.target, layout, got_d, {}, on);
    prospect::cpu::wpo_weights(r.log_prob, r.squares, r.target, layout, got_w, {}, on);
    CHECK(testing::same_bits(got_sums, sums));
    CHECK(got_counts == counts);
    CHECK(testing::same_bits(got_d, d_token));
    CHECK(testing::same_bits(got_w, weights));
  });
}

TEMPLATE_TEST_CASE("coefficients of any storage type are spread as they are", "", float, double,
                   prospect::bfloat16, prospect::float16) {
  const std::vector<TestType> d{testing::stored<TestType>(-0.75)};
  const std::vector<std::int32_t> target{1, -100};
  const auto layout = prospect::sequence_layout::padded(1, 2);
  std::vector<float> narrow(2, 7);
  std::vector<double> wide(2, 7);
  prospect::cpu::spread<float>(d, target, layout, narrow);
  prospect::cpu::spread<double>(d, target, layout, wide);
  CHECK(narrow == std::vector<float>{-0.75F, 0});
  CHECK(wide == std::vector<double>{-0.75, 0});
}
