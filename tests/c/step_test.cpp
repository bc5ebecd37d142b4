// A whole step in one call of the C surface: the same bits as its parts, one call after the other.
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"
#include "random.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::same_bits;
using testing::sized;

/// Four sequences in ten rows of seven logits.
template <class S>
struct step_batch {
  using R = prospect::compute_t<S>;
  static constexpr std::int64_t rows = 10, columns = 7;
  std::vector<S> logits;
  std::vector<std::int32_t> target{1, -100, 3, 6, 0, 2, -100, 5, 4, 1}, offset{0, 3, 5, 8, 10};
  std::vector<std::uint8_t> scored{1, 1, 1, 0, 1, 1, 1, 1, 1, 1};
  prospect_layout layout = sized<prospect_layout>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_loss loss{};
  prospect_step step = sized<prospect_step>();
  prospect_pairs pairs = sized<prospect_pairs>();
  prospect_completions completions = sized<prospect_completions>();
  std::vector<double> reference{-5, -2, -4, -3};
  prospect_error error{};

  explicit step_batch(const char* name) : loss{c_loss(name)} {
    testing::random_source random{91};
    for (std::int64_t k = 0; k < rows * columns; ++k) {
      logits.push_back(testing::stored<S>(random.normal(2)));
    }
    layout.offsets = c_row(offset);
    tokens.targets = c_row(target);
    tokens.mask = c_row(scored);
    tokens.layout = &layout;
    tokens.temperature = 0.8;
    step.logits = matrix();
    step.tokens = &tokens;
    step.loss = &loss;
  }
  step_batch(const step_batch&) = delete;
  prospect_matrix matrix() {
    return prospect_matrix_of(logits.data(), rows, columns, testing::c_dtype<S>());
  }
  void ok(prospect_status status) {
    CAPTURE(std::string{error.message});
    REQUIRE(status == PROSPECT_OK);
  }

  void run(prospect_metrics* metrics) {
    std::size_t bytes = 0;
    auto context = sized<prospect_context>();
    context.query = &bytes;
    ok(prospect_step_cpu(&step, metrics, &context, &error));
    REQUIRE(bytes > 0);
    std::vector<double> memory(bytes / sizeof(double) + 2, 7);
    context.query = nullptr;
    context.scratch = memory.data();
    context.scratch_size = bytes;
    ok(prospect_step_cpu(&step, metrics, &context, &error));
    for (std::size_t k = (bytes + 7) / sizeof(double); k < memory.size(); ++k) {
      CHECK(memory[k] == 7);  // not a byte behind what was asked for
    }
  }

  std::vector<R> log_prob = std::vector<R>(rows), d_token = log_prob;
  std::vector<double> lse = std::vector<double>(rows), sums = std::vector<double>(4), d = sums;
  std::vector<std::int32_t> counts = std::vector<std::int32_t>(4);

  /// Phase 1, by its parts.
  void forward() {
    auto results = sized<prospect_token_results>();
    results.log_prob = c_row(log_prob);
    results.lse = c_row(lse);
    ok(prospect_token_log_probs_cpu(matrix(), &tokens, &results, nullptr, &error));
    ok(prospect_sequence_sums_cpu(&tokens, c_row(log_prob), c_row(sums), c_row(counts), nullptr,
                                  &error));
  }
  /// Phase 3, by its parts.
  void backward() {
    ok(prospect_spread_cpu(&tokens, c_row(d), c_row(d_token), nullptr, &error));
    into_logits();
  }
  void into_logits() {
    auto coefficients = sized<prospect_token_coefficients>();
    coefficients.log_prob = c_row(log_prob);
    coefficients.lse = c_row(lse);
    coefficients.d_token = c_row(d_token);
    ok(prospect_logits_gradient_cpu(matrix(), matrix(), &tokens, &coefficients, nullptr, &error));
  }
};

void check_same(const c_metrics& a, const c_metrics& b) {
  CHECK(a.metrics.total == b.metrics.total);
  CHECK(a.metrics.total != 42);
  REQUIRE(a.metrics.size == b.metrics.size);
  for (std::int32_t k = 0; k < a.metrics.size; ++k) {
    const auto i = static_cast<std::size_t>(k);
    CHECK(a.room[i].sum == b.room[i].sum);
    CHECK(a.room[i].count == b.room[i].count);
  }
}

}  // namespace

