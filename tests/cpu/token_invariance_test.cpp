// What the results of phases 1 and 3 must not depend on: who runs the loops, the row's place and
// neighbours, pitch and alignment, one pass or two. All of it to the last bit.

#include <prospect/cpu/tokens.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/rows.hpp"
#include "cpu/token_checks.hpp"
#include "executors.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::token_options;
using prospect::vocabulary_partial;
using testing::logits_matrix;
using testing::not_a_number;
using testing::random_source;
using testing::row_kind;
using testing::same_bits;

/// Everything that the token functions leave, as bytes.
struct traces {
  std::vector<std::byte> bytes;

  template <class T>
  void add(const std::vector<T>& row) {
    const auto* first = reinterpret_cast<const std::byte*>(row.data());
    bytes.insert(bytes.end(), first, first + row.size() * sizeof(T));
  }
  bool operator==(const traces&) const = default;
};

template <class S>
struct problem {
  logits_matrix<S> logits;
  std::vector<std::int64_t> targets;
  std::vector<compute_t<S>> a, b;
  token_options options;

  problem(random_source& random, std::int64_t n, std::int64_t vocabulary, token_options o)
      : logits{n, vocabulary, 0, 0}, options{o} {
    for (std::int64_t t = 0; t < n; ++t) {
      const std::int64_t target = random.integer(0, vocabulary - 1);
      fill(logits, t, testing::all_row_kinds[random.integer(0, 9)], target, random);
      targets.push_back(random.chance(0.1) ? ignored_target : target);
      a.push_back(static_cast<compute_t<S>>(random.normal(1)));
      b.push_back(random.chance(0.5) ? a.back() : static_cast<compute_t<S>>(random.normal(1)));
    }
  }
  /// Row t alone, with other padding and alignment.
  problem(problem& whole, std::int64_t t)
      : logits{1, whole.logits.columns(), 3 + t % 4, t % 8},
        targets{whole.targets[static_cast<std::size_t>(t)]},
        a{whole.a[static_cast<std::size_t>(t)]},
        b{whole.b[static_cast<std::size_t>(t)]},
        options{whole.options} {
    logits.fill_row(0, [&](std::int64_t j) { return prospect::load(whole.logits.at(t, j)); });
  }
};

/// Row `row`'s part of everything that every function gives, or all rows'.
template <class S, class E>
std::vector<traces> run(problem<S> p, E& on) {
  using R = compute_t<S>;
  using namespace prospect::cpu;
  const std::int64_t n = p.logits.rows();
  const auto size = static_cast<std::size_t>(n);
  testing::token_results<R> all{n}, plain{n}, deferred{n};
  token_log_probs<S>(p.logits.view(), p.targets, all.out(), p.options, on);
  token_log_probs<S>(p.logits.view(), p.targets, {.log_prob = plain.log_prob, .lse = plain.lse},
                     p.options, on);
  std::vector<vocabulary_partial> partials(size);
  vocabulary_partials<S>(p.logits.view(), p.targets, partials, p.options, true, on);
  logits_matrix<S> apart{n, p.logits.columns()};
  logits_gradient<S>(p.logits.view(), apart.view(), p.targets, all.log_prob, all.lse,
                     {.softmax = p.a, .onehot = p.b}, p.options, on);
  auto kept = p.logits, unscaled = p.logits;
  logits_gradient<S>(kept.view(), p.targets, all.log_prob, all.lse, p.a, p.options, on);
  token_log_probs_and_gradient<S>(unscaled.view(), p.targets, {.log_prob = deferred.log_prob},
                                  p.options, on);
  auto scaled = unscaled;
  scale_rows<S>(scaled.view(), p.a, on);

  std::vector<traces> rows(size);
  for (std::int64_t t = 0; t < n; ++t) {
    const auto i = static_cast<std::size_t>(t);
    rows[i].add(std::vector<R>{all.log_prob[i], plain.log_prob[i], all.entropy[i],
                               all.sum_squares[i], all.mean_logit[i], deferred.log_prob[i]});
    rows[i].add(std::vector<double>{all.lse[i], plain.lse[i]});
    rows[i].add(std::vector<std::uint8_t>{all.argmax[i]});
    rows[i].add(std::vector<vocabulary_partial>{partials[i]});
    for (auto* m : {&apart, &kept, &unscaled, &scaled}) {
      std::vector<S> row;
      for (std::int64_t j = 0; j < m->columns(); ++j) row.push_back(m->at(t, j));
      rows[i].add(row);
    }
  }
  return rows;
}

/// The largest relative difference of two matrices, but for numbers so small that one may be 0.
template <class S>
double farthest_apart(logits_matrix<S>& a, logits_matrix<S>& b) {
  double farthest = 0;
  for (std::int64_t t = 0; t < a.rows(); ++t) {
    for (std::int64_t j = 0; j < a.columns(); ++j) {
      const double x = prospect::load(a.at(t, j)), y = prospect::load(b.at(t, j));
      const auto may_be_0 = [](double g) { return std::abs(g) < testing::negligible<S> * 1.0001L; };
      if (may_be_0(x) && may_be_0(y)) continue;
      const double apart = std::abs(x - y) / std::max(std::abs(x), std::abs(y));
      if (!(apart <= farthest)) farthest = apart;
    }
  }
  return farthest;
}

const std::vector<token_options> some_options{
    {}, {.temperature = 0.7}, {.temperature = 2, .soft_cap = 30}};

}  // namespace

