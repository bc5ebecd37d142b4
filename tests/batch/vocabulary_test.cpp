// What sums over parts of a row say: hand-made partials, without any row kernel, against the
// textbook softmax.

#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using prospect::combine;
using prospect::finish;
using prospect::token_scores;
using prospect::vocabulary_partial;
using testing::near;
using testing::random_source;

using testing::infinity;
using testing::not_a_number;

/// The sums by their definition. `shift` may be any number not far below the highest of the others.
vocabulary_partial partial(const std::vector<double>& z, std::int64_t target, double shift) {
  vocabulary_partial p;
  p.tokens = static_cast<double>(z.size());
  for (std::size_t v = 0; v < z.size(); ++v) {
    const bool here = static_cast<std::int64_t>(v) == target;
    if (here) {
      p.targets = 1;
      p.target = z[v];
      continue;
    }
    double& highest = target >= 0 && static_cast<std::int64_t>(v) > target ? p.after : p.before;
    highest = std::max(highest, z[v]);
    p.logits += z[v];
    if (z[v] == -infinity) continue;
    p.shift = shift;
    const double e = std::exp(z[v] - shift);
    p.exponentials += e;
    p.squares += e * e;
    p.weighted += (z[v] - shift) * e;
  }
  return p;
}

/// The row in parts that end at `ends`, combined from the first to the last.
vocabulary_partial combined(const std::vector<double>& z, std::int64_t target,
                            const std::vector<std::int64_t>& ends, random_source& random) {
  vocabulary_partial whole;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    const std::vector<double> part(z.begin() + begin, z.begin() + end);
    const std::int64_t column = target >= begin && target < end ? target - begin : -1;
    double highest = -infinity;
    for (std::size_t v = 0; v < part.size(); ++v) {
      if (static_cast<std::int64_t>(v) != column) highest = std::max(highest, part[v]);
    }
    const vocabulary_partial p = partial(part, column, highest + random.uniform(-4, 1));
    whole = begin == 0 && end == ends.front() ? p : combine(whole, p);
    begin = end;
  }
  return whole;
}

void check(const token_scores& got, const oracle::softmax_row& want, real size) {
  CHECK(got.log_prob <= 0);
  CHECK(near(got.log_prob, want.log_prob, 1e-13L, 4e-16L * size * (want.rest > 0.5L ? 1 : 0)));
  CHECK(near(got.lse, want.lse, 4e-16L, 1e-14L));
  CHECK(near(got.entropy, want.entropy, 1e-12L, 1e-14L * (want.rest > 1e-3L ? 1 + size : 0)));
  CHECK(got.entropy >= 0);
  CHECK(near(got.sum_squares, want.sum_squares, 1e-12L));
  CHECK(near(got.mean_logit, want.mean_logit, 1e-13L, 1e-14L * size));
  CHECK(got.target_is_argmax == want.target_is_argmax);
}

}  // namespace

TEST_CASE("any parts of a row give what the whole row gives", "[vocabulary]") {
  random_source random{301};
  CAPTURE(random.seed());
  for (int round = 0; round < 400; ++round) {
    const std::int64_t n = random.integer(1, 12);
    const double spread = std::pow(10.0, random.uniform(-2, 2.5)), place = random.normal(300);
    std::vector<double> z;
    for (std::int64_t v = 0; v < n; ++v) {
      // Equal logits too, and impossible ones.
      z.push_back(random.chance(0.2)   ? -infinity
                  : random.chance(0.2) ? place
                                       : place + random.normal(spread));
    }
    const std::int64_t target = random.integer(0, n - 1);
    if (z[static_cast<std::size_t>(target)] == -infinity) z[static_cast<std::size_t>(target)] = 0;
    std::vector<std::int64_t> ends;
    for (std::int64_t parts = random.integer(0, 4); parts > 0; --parts) {
      ends.push_back(random.integer(0, n));  // empty parts included
    }
    ends.push_back(n);
    std::sort(ends.begin(), ends.end());
    CAPTURE(round, z, target, ends);
    check(finish(combined(z, target, ends, random)), oracle::softmax({z.begin(), z.end()}, target),
          std::abs(place) + 10 * spread);
  }
}

