// Phases 1 and 3 on the CPU against the textbook softmax in long double, within the numeric
// contract: every storage type, vocabulary size and kind of row that has broken a softmax
// somewhere.

#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::cpu::logits_gradient;
using prospect::cpu::token_log_probs;
using prospect::cpu::token_log_probs_and_gradient;
using testing::gradient_in_contract;
using testing::last_place;
using testing::log_prob_in_contract;
using testing::logits_matrix;
using testing::lse_error;
using testing::near;
using testing::random_source;
using testing::same_bits;
using testing::smallest;

using testing::infinity;
using testing::not_a_number;

template <class S>
struct forward_pass {
  std::vector<compute_t<S>> log_prob;
  std::vector<double> lse;
};

template <class S>
forward_pass<S> forward(logits_matrix<S>& logits, prospect::index_row targets) {
  const auto n = static_cast<std::size_t>(logits.rows());
  forward_pass<S> out{std::vector<compute_t<S>>(n, testing::poison<compute_t<S>>()),
                      std::vector<double>(n, testing::poison<double>())};
  token_log_probs<S>(logits.view(), targets, {.log_prob = out.log_prob, .lse = out.lse});
  return out;
}

/// Turns the logits into their gradient.
template <class S>
forward_pass<S> forward_backward(logits_matrix<S>& logits, prospect::index_row targets,
                                 const std::vector<compute_t<S>>& d_token) {
  auto pass = forward(logits, targets);
  logits_gradient<S>(logits.view(), targets, pass.log_prob, pass.lse, d_token);
  return pass;
}

/// How many columns of a row's gradient are not d (onehot(target) - p).
template <class S>
std::int64_t wrong_columns(logits_matrix<S>& got, std::int64_t row, real d,
                           const oracle::softmax_row& want) {
  std::int64_t wrong = 0;
  for (std::int64_t j = 0; j < got.columns(); ++j) {
    const real gradient = d * want.gradient[static_cast<std::size_t>(j)];
    if (gradient_in_contract(got.at(row, j), gradient)) continue;
    if (wrong++ == 0) {
      UNSCOPED_INFO("column " << j << " is " << prospect::load(got.at(row, j)) << ", should be "
                              << static_cast<double>(gradient));
    }
  }
  return wrong;
}

/// Runs both schedules over the matrix, and holds every row against the oracle.
template <class S>
void check_rows(logits_matrix<S>& logits, const std::vector<std::int64_t>& targets,
                const std::vector<compute_t<S>>& d_token) {
  std::vector<std::vector<real>> rows;
  for (std::int64_t t = 0; t < logits.rows(); ++t) rows.push_back(logits.row(t));
  logits_matrix<S> deferred = logits;
  const auto pass = forward_backward(logits, targets, d_token);
  forward_pass<S> at_once{std::vector<compute_t<S>>(rows.size(), testing::poison<compute_t<S>>()),
                          std::vector<double>(rows.size(), testing::poison<double>())};
  token_log_probs_and_gradient<S>(deferred.view(), targets,
                                  {.log_prob = at_once.log_prob, .lse = at_once.lse});
  for (std::size_t t = 0; t < rows.size(); ++t) {
    CAPTURE(t, targets[t]);
    const auto row = static_cast<std::int64_t>(t);
    if (targets[t] == ignored_target) {
      CHECK(pass.log_prob[t] == 0);
      CHECK(at_once.log_prob[t] == 0);
      for (std::int64_t j = 0; j < logits.columns(); ++j) {
        REQUIRE(same_bits(logits.at(row, j), testing::stored<S>(0)));
        REQUIRE(same_bits(deferred.at(row, j), testing::stored<S>(0)));
      }
      continue;
    }
    const auto want = oracle::softmax(rows[t], targets[t]);
    const real largest = testing::largest(rows[t]);
    CAPTURE(pass.log_prob[t], static_cast<double>(want.log_prob));
    CHECK(log_prob_in_contract(pass.log_prob[t], want.log_prob, largest));
    CHECK(near(pass.lse[t], want.lse, 1e-13L, lse_error<S>));
    if (largest < 65536) {
      CHECK(same_bits(at_once.log_prob[t], pass.log_prob[t]));
      CHECK(same_bits(at_once.lse[t], pass.lse[t]));
    } else {
      CHECK(log_prob_in_contract(at_once.log_prob[t], want.log_prob, largest));
    }

    CHECK(wrong_columns(logits, row, d_token[t], want) == 0);
    CHECK(wrong_columns(deferred, row, 1, want) == 0);
    real sum = 0;
    for (std::int64_t j = 0; j < logits.columns(); ++j) sum += prospect::load(logits.at(row, j));
    // The row sums to 0 but for the roundings of its elements, whose magnitudes sum to 2 |d| at
    // most.
    CHECK(std::abs(sum) <=
          2 * std::abs(d_token[t]) * last_place<S> +
              (smallest<S> + testing::negligible<S>)*static_cast<real>(logits.columns()));
  }
  CHECK(logits.padding_untouched());
  CHECK(deferred.padding_untouched());
}