TEMPLATE_TEST_CASE("no executor shows in the results", "[tokens][invariance]", float, double,
                   bfloat16, float16) {
  random_source random{501};
  CAPTURE(random.seed());
  // Several pieces of half a megabyte, so that the executor is really asked.
  const std::int64_t vocabulary = 3001;
  const auto n = static_cast<std::int64_t>((std::int64_t{5} << 19) / (3001 * sizeof(TestType)));
  const problem<TestType> p{random, n, vocabulary, {.temperature = 0.9}};
  prospect::serial_executor serial;
  const auto want = run(p, serial);
  testing::with_each_executor([&](const std::string& name, auto& on) {
    CAPTURE(name);
    CHECK(run(p, on) == want);
  });
  testing::reversed_executor asked;
  run(p, asked);
  CHECK(asked.largest > 2);
}

TEMPLATE_TEST_CASE("no neighbour, place, pitch or alignment shows in the results",
                   "[tokens][invariance]", float, double, bfloat16, float16) {
  random_source random{502};
  CAPTURE(random.seed());
  prospect::serial_executor on;
  for (const token_options& options : some_options) {
    for (const std::int64_t vocabulary : {1, 2, 3, 63, 65, 1023, 9001}) {
      const std::int64_t n = vocabulary > 2000 ? 3 : 11;
      CAPTURE(options.temperature, options.soft_cap, vocabulary);
      problem<TestType> p{random, n, vocabulary, options};
      const auto together = run(p, on);
      for (std::int64_t t = 0; t < n; ++t) {
        CAPTURE(t);
        CHECK(run(problem<TestType>{p, t}, on).front() == together[static_cast<std::size_t>(t)]);
      }
    }
  }
}

TEMPLATE_TEST_CASE("the deferred schedule is the kept one with coefficient 1",
                   "[tokens][invariance]", float, double, bfloat16, float16) {
  using R = compute_t<TestType>;
  using namespace prospect::cpu;
  random_source random{503};
  CAPTURE(random.seed());
  for (const token_options& options : some_options) {
    for (const std::int64_t vocabulary : {1, 2, 127, 5000}) {
      CAPTURE(options.temperature, options.soft_cap, vocabulary);
      problem<TestType> p{random, 6, vocabulary, options};
      auto kept = p.logits, deferred = p.logits;
      std::vector<R> log_prob(6), one(6, R(1)), deferred_log_prob(6, testing::poison<R>());
      std::vector<double> lse(6), deferred_lse(6, testing::poison<double>());
      token_log_probs<TestType>(kept.view(), p.targets, {.log_prob = log_prob, .lse = lse},
                                options);
      logits_gradient<TestType>(kept.view(), p.targets, log_prob, lse, one, options);
      token_log_probs_and_gradient<TestType>(deferred.view(), p.targets,
                                             {.log_prob = deferred_log_prob, .lse = deferred_lse},
                                             options);
      CHECK(same_bits(deferred_log_prob, log_prob));
      CHECK(same_bits(deferred_lse, lse));
      const bool plain = options.temperature == 1 && options.soft_cap == token_options{}.soft_cap;
      if (plain && sizeof(TestType) > 2) {  // which may have kept its exponentials
        CHECK(farthest_apart(deferred, kept) < (sizeof(R) == 8 ? 1e-12 : 1e-6));
      } else {
        CHECK(same_bits(deferred.elements(), kept.elements()));
      }
      CHECK(deferred.padding_untouched());
    }
  }
}

TEMPLATE_TEST_CASE("scaled rows are products, rounded once; factor 0 reads nothing",
                   "[tokens][scale_rows]", float, double, bfloat16, float16) {
  using R = compute_t<TestType>;
  random_source random{504};
  CAPTURE(random.seed());
  for (const std::int64_t columns : {0, 1, 15, 64, 1031}) {
    CAPTURE(columns);
    logits_matrix<TestType> m{5, columns, 2, 3};
    for (std::int64_t t = 0; t < 5; ++t) {
      m.fill_row(t, [&](std::int64_t) {
        return t == 1 ? not_a_number : random.normal(1) * std::pow(10.0, random.uniform(-6, 3));
      });
    }
    auto before = m;
    const std::vector<R> factors{R(0.37), 0, R(-2), R(1e-3), R(not_a_number)};
    prospect::cpu::scale_rows<TestType>(m.view(), factors);
    CHECK(m.padding_untouched());
    for (std::int64_t t = 0; t < 5; ++t) {
      for (std::int64_t j = 0; j < columns; ++j) {
        const R factor = factors[static_cast<std::size_t>(t)];
        if (t == 4) {
          REQUIRE(std::isnan(prospect::load(m.at(t, j))));
        } else {
          const R want = factor == 0 ? R(0) : prospect::load(before.at(t, j)) * factor;
          REQUIRE(same_bits(m.at(t, j), prospect::store<TestType>(want)));
        }
      }
    }
  }
  // A row that is NaN, or out of range, says so afterwards.
  logits_matrix<TestType> rubbish{1, 40};
  rubbish.fill_row(0, [&](std::int64_t j) {
    return j % 3 == 0 ? not_a_number : j % 3 == 1 ? std::numeric_limits<double>::infinity() : 1.0;
  });
  const std::vector<R> half{R(-0.5)};
  prospect::cpu::scale_rows<TestType>(rubbish.view(), half);
  for (std::int64_t j = 0; j < 40; ++j) {
    const R x = prospect::load(rubbish.at(0, j));
    CAPTURE(j, x);
    CHECK((j % 3 == 0   ? std::isnan(x)
           : j % 3 == 1 ? x == -std::numeric_limits<R>::infinity()
                        : x == R(-0.5)));
  }
}
