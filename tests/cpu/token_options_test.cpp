// Phases 1 and 3 with everything that may be asked of them: temperature, soft cap, statistics and
// two coefficients, against the textbook in long double.

#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "cpu/token_back_end.hpp"
#include "cpu/token_checks.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using testing::all_options;
using testing::check_everything;
using testing::logits_matrix;
using testing::near;
using testing::of;
using testing::on_cpu;
using testing::random_source;
using testing::row_kind;
using testing::same_bits;

using testing::infinity;
using testing::not_a_number;

template <class R>
using results = testing::token_results<R>;

template <class S>
results<compute_t<S>> forward(logits_matrix<S>& logits, prospect::index_row targets,
                              const token_options& options) {
  return on_cpu.forward(logits, targets, options);
}

}  // namespace

TEMPLATE_TEST_CASE("temperature, soft cap, statistics and both coefficients keep their contract",
                   "[tokens][options]", float, double, bfloat16, float16) {
  random_source random{401};
  CAPTURE(random.seed());
  for (const token_options& options : all_options) {
    for (const row_kind kind : testing::all_row_kinds) {
      for (const std::int64_t vocabulary : {1, 2, 3, 67, 1025}) {
        CAPTURE(options.temperature, options.soft_cap, static_cast<int>(kind), vocabulary);
        std::vector<std::int64_t> targets{0, ignored_target, vocabulary - 1,
                                          random.integer(0, vocabulary - 1)};
        if (vocabulary > 1000) targets = {targets.back(), ignored_target};
        const auto n = static_cast<std::int64_t>(targets.size());
        logits_matrix<TestType> logits{n, vocabulary, random.integer(0, 9), random.integer(0, 7)};
        for (std::int64_t t = 0; t < n; ++t) {
          const std::int64_t target = targets[static_cast<std::size_t>(t)];
          fill(logits, t, kind, target, random);
          if (target == ignored_target) {
            logits.fill_row(t, [&](std::int64_t j) { return j % 2 ? not_a_number : infinity; });
          }
        }
        check_everything(on_cpu, logits, targets, options, random);
      }
    }
  }
}

TEMPLATE_TEST_CASE("a maximum that is found block by block", "[tokens][options]", float, double,
                   bfloat16, float16) {
  random_source random{402};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 30011;
  for (const token_options& options : {all_options[0], all_options[2], all_options[4]}) {
    for (const row_kind kind : {row_kind::rising, row_kind::falling, row_kind::dead_start}) {
      CAPTURE(options.temperature, options.soft_cap, static_cast<int>(kind));
      const std::vector<std::int64_t> targets{random.integer(0, vocabulary - 1)};
      logits_matrix<TestType> logits{1, vocabulary};
      fill(logits, 0, kind, targets[0], random);
      check_everything(on_cpu, logits, targets, options, random);
    }
  }
}

TEMPLATE_TEST_CASE("a masked row is not read by any function", "[tokens][options]", float, double,
                   bfloat16, float16) {
  // Under valgrind or asan a read shows; here the results would be NaN.
  using R = compute_t<TestType>;
  for (const token_options& options : all_options) {
    logits_matrix<TestType> logits{2, 40};
    logits.fill_row(0, [](std::int64_t) { return not_a_number; });
    logits.fill_row(1, [](std::int64_t) { return not_a_number; });
    const std::vector<std::int32_t> targets{ignored_target, ignored_target};
    const auto pass = forward(logits, targets, options);
    CHECK(pass.log_prob == std::vector<R>{0, 0});
    CHECK(pass.entropy == std::vector<R>{0, 0});
    CHECK(pass.lse == std::vector<double>{0, 0});
    results<R> deferred{2};
    prospect::cpu::token_log_probs_and_gradient<TestType>(logits.view(), targets, deferred.out(),
                                                          options);
    CHECK(deferred.log_prob == std::vector<R>{0, 0});
    for (const TestType x : logits.elements()) CHECK(same_bits(x, testing::stored<TestType>(0)));
  }
}

