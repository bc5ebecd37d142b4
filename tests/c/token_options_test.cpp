// The options, statistics and executors of the C functions on tokens, against the C++ functions.

#include <prospect/c/prospect.h>
#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/logits.hpp"
#include "random.hpp"

namespace {

constexpr std::int64_t rows = 3, columns = 700;
const std::vector<std::int32_t> target{5, -100, 699};

template <class T>
prospect_row out(std::vector<T>& row) {
  return {row.data(), static_cast<std::int64_t>(row.size()), 1};
}
template <class T>
prospect_const_row in(const std::vector<T>& row) {
  return {row.data(), static_cast<std::int64_t>(row.size()), 1};
}

/// One batch, twice: for the C and for the C++ functions.
struct batch {
  std::vector<float> logits = std::vector<float>(rows * columns), logits_of_cpp;
  std::vector<float> log_prob = std::vector<float>(rows, 7.0F), log_prob_of_cpp = log_prob;
  std::vector<double> lse = std::vector<double>(rows, 7.0), lse_of_cpp = lse;
  std::vector<float> entropy = log_prob, sum_squares = log_prob, mean_logit = log_prob;
  std::vector<float> entropy_of_cpp = log_prob, sum_squares_of_cpp = log_prob,
                     mean_logit_of_cpp = log_prob;
  std::vector<std::uint8_t> hit = std::vector<std::uint8_t>(rows, 7), hit_of_cpp = hit;

  batch() {
    testing::random_source random{77};
    for (float& x : logits) x = static_cast<float>(random.normal(4));
    logits[699 + 2 * columns] = 30;
    logits_of_cpp = logits;
  }
  prospect_logits view() { return {logits.data(), rows, columns, columns, PROSPECT_F32, 0}; }
  prospect::matrix_view<float> view_of_cpp() { return {logits_of_cpp.data(), rows, columns}; }
  prospect_token_statistics statistics() {
    return {sizeof(prospect_token_statistics), out(entropy), out(sum_squares), out(mean_logit),
            out(hit)};
  }
  prospect::token_outputs<float> outputs_of_cpp() {
    return {.log_prob = log_prob_of_cpp,
            .lse = lse_of_cpp,
            .entropy = entropy_of_cpp,
            .sum_squares = sum_squares_of_cpp,
            .mean_logit = mean_logit_of_cpp,
            .target_is_argmax = hit_of_cpp};
  }
};

const prospect_indices targets{in(target), PROSPECT_I32, 0};

/// The archive may have chosen a wider instruction set than this test was compiled for.
template <class T>
bool close(const std::vector<T>& a, const std::vector<T>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= T(2e-6) * (1 + std::abs(b[i])))) return false;
  }
  return a.size() == b.size();
}

/// Runs what it is given backwards, and counts.
struct backwards {
  int calls = 0;
  static void run(void* context, std::int64_t n, void (*body)(void*, std::int64_t),
                  void* argument) {
    ++static_cast<backwards*>(context)->calls;
    while (n-- > 0) body(argument, n);
  }
};

prospect_token_options capped() {
  prospect_token_options options{};
  options.struct_size = sizeof options;
  options.temperature = 0.7;
  options.soft_cap = 30;
  return options;
}
const prospect::token_options capped_of_cpp{.temperature = 0.7, .soft_cap = 30};

}  // namespace

TEST_CASE("options and statistics reach the kernels", "[c][tokens]") {
  batch b;
  const prospect_logits view = b.view();
  const prospect_token_options options = capped();
  const prospect_token_statistics statistics = b.statistics();
  REQUIRE(prospect_token_log_probs_cpu(&view, &targets, &options, out(b.log_prob), out(b.lse),
                                       &statistics, nullptr) == PROSPECT_OK);
  prospect::cpu::token_log_probs<float>(b.view_of_cpp(), target, b.outputs_of_cpp(), capped_of_cpp);
  CHECK(close(b.log_prob, b.log_prob_of_cpp));
  CHECK(close(b.lse, b.lse_of_cpp));
  CHECK(close(b.entropy, b.entropy_of_cpp));
  CHECK(close(b.sum_squares, b.sum_squares_of_cpp));
  CHECK(close(b.mean_logit, b.mean_logit_of_cpp));
  CHECK(b.hit == std::vector<std::uint8_t>{0, 0, 1});

  std::vector<float> d{-0.5F, 1.0F, 0.25F};
  REQUIRE(prospect_logits_gradient_cpu(&view, &targets, &options, in(b.log_prob), in(b.lse), in(d),
                                       nullptr) == PROSPECT_OK);
  prospect::cpu::logits_gradient<float>(b.view_of_cpp(), target, b.log_prob_of_cpp, b.lse_of_cpp, d,
                                        capped_of_cpp);
  CHECK(close(b.logits, b.logits_of_cpp));
}

TEST_CASE("log-probs and their gradient in one call", "[c][tokens]") {
  batch b;
  const prospect_logits view = b.view();
  const prospect_token_options options = capped();
  REQUIRE(prospect_token_log_probs_and_gradient_cpu(&view, &targets, &options, out(b.log_prob),
                                                    out(b.lse), nullptr, nullptr) == PROSPECT_OK);
  prospect::cpu::token_log_probs_and_gradient<float>(b.view_of_cpp(), target, b.outputs_of_cpp(),
                                                     capped_of_cpp);
  CHECK(close(b.log_prob, b.log_prob_of_cpp));
  CHECK(close(b.logits, b.logits_of_cpp));
  CHECK(b.logits[columns] == 0);
}

TEST_CASE("a trainer's own threads run the rows", "[c][tokens]") {
  constexpr std::int64_t many = 2000;  // enough rows to be worth an executor's while
  std::vector<float> logits(many * columns, 0.5F), log_prob(many), alone(many);
  const std::vector<std::int32_t> all(many, 3);
  const prospect_logits view{logits.data(), many, columns, columns, PROSPECT_F32, 0};
  const prospect_indices every{in(all), PROSPECT_I32, 0};
  backwards count;
  const prospect_executor executor{&count, backwards::run};
  prospect_token_options options{};
  options.struct_size = sizeof options;
  options.executor = &executor;
  REQUIRE(prospect_token_log_probs_cpu(&view, &every, &options, out(log_prob), {}, nullptr,
                                       nullptr) == PROSPECT_OK);
  REQUIRE(prospect_token_log_probs_cpu(&view, &every, nullptr, out(alone), {}, nullptr, nullptr) ==
          PROSPECT_OK);
  CHECK(count.calls == 1);
  CHECK(log_prob == alone);
}

TEST_CASE("wrong options are refused by name", "[c][tokens][errors]") {
  batch b;
  const prospect_logits view = b.view();
  prospect_error error{};
  const auto refused = [&](prospect_token_options options, const char* name) {
    const std::vector<float> before = b.log_prob;
    const prospect_status status = prospect_token_log_probs_cpu(
        &view, &targets, &options, out(b.log_prob), {}, nullptr, &error);
    return status == PROSPECT_INVALID_ARGUMENT && b.log_prob == before &&
           std::string{error.message}.find(name) != std::string::npos;
  };
  prospect_token_options options = capped();
  options.temperature = -1;
  CHECK(refused(options, "temperature"));
  options = capped();
  options.soft_cap = -30;
  CHECK(refused(options, "soft_cap"));
  options = capped();
  options.first_token = 1;
  CHECK(refused(options, "first_token"));
  options = capped();
  options.struct_size = 0;
  CHECK(refused(options, "struct_size"));
  options = capped();
  const prospect_executor nobody{};
  options.executor = &nobody;
  CHECK(refused(options, "executor.run"));
}
