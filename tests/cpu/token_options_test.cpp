// Phases 1 and 3 with everything that may be asked of them: temperature, soft cap, statistics and
// two coefficients, against the textbook in long double.

#include <prospect/cpu/tokens.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
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

namespace {

using oracle::real;
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
using testing::wrong_columns;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

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

TEMPLATE_TEST_CASE("huge logits end, and say which token it is", "[tokens][options]", float, double,
                   bfloat16, float16) {
  const bool small = std::is_same_v<TestType, float16>;
  for (const double huge : {1e4, 6e4, 1e8, 1e30, 1e37}) {
    if (small && huge > 65504) continue;
    for (const token_options& options : all_options) {
      if (std::isfinite(options.soft_cap)) continue;
      for (const std::int64_t vocabulary : {2, 33, 9001}) {
        for (const std::int64_t target : {std::int64_t{0}, vocabulary - 1}) {
          for (const std::int64_t best : {std::int64_t{0}, vocabulary - 1}) {
            CAPTURE(huge, options.temperature, vocabulary, target, best);
            logits_matrix<TestType> logits{1, vocabulary};
            logits.fill_row(0, [&](std::int64_t j) { return j == best ? huge : -huge * 0.9; });
            const std::vector<std::int64_t> targets{target};
            const auto row = logits.row(0);
            const auto want = oracle::softmax(row, target, of(options));
            auto pass = forward(logits, targets, options);
            const real size = 2 * testing::largest(row) / options.temperature;
            CHECK(testing::log_prob_in_contract(pass.log_prob[0], want.log_prob, size));
            CHECK(near(pass.lse[0], want.lse, 1e-15L, 1e-6L));
            CHECK(near(pass.entropy[0], 0, 0, 1e-4L));
            CHECK(near(pass.sum_squares[0], 1, 1e-6L));
            CHECK(pass.argmax[0] == (best == target ? 1 : 0));
            const std::vector<compute_t<TestType>> one{1};
            prospect::cpu::logits_gradient<TestType>(logits.view(), targets, pass.log_prob,
                                                     pass.lse, one, options);
            for (std::int64_t j = 0; j < vocabulary; ++j) {
              const double gradient = (j == target ? 1 : 0) - (j == best ? 1 : 0);
              REQUIRE(near(prospect::load(logits.at(0, j)), gradient / options.temperature, 4e-3L));
            }
          }
        }
      }
    }
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

TEST_CASE("of equal logits the first is the argmax", "[tokens][options]") {
  for (const std::int64_t vocabulary : {3, 64, 500}) {
    for (const token_options& options : all_options) {
      logits_matrix<float> logits{3, vocabulary};
      for (std::int64_t t = 0; t < 3; ++t) {
        logits.fill_row(t, [&](std::int64_t j) { return j == vocabulary / 2 ? 0.5 : 0.75; });
      }
      const std::vector<std::int64_t> targets{0, vocabulary / 2, vocabulary - 1};
      CHECK(forward(logits, targets, options).argmax == std::vector<std::uint8_t>{1, 0, 0});
    }
  }
}

TEST_CASE("a mean of logits that are all near the end of fp32 is finite", "[tokens][options]") {
  // What masking with the lowest number leaves behind.
  logits_matrix<float> logits{1, 64};
  const double lowest = -3e38;
  logits.fill_row(0, [&](std::int64_t j) { return j < 40 ? lowest : 1.0; });
  const std::vector<std::int64_t> targets{50};
  const auto pass = forward(logits, targets, {});
  CHECK(near(pass.log_prob[0], -std::log(24.0L), 0, 4e-6L));
  CHECK(near(pass.mean_logit[0], static_cast<real>(logits.at(0, 0)) * 40 / 64, 1e-6L));
}

TEST_CASE("a z-loss alone keeps its digits in the target's column", "[tokens][options]") {
  random_source random{404};
  CAPTURE(random.seed());
  for (const double low : {-1.0, -20.0, -60.0}) {
    CAPTURE(low);
    logits_matrix<float> logits{1, 100}, gradient{1, 100};
    logits.fill_row(0, [&](std::int64_t j) { return j == 7 ? low : random.normal(1); });
    const std::vector<std::int64_t> targets{7};
    const auto want = oracle::softmax(logits.row(0), 7);
    const auto pass = forward(logits, targets, {});
    const std::vector<float> a{0.7F}, b{0.0F};
    prospect::cpu::logits_gradient<float>(logits.view(), gradient.view(), targets, pass.log_prob,
                                          pass.lse, {.softmax = a, .onehot = b});
    CHECK(wrong_columns(gradient, 0, 7, 0.7F, 0, want, 0) == 0);
  }
}

TEST_CASE("a soft cap's slope keeps its digits in the target's column", "[tokens][options]") {
  for (double x = 1; x < 40; x += 1.5) {
    for (const double sign : {1.0, -1.0}) {
      CAPTURE(x, sign);
      logits_matrix<float> logits{1, 3}, gradient{1, 3};
      logits.fill_row(0, [&](std::int64_t j) { return j == 1 ? sign * x : 0.1; });
      const std::vector<std::int64_t> targets{1};
      const token_options options{.soft_cap = 1};
      const auto want = oracle::softmax(logits.row(0), 1, of(options));
      const auto pass = forward(logits, targets, options);
      const std::vector<float> one{1.0F};
      prospect::cpu::logits_gradient<float>(logits.view(), gradient.view(), targets, pass.log_prob,
                                            pass.lse, {.softmax = one, .onehot = one}, options);
      CHECK(wrong_columns(gradient, 0, 1, 1, 1, want, 0) == 0);
    }
  }
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
  for (const double bad : {0.0, -1.0, infinity, not_a_number}) {
    CAPTURE(bad);
    CHECK(refused_everywhere("temperature", {.temperature = bad}));
  }
  for (const double bad : {0.0, -30.0, not_a_number}) {
    CAPTURE(bad);
    CHECK(refused_everywhere("soft_cap", {.soft_cap = bad}));
  }
  CHECK(refused_everywhere("first_token", {.first_token = -1}));
  CHECK(refused_everywhere("first_token", {.first_token = 1}));
  CHECK(refused_everywhere("first_token", {.first_token = 7, .vocabulary = 10}));
  CHECK(refused_everywhere("vocabulary", {.vocabulary = 3}));
  CHECK(same_bits(log_prob[0], testing::poison<float>()));
  CHECK(same_bits(logits.elements(), clean));
  // A part of the vocabulary has no log-prob of its own.
  CHECK(testing::refuses("vocabulary", [&] {
    prospect::cpu::token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob},
                                          {.vocabulary = 8});
  }));
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
