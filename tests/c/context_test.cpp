// Where calls of the C surface run: a trainer's own threads for every function with a loop, what
// becomes of an exception in them, and scratch that is asked for.
#include <kernels/context.hpp>

#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"

namespace {

using testing::c_loss;
using testing::c_row;
using testing::sized;

/// Runs what it is given backwards, and counts.
struct backwards {
  int calls = 0;
  static void run(void* context, std::int64_t n, void (*body)(void*, std::int64_t),
                  void* argument) {
    ++static_cast<backwards*>(context)->calls;
    while (n-- > 0) body(argument, n);
  }
};

/// A batch large enough to be worth an executor's while, and everything that may be computed of it.
struct large_batch {
  static constexpr std::int64_t rows = 40000, columns = 40, sequences = 20000;
  std::vector<float> logits = std::vector<float>(rows * columns, 0.5F);
  std::vector<float> gradient = std::vector<float>(rows * columns);
  std::vector<std::int32_t> target = std::vector<std::int32_t>(rows, 3), shifted = target;
  std::vector<float> log_prob = std::vector<float>(rows), d_token = log_prob, combined = log_prob;
  std::vector<double> lse = std::vector<double>(rows), sums = std::vector<double>(sequences);
  std::vector<double> d = std::vector<double>(sequences, 0.5), reference = sums, weight = sums;
  std::vector<std::int32_t> counts = std::vector<std::int32_t>(sequences);
  std::vector<std::uint8_t> desirable = std::vector<std::uint8_t>(sequences, 1);
  std::vector<prospect_partial> partials = std::vector<prospect_partial>(rows);
  prospect_observation seen{};

  /// Every function with a loop, in order, and how often the executor was asked.
  template <class Call>
  void each(const prospect_context* on, const Call& call) {
    auto layout = sized<prospect_layout>();
    layout.sequences = sequences;
    layout.length = 2;
    auto tokens = sized<prospect_tokens>();
    tokens.targets = c_row(target);
    tokens.layout = &layout;
    auto results = sized<prospect_token_results>();
    results.log_prob = c_row(log_prob);
    results.lse = c_row(lse);
    auto again = sized<prospect_token_results>();
    again.log_prob = c_row(combined);
    auto coefficients = sized<prospect_token_coefficients>();
    coefficients.log_prob = c_row(log_prob);
    coefficients.lse = c_row(lse);
    coefficients.d_token = c_row(d_token);
    auto pairs = sized<prospect_pairs>();
    pairs.policy_chosen = pairs.policy_rejected = c_row(sums);
    pairs.reference_chosen = pairs.reference_rejected = c_row(reference);
    pairs.d_policy_chosen = c_row(d);
    auto completions = sized<prospect_completions>();
    completions.policy = c_row(sums);
    completions.reference = c_row(reference);
    completions.desirable = c_row(desirable);
    completions.d_policy = c_row(d);
    const prospect_loss dpo = c_loss("dpo"), kto = c_loss("kto");
    const prospect_matrix x = PROSPECT_MATRIX(logits.data(), rows, columns);
    const prospect_matrix to = PROSPECT_MATRIX(gradient.data(), rows, columns);

    call("token_log_probs", prospect_token_log_probs_cpu(x, &tokens, &results, on, nullptr));
    call("vocabulary_partials",
         prospect_vocabulary_partials_cpu(x, &tokens, 0, partials.data(), on, nullptr));
    call("combine_partials",
         prospect_combine_partials_cpu(partials.data(), 1, &tokens, &again, on, nullptr));
    call("sequence_sums", prospect_sequence_sums_cpu(&tokens, c_row(log_prob), c_row(sums),
                                                     c_row(counts), on, nullptr));
    call("pairs", prospect_pairs_cpu(&dpo, &pairs, nullptr, on, nullptr));
    call("completions", prospect_completions_cpu(&kto, &completions, nullptr, on, nullptr));
    call("mismatched_kl", prospect_mismatched_kl_cpu(c_row(sums), c_row(reference), prospect_row{},
                                                     &seen, on, nullptr));
    call("spread", prospect_spread_cpu(&tokens, c_row(d), c_row(d_token), on, nullptr));
    auto reducer = sized<prospect_token_reducer>();
    reducer.log_prob = reducer.reference = c_row(log_prob);
    call("reduced_sums",
         prospect_reduced_sums_cpu(&tokens, &reducer, c_row(sums), c_row(counts), on, nullptr));
    call("reduced_spread",
         prospect_reduced_spread_cpu(&tokens, &reducer, c_row(d), c_row(d_token), on, nullptr));
    call("wpo_weights", prospect_wpo_weights_cpu(&tokens, c_row(log_prob), c_row(combined),
                                                 c_row(weight), on, nullptr));
    call("logits_gradient",
         prospect_logits_gradient_cpu(x, to, &tokens, &coefficients, on, nullptr));
    call("scale_rows", prospect_scale_rows_cpu(to, c_row(d_token), on, nullptr));
    call("shift_targets",
         prospect_shift_targets_cpu(c_row(target), &layout, c_row(shifted), on, nullptr));
    call("log_probs_and_gradient",
         prospect_token_log_probs_and_gradient_cpu(x, &tokens, &results, on, nullptr));
  }
};

}  // namespace