TEMPLATE_TEST_CASE("a rising row ends where a few nats vanish beside its logits",
                   "[tokens][options]", float, double) {
  random_source random{405};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 5000;
  for (const double temperature : {0.7, 0.9, 1.3, 3.0}) {
    for (const double soft_cap : {token_options{}.soft_cap, 1e27, 1e30}) {
      for (int round = 0; round < 20; ++round) {
        CAPTURE(temperature, soft_cap, round);
        logits_matrix<TestType> logits{1, vocabulary};
        logits.fill_row(0, [&](std::int64_t j) {
          return j == vocabulary - 2 ? random.uniform(1e28, 2e28) : random.uniform(-1e25, 1e25);
        });
        const token_options options{.temperature = temperature, .soft_cap = soft_cap};
        const std::vector<std::int64_t> targets{0};
        const double highest = prospect::load(logits.at(0, vocabulary - 2));
        const auto pass = forward(logits, targets, options);
        CHECK(pass.argmax[0] == 0);
        // Under such a cap the last digit of a mapped logit is worth more than any exponential.
        if (std::isinf(soft_cap)) CHECK(near(pass.lse[0], of(options).z(highest), 1e-6L));
      }
    }
  }
}

TEMPLATE_TEST_CASE("NaN or +inf is that row's alone, with any options", "[tokens][options]", float,
                   double, bfloat16, float16) {
  random_source random{403};
  CAPTURE(random.seed());
  for (const token_options& options : all_options) {
    for (const double bad : {not_a_number, infinity}) {
      // With a soft cap +inf is an ordinary logit: the highest.
      if (bad > 0 && std::isfinite(options.soft_cap)) continue;
      for (const std::int64_t place : {0, 64, 129}) {
        CAPTURE(options.temperature, options.soft_cap, bad, place);
        logits_matrix<TestType> clean{3, 130};
        const std::vector<std::int64_t> targets{3, 64, 129};
        for (std::int64_t t = 0; t < 3; ++t) fill(clean, t, row_kind::ordinary, 0, random);
        auto dirty = clean;
        dirty.at(1, place) = testing::stored<TestType>(bad);
        auto want = forward(clean, targets, options), got = forward(dirty, targets, options);
        for (const auto* row : {&got.log_prob, &got.entropy, &got.sum_squares, &got.mean_logit}) {
          CHECK(std::isnan((*row)[1]));
        }
        CHECK(std::isnan(got.lse[1]));
        CHECK(got.argmax[1] == 0);
        const std::vector<compute_t<TestType>> d(3, compute_t<TestType>(0.3));
        for (auto [logits, pass] : {std::pair{&clean, &want}, std::pair{&dirty, &got}}) {
          prospect::cpu::logits_gradient<TestType>(logits->view(), targets, pass->log_prob,
                                                   pass->lse, d, options);
        }
        for (const std::int64_t t : {0, 2}) {
          const auto i = static_cast<std::size_t>(t);
          CHECK(same_bits(got.log_prob[i], want.log_prob[i]));
          CHECK(same_bits(got.entropy[i], want.entropy[i]));
          for (std::int64_t j = 0; j < 130; ++j) {
            REQUIRE(same_bits(dirty.at(t, j), clean.at(t, j)));
          }
        }
        for (std::int64_t j = 0; j < 130; ++j) REQUIRE(std::isnan(prospect::load(dirty.at(1, j))));
      }
    }
  }
}

TEST_CASE("every output may be asked for alone, of any stride", "[tokens][options]") {
  random_source random{405};
  logits_matrix<float> logits{3, 70};
  for (std::int64_t t = 0; t < 3; ++t) fill(logits, t, row_kind::ordinary, 0, random);
  const std::vector<std::int64_t> targets{5, ignored_target, 69};
  auto want = forward(logits, targets, {});
  using outputs = prospect::token_outputs<float>;
  const auto alone = [&](auto member, const auto& values) {
    using T = typename std::remove_cvref_t<decltype(values)>::value_type;
    testing::laid_out_row<T> row{3, {.offset = 2, .stride = -2}};
    outputs out;
    out.*member = row.view();
    prospect::cpu::token_log_probs<float>(logits.view(), targets, out);
    CHECK(row.elements() == values);
    CHECK(row.only_elements_written());
    outputs wrong;
    std::vector<T> two(2);
    wrong.*member = two;
    CHECK(testing::refusal([&] {
            prospect::cpu::token_log_probs<float>(logits.view(), targets, wrong);
          }) != "accepted");
  };
  alone(&outputs::log_prob, want.log_prob);
  alone(&outputs::lse, want.lse);
  alone(&outputs::entropy, want.entropy);
  alone(&outputs::sum_squares, want.sum_squares);
  alone(&outputs::mean_logit, want.mean_logit);
  alone(&outputs::target_is_argmax, want.argmax);
}