TEMPLATE_TEST_CASE("a step of KTO is its parts", "", float, double, prospect::bfloat16) {
  const std::vector<std::uint8_t> desirable{1, 0, 0, 1};
  const std::vector<float> mismatched{-3, -5}, mismatched_reference{-4, -4.5F};
  step_batch<TestType> whole{"kto"}, parts{"kto"};
  for (step_batch<TestType>* b : {&whole, &parts}) {
    b->completions.reference = c_row(b->reference);
    b->completions.desirable = c_row(desirable);
    b->completions.reference_point = PROSPECT_BATCH_MEAN;
    b->completions.mismatched_policy = c_row(mismatched);
    b->completions.mismatched_reference = c_row(mismatched_reference);
  }
  c_metrics got, want;
  whole.step.completions = &whole.completions;
  whole.step.log_prob = c_row(whole.sums);
  whole.step.d_sequence = c_row(whole.d);
  whole.step.counts = c_row(whole.counts);
  whole.step.token_log_prob = c_row(whole.log_prob);
  whole.run(&got);

  parts.forward();
  parts.completions.policy = c_row(parts.sums);
  parts.completions.tokens = c_row(parts.counts);
  parts.completions.d_policy = c_row(parts.d);
  parts.ok(prospect_completions_cpu(&parts.loss, &parts.completions, &want, nullptr, &parts.error));
  parts.backward();
  check_same(got, want);
  CHECK(same_bits(whole.logits, parts.logits));
  CHECK(whole.sums == parts.sums);
  CHECK(whole.counts == parts.counts);
  CHECK(whole.counts == std::vector<std::int32_t>{2, 1, 2, 2});
  CHECK(whole.d == parts.d);
  CHECK(whole.log_prob == parts.log_prob);
}

TEST_CASE("a step of DPO on halves is its parts") {
  step_batch<float> whole{"dpo"}, parts{"dpo"};
  c_metrics got, want;
  std::vector<float> loss(2), reward(2), want_loss(2), want_reward(2);
  whole.pairs.reference = c_row(whole.reference);
  whole.pairs.loss = c_row(loss);
  whole.pairs.reward_rejected = c_row(reward);
  whole.step.pairs = &whole.pairs;
  whole.run(&got);

  parts.forward();
  prospect_pairs& p = parts.pairs;
  const auto half = [](prospect_row row, std::int64_t which) {
    return prospect_row_slice(row, 2 * which, 2);
  };
  p.policy_chosen = half(c_row(parts.sums), 0), p.policy_rejected = half(c_row(parts.sums), 1);
  p.chosen_tokens = half(c_row(parts.counts), 0), p.rejected_tokens = half(c_row(parts.counts), 1);
  p.reference_chosen = half(c_row(parts.reference), 0);
  p.reference_rejected = half(c_row(parts.reference), 1);
  p.d_policy_chosen = half(c_row(parts.d), 0), p.d_policy_rejected = half(c_row(parts.d), 1);
  p.loss = c_row(want_loss);
  p.reward_rejected = c_row(want_reward);
  parts.ok(prospect_pairs_cpu(&parts.loss, &p, &want, nullptr, &parts.error));
  parts.backward();
  check_same(got, want);
  CHECK(same_bits(whole.logits, parts.logits));
  CHECK(loss == want_loss);
  CHECK(reward == want_reward);
}

TEST_CASE("a step of pairs by index, where a sequence is in several pairs and one in none") {
  step_batch<double> whole{"dpo"}, parts{"dpo"};
  const std::vector<std::int64_t> chosen{0, 0}, rejected{3, 2};
  c_metrics got, want;
  std::vector<double> d(4, 7);
  whole.pairs.reference = c_row(whole.reference);
  whole.pairs.chosen = c_row(chosen);
  whole.pairs.rejected = c_row(rejected);
  whole.step.pairs = &whole.pairs;
  whole.step.d_sequence = c_row(d);
  whole.run(&got);

  parts.forward();
  prospect_pairs& p = parts.pairs;
  std::vector<double> dc(2), dr(2);
  p.policy = c_row(parts.sums), p.tokens = c_row(parts.counts);
  p.reference = c_row(parts.reference);
  p.chosen = c_row(chosen), p.rejected = c_row(rejected);
  p.d_policy_chosen = c_row(dc), p.d_policy_rejected = c_row(dr);
  parts.ok(prospect_pairs_cpu(&parts.loss, &p, &want, nullptr, &parts.error));
  parts.d = {dc[0] + dc[1], 0, dr[1], dr[0]};
  parts.backward();
  check_same(got, want);
  CHECK(d == parts.d);
  CHECK(d[0] < 0);
  CHECK(d[2] > 0);
  CHECK(same_bits(whole.logits, parts.logits));
}