TEST_CASE("an empty part changes nothing, in front or behind", "[vocabulary]") {
  const vocabulary_partial row = partial({1, 4, 2}, 0, 3.5), none;
  for (const token_scores& got : {finish(combine(none, row)), finish(combine(row, none))}) {
    const token_scores want = finish(row);
    CHECK(got.log_prob == want.log_prob);
    CHECK(got.lse == want.lse);
    CHECK(got.entropy == want.entropy);
    CHECK(got.sum_squares == want.sum_squares);
    CHECK(got.mean_logit == want.mean_logit);
    CHECK(got.target_is_argmax == want.target_is_argmax);
  }
}

TEST_CASE("of equal logits the first is the argmax, wherever the parts meet", "[vocabulary]") {
  random_source random{302};
  const std::vector<double> z{1, 7, 0, 7, 7};
  for (std::int64_t target = 0; target < 5; ++target) {
    for (std::int64_t cut = 0; cut <= 5; ++cut) {
      CAPTURE(target, cut);
      CHECK(finish(combined(z, target, {cut, 5}, random)).target_is_argmax == (target == 1));
    }
  }
}

TEST_CASE("a part without finite logits leaves the others alone", "[vocabulary]") {
  const vocabulary_partial dead = partial({-infinity, -infinity}, -1, 0);
  const vocabulary_partial row = partial({-800, -801}, 0, -800);
  for (const auto& whole : {combine(dead, row), combine(row, dead)}) {
    CHECK(near(finish(whole).log_prob, -std::log1p(std::exp(-1.0L)), 1e-14L));
    CHECK(near(finish(whole).lse, -800 + std::log1p(std::exp(-1.0L)), 1e-15L));
    CHECK(finish(whole).mean_logit == -infinity);
  }
}

TEST_CASE("a row that is no distribution is NaN in every number", "[vocabulary]") {
  const auto all_nan = [](const token_scores& s) {
    return std::isnan(s.log_prob) && std::isnan(s.lse) && std::isnan(s.entropy) &&
           std::isnan(s.sum_squares) && std::isnan(s.mean_logit) && !s.target_is_argmax;
  };
  CHECK(all_nan(finish({})));
  // No part holds the target.
  CHECK(all_nan(finish(combine(partial({1, 2}, -1, 1), partial({3}, -1, 3)))));
  // Nothing is possible.
  CHECK(all_nan(finish(partial({-infinity, -infinity}, 1, 0))));
  for (const double bad : {not_a_number, infinity}) {
    CHECK(all_nan(finish(partial({1, bad}, 1, 1))));
  }
  // NaN among the others, in front of the part with the target or behind it.
  const vocabulary_partial bad = partial({1, not_a_number}, -1, 1), good = partial({50, 2}, 0, 2);
  CHECK(all_nan(finish(combine(bad, good))));
  CHECK(all_nan(finish(combine(good, bad))));
}

TEST_CASE("the entropy of a certain token is not below 0 by rounding", "[vocabulary]") {
  random_source random{303};
  CAPTURE(random.seed());
  int below = 0;
  for (int round = 0; round < 1000; ++round) {
    const double z = random.normal(30), shift = z + random.uniform(-1, 1);
    const vocabulary_partial p = partial({z, -1e4}, 1, shift);
    CHECK(finish(p).entropy >= 0);
    // What the formula says before it is clamped: this is about rows for which it is needed.
    below += std::log(p.exponentials) - p.weighted / p.exponentials < 0 ? 1 : 0;
  }
  CHECK(below > 100);
}

TEST_CASE("the target's log-prob keeps its digits from both sides", "[vocabulary]") {
  for (double gap = 1e-3; gap < 700; gap *= 3) {
    CAPTURE(gap);
    CHECK(
        near(finish(partial({0, gap}, 1, 0)).log_prob, -std::log1p(std::exp(-real{gap})), 1e-14L));
    CHECK(near(finish(partial({gap, 0}, 1, gap)).log_prob, -gap - std::log1p(std::exp(-real{gap})),
               1e-14L));
  }
  // The logits are too far apart for the lower one's exponential.
  CHECK(finish(partial({1e30, -1e30}, 1, 1e30)).log_prob == -2e30);
  CHECK(finish(partial({-1e30, 1e30}, 1, -1e30)).log_prob == 0);
  CHECK(finish(partial({1e30, -1e30}, 1, 1e30)).entropy == 0);
}
