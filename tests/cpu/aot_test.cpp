// AOT in both forms against sorts in long double and finite differences of the whole batch's loss;
// ties, what takes no part, scratch, and losses that it is not for.

#include <prospect/cpu/aot.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::dpo;
using prospect::strided_span;
using testing::near;

/// Sequences 0 to n - 1 are chosen, the others rejected.
struct aot_case {
  std::int64_t n;
  std::vector<double> policy, reference;
  std::vector<std::int32_t> tokens, chosen, rejected;

  aot_case(testing::random_source& random, std::int64_t pairs)
      : n{pairs},
        policy{random.normals(2 * pairs, 20)},
        reference{random.normals(2 * pairs, 20)},
        tokens(policy.size(), 3) {
    for (std::int64_t i = 0; i < n; ++i) {
      chosen.push_back(static_cast<std::int32_t>(i));
      rejected.push_back(static_cast<std::int32_t>(n + i));
    }
  }
  prospect::paired_batch<> pairs() const {
    const strided_span<const double> p = policy, r = reference;
    const strided_span<const std::int32_t> t = tokens;
    return {.policy_chosen = p.slice(0, n),
            .policy_rejected = p.slice(n, n),
            .reference_chosen = r.slice(0, n),
            .reference_rejected = r.slice(n, n),
            .chosen_tokens = t.slice(0, n),
            .rejected_tokens = t.slice(n, n)};
  }
  prospect::indexed_pairs indexed() const {
    return {.policy = policy,
            .reference = reference,
            .tokens = tokens,
            .chosen = chosen,
            .rejected = rejected};
  }
};

/// The loss of either form, by its definition.
template <class Of>
long double textbook_aot(const aot_case& c, const dpo& loss, const Of& of) {
  std::vector<long double> left, right;
  for (std::int64_t i = 0; i < c.n; ++i) {
    const auto w = static_cast<std::size_t>(i), l = static_cast<std::size_t>(c.n + i);
    const auto [a, b] =
        of(static_cast<long double>(c.policy[w]), c.policy[l], c.reference[w], c.reference[l]);
    left.push_back(a);
    right.push_back(b);
  }
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  long double sum = 0;
  for (std::size_t k = 0; k < left.size(); ++k) {
    const long double m = loss.beta * (left[k] - right[k]);
    sum += std::log1p(std::exp(-m)) + loss.label_smoothing * m;
  }
  return sum / static_cast<long double>(c.n);
}
struct of_pairs {
  auto operator()(long double p, double q, double r, double s) const {
    return std::pair{p - q, static_cast<long double>(r) - s};
  }
};
struct of_sequences {
  auto operator()(long double p, double q, double r, double s) const {
    return std::pair{p - r, static_cast<long double>(q) - s};
  }
};

/// Results per pair or rank, and coefficients of all sequences.
struct aot_results {
  std::vector<double> loss, d;
  prospect::paired_metrics metrics;
};

aot_results evaluate_pairs(const aot_case& c, const dpo& loss) {
  const auto n = static_cast<std::size_t>(c.n);
  std::vector<double> margin(n, -1);
  aot_results r{std::vector<double>(n), std::vector<double>(2 * n), {}};
  prospect::paired_batch<> in = c.pairs();
  prospect::cpu::aot_margins(loss, in, margin);
  in.margin = margin;
  const strided_span<double> d = r.d;
  r.metrics = prospect::cpu::evaluate(
      loss, in,
      {.loss = r.loss, .d_policy_chosen = d.slice(0, c.n), .d_policy_rejected = d.slice(c.n, c.n)});
  return r;
}

aot_results evaluate_sequences(const aot_case& c, const dpo& loss) {
  const auto n = static_cast<std::size_t>(c.n);
  std::vector<std::int32_t> chosen(n), rejected(n);
  aot_results r{std::vector<double>(n), std::vector<double>(2 * n), {}};
  prospect::indexed_pairs in = c.indexed();
  prospect::cpu::aot_pairs(in, strided_span<std::int32_t>{chosen},
                           strided_span<std::int32_t>{rejected});
  in.chosen = chosen;
  in.rejected = rejected;
  r.metrics = prospect::cpu::evaluate(loss, in, {.loss = r.loss, .d_policy = r.d});
  return r;
}

template <class Evaluate, class Of>
void check_aot(const Evaluate& evaluate, const Of& of) {
  testing::random_source random{74};
  CAPTURE(random.seed());
  const dpo loss{.beta = 0.1, .label_smoothing = 0.1};
  for (const std::int64_t n : {1, 2, 3, 7, 40}) {
    aot_case c{random, n};
    const aot_results got = evaluate(c, loss);
    CAPTURE(n);
    CHECK(near(got.metrics.total, textbook_aot(c, loss, of), 1e-12L));
    for (std::size_t i = 0; i < c.policy.size(); ++i) {
      CAPTURE(i);
      const double here = c.policy[i], step = 1e-6;
      c.policy[i] = here + step;
      const long double above = textbook_aot(c, loss, of);
      c.policy[i] = here - step;
      CHECK(near(got.d[i], (above - textbook_aot(c, loss, of)) / (2 * step), 1e-6L, 1e-9L));
      c.policy[i] = here;
    }
  }
}

}  // namespace

TEST_CASE("AOT of pairs is its definition, and its gradient goes through the sort", "[aot]") {
  check_aot(evaluate_pairs, of_pairs{});
}
TEST_CASE("AOT of unpaired completions is its definition, and its gradient too", "[aot]") {
  check_aot(evaluate_sequences, of_sequences{});
}

