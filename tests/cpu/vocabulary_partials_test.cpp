// A vocabulary that is split over ranks: any split gives what the whole row gives, forward and
// backward, and every rank that combines the same partials gets the same bits.

#include <prospect/cpu/tokens.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "cpu/token_checks.hpp"
#include "cpu/vocabulary_parts.hpp"
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
using prospect::vocabulary_partial;
using testing::logits_matrix;
using testing::near;
using testing::random_source;
using testing::same_bits;

}  // namespace

TEMPLATE_TEST_CASE("any split of the vocabulary keeps the contract", "[tokens][vocabulary]", float,
                   double, bfloat16, float16) {
  using R = compute_t<TestType>;
  using namespace prospect::cpu;
  random_source random{601};
  CAPTURE(random.seed());
  for (int round = 0; round < 120; ++round) {
    const std::int64_t vocabulary = round % 10 == 0 ? 6001 : random.integer(1, 300);
    const token_options options = round % 3 == 0   ? token_options{}
                                  : round % 3 == 1 ? token_options{.temperature = 0.7}
                                                   : token_options{.soft_cap = 30};
    const std::int64_t n = 3;
    std::vector<std::int64_t> targets{random.integer(0, vocabulary - 1), ignored_target,
                                      random.chance(0.5) ? 0 : vocabulary - 1};
    logits_matrix<TestType> logits{n, vocabulary}, gradient{n, vocabulary};
    const auto kind = testing::all_row_kinds[random.integer(0, 9)];
    for (std::int64_t t = 0; t < n; ++t) {
      fill(logits, t, kind, targets[static_cast<std::size_t>(t)], random);
    }
    logits.fill_row(1, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
    const auto shards = testing::any_split(random, vocabulary);
    const auto parts = static_cast<std::int64_t>(shards.size());
    CAPTURE(round, vocabulary, static_cast<int>(kind), parts, options.temperature, targets);

    std::vector<vocabulary_partial> partials(static_cast<std::size_t>(parts * n));
    for (std::int64_t i = 0; i < parts; ++i) {
      const testing::shard& s = shards[static_cast<std::size_t>(i)];
      vocabulary_partials<TestType>(s.of(logits.view()), targets, {partials.data() + i * n, n, 1},
                                    s.options(options, vocabulary), true);
    }
    testing::token_results<R> got{n};
    prospect::cpu::token_log_probs<R>({partials.data(), parts, n}, targets, got.out());
    const auto& [log_prob, entropy, squares, mean, lse, argmax] = got;
    const std::vector<R> a{R(0.4), R(1), R(-1.5)}, b{R(0.4), R(1), R(-0.5)};
    for (const testing::shard& s : shards) {
      logits_gradient<TestType>(s.of(logits.view()), s.of(gradient.view()), targets, log_prob, lse,
                                {.softmax = a, .onehot = b}, s.options(options, vocabulary));
    }
    CHECK(gradient.padding_untouched());

    CHECK(same_bits(log_prob[1], R(0)));
    for (std::int64_t j = 0; j < vocabulary; ++j) {
      REQUIRE(same_bits(gradient.at(1, j), testing::stored<TestType>(0)));
    }
    for (const std::size_t t : {std::size_t{0}, std::size_t{2}}) {
      CAPTURE(t);
      // The stated order, to the last bit.
      vocabulary_partial whole = partials[t];
      for (std::int64_t i = 1; i < parts; ++i) {
        whole = combine(whole, partials[static_cast<std::size_t>(i * n) + t]);
      }
      const auto scores = finish(whole);
      CHECK(same_bits(log_prob[t], static_cast<R>(scores.log_prob)));
      CHECK(same_bits(lse[t], scores.lse));
      CHECK(same_bits(entropy[t], static_cast<R>(scores.entropy)));
      CHECK(same_bits(squares[t], static_cast<R>(scores.sum_squares)));
      CHECK(same_bits(mean[t], static_cast<R>(scores.mean_logit)));

      const auto row = logits.row(static_cast<std::int64_t>(t));
      const auto want = oracle::softmax(
          row, targets[t], {.temperature = options.temperature, .soft_cap = options.soft_cap});
      const real size = testing::largest(row) / std::min(1.0, options.temperature);
      CHECK(testing::log_prob_in_contract(log_prob[t], want.log_prob, size));
      CHECK(near(lse[t], want.lse, 1e-15L, 4 * testing::lse_error<R>));
      CHECK(argmax[t] == (want.target_is_argmax ? 1 : 0));
      for (std::int64_t j = 0; j < vocabulary; ++j) {
        const auto v = static_cast<std::size_t>(j);
        const real p = want.probability[v], slope = want.slope[v];
        const bool at_target = j == targets[t];
        // The magnitude of what is subtracted there, in the better of the two ways.
        const real x = a[t], y = b[t];
        const real terms =
            std::min(std::abs(x) * p + std::abs(y), std::abs(x - y) + std::abs(x) * want.rest);
        const real gradient_there =
            at_target ? testing::gradient_at_target(want, v, x, y) : slope * x * p;
        REQUIRE(testing::gradient_in_contract(gradient.at(static_cast<std::int64_t>(t), j),
                                              gradient_there, at_target ? slope * terms : 0, size));
      }
    }
  }
}

TEST_CASE("one part that is the whole vocabulary gives the bits of the whole",
          "[tokens][vocabulary]") {
  random_source random{602};
  logits_matrix<float> logits{4, 2000};
  const std::vector<std::int64_t> targets{0, 1999, ignored_target, 77};
  for (std::int64_t t = 0; t < 4; ++t) fill(logits, t, testing::row_kind::wide, 0, random);
  std::vector<vocabulary_partial> partials(4);
  prospect::cpu::vocabulary_partials<float>(logits.view(), targets, partials, {});
  std::vector<float> want(4), got(4);
  std::vector<double> want_lse(4), got_lse(4);
  prospect::cpu::token_log_probs<float>(logits.view(), targets,
                                        {.log_prob = want, .lse = want_lse});
  prospect::cpu::token_log_probs<float>({partials.data(), 1, 4}, targets,
                                        {.log_prob = got, .lse = got_lse});
  CHECK(same_bits(got, want));
  CHECK(same_bits(got_lse, want_lse));
}

TEST_CASE("a target that no part holds, and parts of the wrong size", "[tokens][vocabulary]") {
  logits_matrix<float> logits{1, 8};
  logits.fill_row(0, [](std::int64_t j) { return static_cast<double>(j); });
  const std::vector<std::int64_t> targets{9};
  std::vector<vocabulary_partial> partials(1);
  prospect::cpu::vocabulary_partials<float>(logits.view(), targets, partials, {.vocabulary = 10});
  std::vector<float> log_prob{0};
  const prospect::token_outputs<float> out{.log_prob = log_prob};
  prospect::cpu::token_log_probs<float>({partials.data(), 1, 1}, targets, out);
  CHECK(std::isnan(log_prob[0]));

  using testing::refuses;
  CHECK(refuses("parts", [&] {
    prospect::cpu::token_log_probs<float>({partials.data(), 0, 1}, targets, out);
  }));
  CHECK(refuses("targets", [&] {
    const std::vector<std::int64_t> two{1, 2};
    prospect::cpu::token_log_probs<float>({partials.data(), 1, 1}, two, out);
  }));
  CHECK(refuses("partials", [&] {
    std::vector<vocabulary_partial> two(2);
    prospect::cpu::vocabulary_partials<float>(logits.view(), targets, two, {.vocabulary = 10});
  }));
  CHECK(refuses("targets[0]", [&] {
    prospect::cpu::vocabulary_partials<float>(logits.view(), targets, partials, {});
  }));
}