TEST_CASE(
    "a step of TPO, whose gold completion is a third sequence, or one that is in another pair") {
  step_batch<double> whole{"tpo"}, parts{"tpo"};
  const std::vector<std::int64_t> chosen{0, 2}, rejected{3, 0}, third{1, 3};
  c_metrics got, want;
  std::vector<double> d(4, 7);
  whole.pairs.chosen = c_row(chosen), whole.pairs.rejected = c_row(rejected);
  whole.pairs.third = c_row(third);
  whole.step.pairs = &whole.pairs;
  whole.step.d_sequence = c_row(d);
  whole.run(&got);

  parts.forward();
  prospect_pairs& p = parts.pairs;
  std::vector<double> dc(2), dr(2), dt(2);
  p.policy = c_row(parts.sums), p.tokens = c_row(parts.counts);
  p.chosen = c_row(chosen), p.rejected = c_row(rejected), p.third = c_row(third);
  p.d_policy_chosen = c_row(dc), p.d_policy_rejected = c_row(dr), p.d_policy_third = c_row(dt);
  parts.ok(prospect_pairs_cpu(&parts.loss, &p, &want, nullptr, &parts.error));
  parts.d = {dc[0] + dr[1], dt[0], dc[1], dr[0] + dt[1]};
  parts.backward();
  check_same(got, want);
  CHECK(d == parts.d);
  CHECK(d[1] < 0);
  CHECK(same_bits(whole.logits, parts.logits));
}

TEST_CASE("a step by a reducer is its parts") {
  const std::vector<std::int32_t> shared{1, 1, 1, 1};
  step_batch<float> whole{"dpo"}, parts{"dpo"}, plain{"dpo"};
  auto reducer = sized<prospect_token_reducer>();
  reducer.public_tokens = c_row(shared);
  reducer.ld_alpha = 0.25;
  c_metrics got, want, other;
  for (step_batch<float>* b : {&whole, &parts, &plain}) b->pairs.reference = c_row(b->reference);
  whole.step.pairs = &whole.pairs, plain.step.pairs = &plain.pairs;
  whole.step.reducer = &reducer;
  whole.step.log_prob = c_row(whole.sums);
  whole.run(&got);
  plain.run(&other);
  CHECK_FALSE(same_bits(whole.logits, plain.logits));

  parts.forward();
  prospect_token_reducer by = reducer;
  by.log_prob = c_row(parts.log_prob);
  parts.ok(prospect_reduced_sums_cpu(&parts.tokens, &by, c_row(parts.sums), c_row(parts.counts),
                                     nullptr, &parts.error));
  prospect_pairs& p = parts.pairs;
  const std::vector<std::int32_t> chosen{0, 1}, rejected{2, 3};
  p.policy = c_row(parts.sums), p.tokens = c_row(parts.counts);
  p.chosen = c_row(chosen), p.rejected = c_row(rejected);
  p.d_policy = c_row(parts.d);
  parts.ok(prospect_pairs_cpu(&parts.loss, &p, &want, nullptr, &parts.error));
  parts.ok(prospect_reduced_spread_cpu(&parts.tokens, &by, c_row(parts.d), c_row(parts.d_token),
                                       nullptr, &parts.error));
  parts.into_logits();
  check_same(got, want);
  CHECK(whole.sums == parts.sums);
  CHECK(same_bits(whole.logits, parts.logits));
}