TEST_CASE("one pair is DPO; more are equivariant under permutation", "[aot]") {
  testing::random_source random{75};
  aot_case one{random, 1};
  const double want = prospect::cpu::evaluate(dpo{}, one.pairs(), {}).total;
  CHECK(near(evaluate_pairs(one, dpo{}).metrics.total, want, 1e-14L));
  CHECK(evaluate_sequences(one, dpo{}).metrics.total == want);

  aot_case c{random, 6}, turned = c;
  for (std::size_t i = 0; i < 12; ++i) {  // within each side
    const std::size_t j = i / 6 * 6 + (i + 1) % 6;
    turned.policy[i] = c.policy[j], turned.reference[i] = c.reference[j];
  }
  const aot_results a = evaluate_pairs(c, dpo{}), b = evaluate_pairs(turned, dpo{});
  const aot_results u = evaluate_sequences(c, dpo{}), v = evaluate_sequences(turned, dpo{});
  for (std::size_t i = 0; i < 12; ++i) {
    const std::size_t j = i / 6 * 6 + (i + 1) % 6;
    CHECK(b.d[i] == a.d[j]);
    CHECK(v.d[i] == u.d[j]);
  }
  CHECK(u.loss == v.loss);  // by rank
}

TEST_CASE("of equal differences the first comes first", "[aot]") {
  testing::random_source random{76};
  aot_case c{random, 3};
  c.policy = {-1, -2, -3, -2, -3, -4};  // all differ by 1
  c.reference = {-5, -1, -3, -1, -1, -1};
  const std::vector<double> own{-4, 0, -2}, sorted{-4, -2, 0};
  std::vector<double> margin(3);
  CHECK(prospect::cpu::aot_margins(dpo{}, c.pairs(), margin) == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(margin[i] == sorted[i] - own[i]);
  c.reference = {-1, -2, -3, -1, -4, -4};  // log-ratios 0 0 0 and -1 1 0
  std::vector<std::int64_t> chosen(3), rejected(3);
  prospect::cpu::aot_pairs(c.indexed(), strided_span<std::int64_t>{chosen},
                           strided_span<std::int64_t>{rejected});
  CHECK(chosen == std::vector<std::int64_t>{0, 1, 2});
  CHECK(rejected == std::vector<std::int64_t>{3, 5, 4});
}

TEST_CASE("what is masked or no number takes no part in AOT", "[aot]") {
  testing::random_source random{77};
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), infinity, -infinity}) {
    aot_case fine{random, 4}, c{random, 6};
    for (std::int64_t i = 0; i < 4; ++i) {
      const std::int64_t to = i < 2 ? i : i + 2;
      for (const std::int64_t side : {0, 1}) {
        const auto at = static_cast<std::size_t>(side * 6 + to);
        const auto from = static_cast<std::size_t>(side * 4 + i);
        c.policy[at] = fine.policy[from], c.reference[at] = fine.reference[from];
      }
    }
    c.policy[9] = bad;  // pair 3
    c.tokens[2] = 0;    // pair 2
    c.reference[8] = bad;
    const auto check = [&](const aot_results& got, const aot_results& want, std::int64_t first) {
      for (std::size_t i = 0; i < 8; ++i) {
        const std::size_t side = i / 4, pair = i % 4;
        // Of six pairs five are counted, of four four.
        CHECK(near(5 * got.d[side * 6 + pair + (pair < 2 ? 0 : 2)], 4 * want.d[i], 1e-14L));
      }
      CHECK(got.metrics.nonfinite.sum == 1);
      CHECK(got.metrics.nonfinite.count == 5);
      CHECK(got.metrics.first_nonfinite == first);
    };
    check(evaluate_pairs(c, dpo{}), evaluate_pairs(fine, dpo{}), 3);
    check(evaluate_sequences(c, dpo{}), evaluate_sequences(fine, dpo{}), 5);
  }
}

TEST_CASE("AOT works in its caller's memory and refuses what it is not for", "[aot]") {
  testing::random_source random{78};
  aot_case c{random, 9};
  std::vector<prospect::cpu::aot_rank> scratch(20), few(17);
  std::vector<double> margin(9), again(9), short_row(8);
  prospect::cpu::aot_margins(dpo{}, c.pairs(), margin);
  prospect::cpu::aot_margins(dpo{}, c.pairs(), again, scratch);
  CHECK(margin == again);
  using testing::refuses;
  const auto refused = [&](const char* name, const auto& loss, prospect::paired_batch<> in) {
    CHECK(refuses(name, [&] { prospect::cpu::aot_margins(loss, in, margin); }));
  };
  CHECK(refuses("scratch", [&] { prospect::cpu::aot_margins(dpo{}, c.pairs(), margin, few); }));
  CHECK(refuses("margin", [&] { prospect::cpu::aot_margins(dpo{}, c.pairs(), short_row); }));
  refused("loss", prospect::ipo{}, c.pairs());  // of means
  refused("loss", prospect::nca{}, c.pairs());  // of no margin
  refused("loss", prospect::cpo{}, c.pairs());  // of no reference
  prospect::paired_batch<> in = c.pairs();
  in.margin = again;
  refused("margin", dpo{}, in);
  in = c.pairs();
  in.reference_rejected = {};
  refused("reference_rejected", dpo{}, in);
  std::vector<std::int32_t> chosen(9), rejected(9);
  const auto pairs = [&](prospect::indexed_pairs of) {
    prospect::cpu::aot_pairs(of, strided_span<std::int32_t>{chosen},
                             strided_span<std::int32_t>{rejected});
  };
  c.chosen[4] = 18;
  CHECK(refuses("chosen", [&] { pairs(c.indexed()); }));
  c.chosen[4] = 4;
  prospect::indexed_pairs of = c.indexed();
  of.reference = {};
  CHECK(refuses("reference", [&] { pairs(of); }));
  chosen.pop_back();
  CHECK(refuses("chosen", [&] { pairs(c.indexed()); }));
}