template <class S>
std::vector<compute_t<S>> coefficients(std::int64_t n, random_source& random) {
  std::vector<compute_t<S>> d;
  for (std::int64_t t = 0; t < n; ++t) {
    d.push_back(static_cast<compute_t<S>>(random.uniform(0.05, 1) * (random.chance(0.5) ? 1 : -1)));
  }
  return d;
}

const std::vector<std::int64_t> vocabularies{1, 2, 7, 31, 1000, 1023, 1025, 32001, 50257};

}  // namespace

// ------------------------------------------------------------------------------ the numeric
// contract

TEMPLATE_TEST_CASE("log-probs and gradients keep their contract for every vocabulary and row",
                   "[tokens]", float, double, bfloat16, float16) {
  random_source random{91};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : vocabularies) {
    for (const testing::row_kind kind : testing::all_row_kinds) {
      CAPTURE(vocabulary, static_cast<int>(kind));
      // The label at either end, somewhere inside, and a row that is not scored.
      std::vector<std::int64_t> targets{0, vocabulary - 1, random.integer(0, vocabulary - 1),
                                        ignored_target};
      if (vocabulary > 5000) targets = {vocabulary - 1 - random.integer(0, 1) * (vocabulary - 1)};
      const auto n = static_cast<std::int64_t>(targets.size());
      logits_matrix<TestType> logits{n, vocabulary, random.integer(0, 9), random.integer(0, 7)};
      for (std::int64_t t = 0; t < n; ++t) {
        fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
      }
      check_rows(logits, targets, coefficients<TestType>(n, random));
    }
  }
}

TEMPLATE_TEST_CASE("a row that climbs in more steps than are remembered", "[tokens]", float, double,
                   bfloat16) {
  random_source random{97};
  CAPTURE(random.seed());
  const auto climb = [&](std::int64_t steps, double height, double top, std::int64_t target) {
    CAPTURE(steps, height, top, target);
    logits_matrix<TestType> logits{1, steps * 4096 + 17};
    logits.fill_row(0, [&](std::int64_t j) {
      return top + height * static_cast<double>(j / 4096 - steps) + random.uniform(0, 0.25);
    });
    const std::vector<std::int64_t> targets{target};
    check_rows(logits, targets, {compute_t<TestType>(0.5)});
  };
  constexpr std::int64_t steps = prospect::cpu::detail::kept_exponentials::most + 10;
  climb(steps, 20, 10, steps * 2048);
  climb(steps, 5, 10, steps * 2048);  // fp64 has numbers as small as the first one's
  for (const std::int64_t target : {0, 100000, 50 * 4096 + 16}) {
    climb(50, 5, 10, target);
    // In whole powers, but not to the end. The contract on fp64 counts digits of the logits.
    if (sizeof(TestType) < 8) climb(50, 5, 65600, target);
  }
}

TEMPLATE_TEST_CASE("a confident token keeps its digits, and so does its gradient", "[tokens]",
                   float, double) {
  random_source random{92};
  CAPTURE(random.seed());
  for (const std::int64_t vocabulary : {2, 31, 1025}) {
    for (double rest = 1e-3; rest > 1e-13; rest /= 10) {
      CAPTURE(vocabulary, rest);
      const std::int64_t target = random.integer(0, vocabulary - 1);
      logits_matrix<TestType> logits{1, vocabulary};
      const double others = static_cast<double>(vocabulary - 1);
      const double confident = std::log(others * (1 - rest) / rest);
      logits.fill_row(
          0, [&](std::int64_t j) { return j == target ? confident : random.normal(0.01); });
      const auto row = logits.row(0);
      const auto want = oracle::softmax(row, target);
      const std::vector<std::int64_t> targets{target};
      const std::vector<TestType> one{1};
      const auto pass = forward_backward(logits, targets, one);
      CHECK(near(pass.log_prob[0], want.log_prob, 4e-6L));
      CHECK(near(logits.at(0, target), want.gradient[static_cast<std::size_t>(target)], 4e-6L));
    }
  }
}