TEST_CASE("a trainer's own threads run every loop, and the numbers stay what they are") {
  large_batch theirs, ours;
  backwards count;
  const prospect_executor executor{&count, backwards::run};
  auto context = sized<prospect_context>();
  context.executor = &executor;
  theirs.each(&context, [&](const char* name, prospect_status status) {
    CAPTURE(name);
    CHECK(status == PROSPECT_OK);
    CHECK(count.calls > 0);
    count.calls = 0;
  });
  ours.each(nullptr, [](const char* name, prospect_status status) {
    CAPTURE(name);
    CHECK(status == PROSPECT_OK);
  });
  CHECK(theirs.logits == ours.logits);
  CHECK(theirs.gradient == ours.gradient);
  CHECK(theirs.combined == ours.combined);
  CHECK(theirs.combined == ours.log_prob);
  CHECK(theirs.sums == ours.sums);
  CHECK(theirs.counts == ours.counts);
  CHECK(theirs.d == ours.d);
  CHECK(theirs.d_token == ours.d_token);
  CHECK(theirs.shifted == ours.shifted);
  CHECK(theirs.seen.sum == ours.seen.sum);
}

TEST_CASE("what a piece of work throws comes out behind the trainer's threads, once") {
  const prospect_executor executor{
      nullptr, [](void*, std::int64_t n, void (*body)(void*, std::int64_t), void* argument) {
        std::vector<std::thread> threads;
        for (std::int64_t i = 0; i < n; ++i) {
          threads.emplace_back([=] { body(argument, i); });
        }
        for (std::thread& t : threads) t.join();
      }};
  const prospect::kernels::host_executor on{&executor};
  std::atomic<int> pieces{0};
  const auto body = [&](std::int64_t i) {
    ++pieces;
    if (i % 2 == 1) throw std::runtime_error{"piece"};
  };
  CHECK_THROWS_AS(on.run(4, body), std::runtime_error);
  CHECK(pieces == 4);
}

TEST_CASE("a context that cannot be") {
  large_batch b;
  prospect_error error{};
  std::vector<double> factor(1);
  const prospect_matrix x = PROSPECT_MATRIX(factor.data(), 1, 1);
  const auto refused = [&](const prospect_context& context, prospect_status status,
                           const char* words) {
    testing::refused(prospect_scale_rows_cpu(x, c_row(factor), &context, &error), status, error,
                     words);
  };
  auto context = sized<prospect_context>();
  const prospect_executor nobody{};
  context.executor = &nobody;
  refused(context, PROSPECT_INVALID_ARGUMENT, "context.executor.run is NULL");
  context = sized<prospect_context>();
  context.stream = reinterpret_cast<CUstream_st*>(&context);
  refused(context, PROSPECT_UNSUPPORTED, "context.stream must be NULL");
  context = sized<prospect_context>();
  context.struct_size = 16;
  refused(context, PROSPECT_INVALID_ARGUMENT, "context.struct_size is 16");
}

TEST_CASE("who asks for scratch gets an answer and no work") {
  large_batch b;
  const std::vector<float> before = b.logits;
  std::size_t bytes = 0;
  auto context = sized<prospect_context>();
  context.query = &bytes;
  b.each(&context, [](const char* name, prospect_status status) {
    CAPTURE(name);
    CHECK(status == PROSPECT_OK);
  });
  CHECK(bytes == 0);
  CHECK(b.logits == before);
  CHECK(b.sums == std::vector<double>(large_batch::sequences));
  CHECK(b.seen.count == 0);
}