TEST_CASE("a step that is wrong leaves the logits as they are and names what is wrong") {
  const std::vector<std::uint8_t> desirable{1, 0, 0, 1};
  step_batch<float> b{"kto"};
  std::vector<double> memory(1000);
  auto context = sized<prospect_context>();
  context.scratch = memory.data();
  context.scratch_size = memory.size() * sizeof(double);
  b.completions.reference = c_row(b.reference);
  b.completions.desirable = c_row(desirable);
  const std::vector<float> before = b.logits;
  std::vector<double> row(4);
  const auto refused = [&](prospect_status status, const char* words) {
    testing::refused(prospect_step_cpu(&b.step, nullptr, &context, &b.error), status, b.error,
                     words);
    CHECK(same_bits(b.logits, before));
  };
  refused(PROSPECT_INVALID_ARGUMENT, "either pairs or completions");
  b.step.completions = &b.completions;
  b.step.pairs = &b.pairs;
  refused(PROSPECT_INVALID_ARGUMENT, "either pairs or completions");
  b.step.pairs = nullptr;

  for (const auto made : {&prospect_completions::policy, &prospect_completions::tokens,
                          &prospect_completions::d_policy}) {
    b.completions.*made = c_row(row);
    refused(PROSPECT_INVALID_ARGUMENT, "must not be given: in a step it is made from the logits");
    b.completions.*made = {};
  }
  for (const auto made :
       {&prospect_pairs::policy_chosen, &prospect_pairs::policy_rejected, &prospect_pairs::policy,
        &prospect_pairs::chosen_tokens, &prospect_pairs::rejected_tokens, &prospect_pairs::tokens,
        &prospect_pairs::d_policy_chosen, &prospect_pairs::d_policy_rejected,
        &prospect_pairs::d_policy, &prospect_pairs::policy_third, &prospect_pairs::third_tokens,
        &prospect_pairs::d_policy_third}) {
    b.step.completions = nullptr;
    b.step.pairs = &b.pairs;
    b.pairs.*made = c_row(row);
    refused(PROSPECT_INVALID_ARGUMENT, "must not be given: in a step it is made from the logits");
    b.pairs.*made = {};
  }
  const std::vector<std::int32_t> index{0, 1};
  b.pairs.third = c_row(index);
  refused(PROSPECT_INVALID_ARGUMENT, "third is beside chosen and rejected");
  b.pairs.third = {};
  auto reducer = sized<prospect_token_reducer>();
  reducer.log_prob = c_row(row);
  b.step.reducer = &reducer;
  refused(PROSPECT_INVALID_ARGUMENT, "reducer.log_prob must not be given");
  b.step.reducer = nullptr;
  b.pairs.reference_chosen = c_row(row);
  refused(PROSPECT_INVALID_ARGUMENT, "give reference");
  b.pairs.reference_chosen = {};
  b.pairs.reference = c_row(row);
  refused(PROSPECT_INVALID_ARGUMENT, "kto is not a paired loss");
  b.pairs.reference.size = 3;
  refused(PROSPECT_INVALID_ARGUMENT, "reference must have an element for each sequence");
  b.pairs.reference = {};
  b.layout.offsets = {};
  b.layout.sequences = 5;
  b.layout.length = 2;
  refused(PROSPECT_INVALID_ARGUMENT, "no two halves of pairs");
  b.layout.sequences = 4;
  refused(PROSPECT_INVALID_ARGUMENT, "layout does not cover the rows");

  b.layout.offsets = c_row(b.offset);
  b.step.pairs = nullptr;
  b.step.completions = &b.completions;
  context.scratch_size = 8;
  refused(PROSPECT_INVALID_ARGUMENT, "context.scratch has 8 bytes, ");
  context.scratch = nullptr;
  refused(PROSPECT_INVALID_ARGUMENT, "context.scratch has 0 bytes, ");
  context.scratch_size = memory.size() * sizeof(double) - 8;
  context.scratch = memory.data() + (reinterpret_cast<std::uintptr_t>(memory.data()) % 16 == 0);
  refused(PROSPECT_INVALID_ARGUMENT, "context.scratch is not aligned to 16 bytes");
  context.scratch = memory.data();
  b.step.logits.dtype = PROSPECT_I32;
  refused(PROSPECT_UNSUPPORTED, "logits.dtype");
  b.step.logits = b.matrix();
  b.step.tokens = nullptr;
  refused(PROSPECT_INVALID_ARGUMENT, "tokens is NULL");
  b.step.tokens = &b.tokens;
  b.step.loss = nullptr;
  refused(PROSPECT_INVALID_ARGUMENT, "loss is NULL");
  b.step.loss = &b.loss;
  b.target[9] = 7;
  refused(PROSPECT_INVALID_ARGUMENT, "targets[9] = 7");
  CHECK(prospect_step_cpu(nullptr, nullptr, nullptr, nullptr) == PROSPECT_INVALID_ARGUMENT);
}