TEST_CASE("beyond every digit the log-prob is 0 from below and the gradient tiny", "[tokens]") {
  logits_matrix<float> logits{1, 3};
  logits.fill_row(0, [](std::int64_t j) { return j == 1 ? 200.0 : 0.0; });
  const std::vector<std::int32_t> targets{1};
  const auto pass = forward(logits, targets);
  CHECK(pass.log_prob[0] <= 0);
  CHECK(std::isfinite(pass.log_prob[0]));
  CHECK(near(pass.lse[0], 200, 1e-14L));
}

TEMPLATE_TEST_CASE("a tiny coefficient keeps the gradient's digits", "[tokens]", float, bfloat16) {
  random_source random{94};
  CAPTURE(random.seed());
  for (const float d : {1e-6F, 1e-20F, 1e-30F, 1e-34F, -1e-37F}) {
    CAPTURE(d);
    const std::vector<std::int64_t> targets{3};
    logits_matrix<TestType> logits{1, 300};
    fill(logits, 0, testing::row_kind::ordinary, 3, random);
    check_rows(logits, targets, {d});
  }
}

TEST_CASE("NaN stays NaN when rows are scaled, whatever its payload", "[tokens]") {
  logits_matrix<bfloat16> rows{1, 5};
  rows.fill_row(0, [](std::int64_t) { return 1.0; });
  const std::vector<float> factors{__builtin_bit_cast(float, 0x7fffffffU)};
  prospect::cpu::scale_rows<bfloat16>(rows.view(), factors);
  for (const bfloat16 x : rows.elements()) CHECK(std::isnan(prospect::load(x)));
}

// ----------------------------------------------------------------- what a row may do to other rows

TEMPLATE_TEST_CASE("NaN or +inf makes its own row NaN and no other", "[tokens]", float, double,
                   bfloat16, float16) {
  random_source random{93};
  CAPTURE(random.seed());
  const std::int64_t n = 5, vocabulary = 130;
  const std::vector<std::int64_t> targets{0, 64, 129, 3, 77};
  const auto d = coefficients<TestType>(n, random);
  for (const double bad : {not_a_number, infinity}) {
    for (const bool at_target : {true, false}) {
      CAPTURE(bad, at_target);
      logits_matrix<TestType> clean{n, vocabulary};
      for (std::int64_t t = 0; t < n; ++t) {
        fill(clean, t, testing::row_kind::ordinary, targets[static_cast<std::size_t>(t)], random);
      }
      logits_matrix<TestType> dirty = clean;
      dirty.at(2, at_target ? 129 : 5) = testing::stored<TestType>(bad);
      const auto want = forward_backward(clean, targets, d);
      const auto got = forward_backward(dirty, targets, d);
      CHECK(std::isnan(got.log_prob[2]));
      CHECK(std::isnan(prospect::load(dirty.at(2, 129))));
      for (std::int64_t t = 0; t < n; ++t) {
        if (t == 2) continue;
        CHECK(same_bits(got.log_prob[static_cast<std::size_t>(t)],
                        want.log_prob[static_cast<std::size_t>(t)]));
        for (std::int64_t j = 0; j < vocabulary; ++j) {
          REQUIRE(same_bits(dirty.at(t, j), clean.at(t, j)));
        }
      }
    }
  }
}

TEST_CASE("NaN is found wherever it hides", "[tokens]") {
  const std::vector<std::int32_t> targets{1};
  for (const std::int64_t place : {0, 1, 2}) {
    for (const double others : {-infinity, 0.0, -1e30}) {
      for (const double bad : {not_a_number, infinity}) {
        CAPTURE(place, others, bad);
        logits_matrix<float> logits{1, 3};
        logits.fill_row(0, [&](std::int64_t j) { return j == place ? bad : others; });
        CHECK(std::isnan(forward(logits, targets).log_prob[0]));
      }
    }
  }
}

TEMPLATE_TEST_CASE("a masked row is not read, and its gradient is zero", "[tokens]", float, double,
                   bfloat16, float16) {
  random_source random{94};
  CAPTURE(random.seed());
  const std::vector<std::int64_t> targets{4, ignored_target, 0, ignored_target};
  const auto d = coefficients<TestType>(4, random);
  logits_matrix<TestType> clean{4, 33};
  for (const std::int64_t t : {0, 1, 2, 3}) {
    fill(clean, t, testing::row_kind::ordinary, 0, random);
  }
  for (const double rubbish : {not_a_number, -infinity, infinity}) {
    logits_matrix<TestType> a = clean, b = clean;
    b.fill_row(1, [&](std::int64_t) { return rubbish; });
    b.fill_row(3, [&](std::int64_t) { return rubbish; });
    const auto want = forward_backward(a, targets, d), got = forward_backward(b, targets, d);
    CHECK(same_bits(got.log_prob, want.log_prob));
    CHECK(same_bits(b.elements(), a.elements()));
    for (const TestType x : {b.at(1, 0), b.at(3, 32)}) {
      CHECK(same_bits(x, testing::stored<TestType>(0)));
    }
  }
}

TEST_CASE("a row with coefficient 0 gets gradient 0, even where it is NaN", "[tokens]") {
  logits_matrix<float> logits{1, 4};
  logits.fill_row(0, [](std::int64_t) { return not_a_number; });
  const std::vector<std::int32_t> targets{2};
  forward_backward(logits, targets, {0.0F});
  for (const float x : logits.elements()) CHECK(x == 0);
}

TEMPLATE_TEST_CASE("a row gives the same bits at any place in any batch", "[tokens]", float, double,
                   bfloat16, float16) {
  random_source random{95};
  CAPTURE(random.seed());
  const std::int64_t n = 9, vocabulary = 257;
  logits_matrix<TestType> together{n, vocabulary, 0, 0};
  std::vector<std::int64_t> targets;
  for (std::int64_t t = 0; t < n; ++t) {
    targets.push_back(random.integer(0, vocabulary - 1));
    fill(together, t, testing::row_kind::ordinary, targets.back(), random);
  }
  const auto d = coefficients<TestType>(n, random);
  const logits_matrix<TestType> original = together;
  const auto pass = forward_backward(together, targets, d);
  for (std::int64_t t = 0; t < n; ++t) {
    const auto i = static_cast<std::size_t>(t);
    logits_matrix<TestType> alone{1, vocabulary, 5, 1 + t % 5};
    auto source = original;
    for (std::int64_t j = 0; j < vocabulary; ++j) alone.at(0, j) = source.at(t, j);
    const std::vector<std::int64_t> target{targets[i]};
    const auto single = forward_backward(alone, target, {d[i]});
    CHECK(same_bits(single.log_prob[0], pass.log_prob[i]));
    CHECK(same_bits(single.lse[0], pass.lse[i]));
    for (std::int64_t j = 0; j < vocabulary; ++j)
      REQUIRE(same_bits(alone.at(0, j), together.at(t, j)));
  }
}

// --------------------------------------------------------------------------------- the interface

TEST_CASE("targets may be int32 or int64, and strided", "[tokens]") {
  random_source random{96};
  CAPTURE(random.seed());
  logits_matrix<float> logits{3, 12};
  for (std::int64_t t = 0; t < 3; ++t) fill(logits, t, testing::row_kind::ordinary, 0, random);
  const std::vector<std::int32_t> narrow{3, ignored_target, 11};
  const std::vector<std::int64_t> wide{3, ignored_target, 11};
  const std::vector<std::int32_t> reversed{11, 0, ignored_target, 0, 3};
  const auto want = forward(logits, narrow).log_prob;
  CHECK(want[0] < 0);
  CHECK(want[1] == 0);
  CHECK(same_bits(forward(logits, wide).log_prob, want));
  const prospect::strided_span<const std::int32_t> backwards{reversed.data() + 4, 3, -2};
  CHECK(same_bits(forward(logits, backwards).log_prob, want));
}

TEST_CASE("an output that is not wanted is not written", "[tokens]") {
  logits_matrix<float> logits{2, 5};
  for (const std::int64_t t : {0, 1}) {
    logits.fill_row(t, [](std::int64_t j) { return static_cast<double>(j); });
  }
  const std::vector<std::int32_t> targets{1, 4};
  const auto both = forward(logits, targets);
  testing::laid_out_row<double> lse{2, {.offset = 1, .stride = 2}};
  testing::laid_out_row<float> log_prob{2, {.offset = 0, .stride = -3}};
  token_log_probs<float>(logits.view(), targets, {.lse = lse.view()});
  token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob.view()});
  CHECK(same_bits(lse.elements(), both.lse));
  CHECK(same_bits(log_prob.elements(), both.log_prob));
  CHECK(lse.only_elements_written());
  CHECK(log_prob.only_elements_written());
}

TEST_CASE("no rows, and nothing but masked rows", "[tokens]") {
  logits_matrix<float> none{0, 7};
  forward_backward(none, prospect::index_row{}, {});
  CHECK(none.padding_untouched());
  logits_matrix<float> masked{2, 7};
  masked.fill_row(0, [](std::int64_t) { return 1.0; });
  masked.fill_row(1, [](std::int64_t) { return 1.0; });
  const std::vector<std::int32_t> targets{ignored_target, ignored_target};
  const auto pass = forward_backward(masked, targets, {1.0F, 1.0F});
  CHECK(pass.log_prob == std::vector<float>{0, 0});
  for (const float x : masked.elements()) CHECK(x == 0);
}
