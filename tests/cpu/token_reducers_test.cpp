// Sums by a reducer and the way back (LD-DPO, humanline, HALOs' counts), lengths that pairs have in
// common, and WPO's weights, against their formulas. Whole losses over them: tests/conformance.

#include <prospect/cpu/token_reducers.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using real = long double;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::sequence_pairs;
using prospect::strided_span;
using prospect::token_reducer;
using prospect::cpu::pair_weights;
using prospect::cpu::public_tokens;
using prospect::cpu::sequence_sums;
using prospect::cpu::spread;
using prospect::cpu::wpo_weights;
using testing::infinity;
using testing::laid_out_row;
using testing::near;
using testing::not_a_number;
using testing::random_source;
using testing::refuses;
using testing::same_bits;

/// Ranges of any length with rows of no sequence around them. Rows that are not scored, by target
/// or by mask, hold NaN; scored ones multiples of 2^-6, so that bounds are met and differences
/// exact.
template <class R>
struct token_batch {
  std::vector<std::int64_t> begin, end;
  std::vector<std::int32_t> target;
  std::vector<std::uint8_t> mask;
  std::vector<std::vector<std::int64_t>> scored;  ///< the scored rows of each sequence
  laid_out_row<R> policy, reference, squares;

  explicit token_batch(random_source& random, testing::placement where)
      : policy{0}, reference{0}, squares{0} {
    for (const std::int64_t length : {3, 0, 1, 300, 7, 2, 5, 18}) {
      const auto gap = random.integer(0, 2);
      fill(random, gap, -1);
      begin.push_back(rows());
      scored.emplace_back();
      fill(random, length, static_cast<std::int64_t>(scored.size()) - 1);
      end.push_back(rows());
    }
    fill(random, 2, -1);
    const auto laid_out = [&] { return laid_out_row<R>{rows(), where}; };
    policy = laid_out(), reference = laid_out(), squares = laid_out();
    for (std::int64_t t = 0; t < rows(); ++t) {
      policy[t] = reference[t] = squares[t] = static_cast<R>(not_a_number);
    }
    const auto grid = [&](std::int64_t low, std::int64_t high) {
      return static_cast<R>(static_cast<double>(random.integer(low, high)) / 64);
    };
    for (const auto& sequence : scored) {
      for (const std::int64_t t : sequence) {
        policy[t] = grid(-500, 0);
        reference[t] = random.chance(0.2) ? policy[t] : grid(-400, 0);
        if (random.chance(0.1)) reference[t] = policy[t] + R(1);    // the lower bound
        if (random.chance(0.1)) reference[t] = policy[t] - R(1.5);  // the upper
        squares[t] = static_cast<R>(random.uniform(0.01, 1));
      }
    }
  }
  token_batch(const token_batch&) = delete;

  std::int64_t rows() const { return static_cast<std::int64_t>(target.size()); }
  std::int64_t sequences() const { return static_cast<std::int64_t>(begin.size()); }
  sequence_layout layout() const { return sequence_layout::ranges(begin, end); }

 private:
  void fill(random_source& random, std::int64_t count, std::int64_t sequence) {
    for (std::int64_t k = 0; k < count; ++k) {
      const bool aimed = random.chance(0.8), marked = random.chance(0.8);
      if (sequence >= 0 && aimed && marked) {
        scored[static_cast<std::size_t>(sequence)].push_back(rows());
      }
      target.push_back(aimed ? 3 : static_cast<std::int32_t>(ignored_target));
      mask.push_back(marked ? 1 : 0);
    }
  }
};

/// A sequence's sum and count as their formulas have them, and what each of its tokens adds.
struct reduced_sequence {
  real sum = 0;
  std::int32_t tokens = 0;
  std::vector<real> weight;
};
template <class R>
reduced_sequence reduced(token_batch<R>& b, std::size_t i, const token_reducer& by) {
  reduced_sequence answer;
  std::int32_t nonzero = 0;
  const auto& rows = b.scored[i];
  for (std::size_t k = 0; k < rows.size(); ++k) {
    const real u = by.reference.empty() ? real{b.policy[rows[k]]}
                                        : real{b.policy[rows[k]]} - real{b.reference[rows[k]]};
    const bool below = u<by.log_epsilon_P, above = u> by.log_epsilon_R;
    const real held = below ? by.log_epsilon_P : above ? by.log_epsilon_R : u;
    const bool in_common =
        by.public_tokens.empty() ||
        static_cast<std::int64_t>(k) < by.public_tokens[static_cast<std::int64_t>(i)];
    const real w = in_common ? 1 : real{by.ld_alpha};
    answer.sum += w * held;
    answer.weight.push_back(below || above ? 0 : w);
    nonzero += held != 0 ? 1 : 0;
  }
  const auto scored = static_cast<std::int32_t>(rows.size());
  answer.tokens = by.count_nonzero ? std::max(nonzero, std::min(scored, 1)) : scored;
  return answer;
}

}  // namespace

TEMPLATE_TEST_CASE("reducers: sums, counts and coefficients as their formulas have them",
                   "[tokens]", float, double) {
  random_source random{211};
  CAPTURE(random.seed());
  for (const testing::placement where : {testing::placement{}, {.offset = 2, .stride = -3}}) {
    token_batch<TestType> b{random, where};
    const std::vector<std::int32_t> public_lengths{1, 0, 5, 100, 7, 0, 2, 9};
    const std::vector<double> d = random.normals(b.sequences(), 1);
    token_reducer ld{.log_prob = b.policy.view()};
    ld.public_tokens = public_lengths;
    ld.ld_alpha = 0.3;
    token_reducer cut = ld;
    cut.ld_alpha = 0;
    const auto humanline = token_reducer::humanline(b.policy.view(), b.reference.view());
    const token_reducer nonzero{
        .log_prob = b.policy.view(), .reference = b.reference.view(), .count_nonzero = true};
    token_reducer everything = humanline;
    everything.count_nonzero = true;
    everything.public_tokens = public_lengths;
    everything.ld_alpha = 0.75;
    for (const token_reducer& by : {ld, cut, humanline, nonzero, everything}) {
      laid_out_row<double> sums{b.sequences(), where};
      laid_out_row<std::int32_t> tokens{b.sequences(), where};
      laid_out_row<TestType> d_token{b.rows(), where};
      sequence_sums(by, b.target, b.layout(), {.log_prob = sums.view(), .tokens = tokens.view()},
                    b.mask);
      spread(by, d, b.target, b.layout(), d_token.view(), b.mask);
      std::vector<TestType> want_d(static_cast<std::size_t>(b.rows()), TestType(0));
      for (std::size_t i = 0; i < b.scored.size(); ++i) {
        const reduced_sequence want = reduced(b, i, by);
        const auto at = static_cast<std::int64_t>(i);
        CAPTURE(i);
        CHECK(near(sums[at], want.sum, 1e-13L, 1e-13L));
        CHECK(tokens[at] == want.tokens);
        for (std::size_t k = 0; k < want.weight.size(); ++k) {
          want_d[static_cast<std::size_t>(b.scored[i][k])] =
              static_cast<TestType>(static_cast<double>(want.weight[k]) * d[i]);
        }
      }
      CHECK(d_token.elements() == want_d);
      CHECK(sums.only_elements_written());
      CHECK(tokens.only_elements_written());
      CHECK(d_token.only_elements_written());
    }
    // Without anything to reduce by it is the plain sum, bit for bit.
    const token_reducer plain{.log_prob = b.policy.view()};
    token_reducer one = ld;
    one.ld_alpha = 1;
    std::vector<double> want(b.begin.size()), got(b.begin.size());
    std::vector<std::int32_t> want_tokens(b.begin.size()), tokens(b.begin.size());
    std::vector<TestType> want_d(b.target.size()), got_d(b.target.size());
    sequence_sums<TestType>(b.policy.view(), b.target, b.layout(),
                            {.log_prob = want, .tokens = want_tokens}, b.mask);
    spread<TestType>(d, b.target, b.layout(), want_d, b.mask);
    for (const token_reducer& by : {plain, one}) {
      sequence_sums(by, b.target, b.layout(), {.log_prob = got, .tokens = tokens}, b.mask);
      spread(by, d, b.target, b.layout(), got_d, b.mask);
      CHECK(same_bits(got, want));
      CHECK(tokens == want_tokens);
      CHECK(same_bits(got_d, want_d));
    }
  }
}

TEST_CASE("a reducer's bounds let the gradient pass, and hold what is infinite", "[tokens]") {
  const double above = std::nextafter(1.5, 2.0), below = std::nextafter(-1.0, -2.0);
  const std::vector<double> policy{-1, 1.5,       below, above,       -infinity,
                                   0,  -infinity, -2,    not_a_number};
  const std::vector<double> reference{0, 0, 0, 0, -3, -infinity, -infinity, -2, 0};
  const std::vector<std::int32_t> targets(9, 0);
  const auto each = sequence_layout::padded(9, 1);
  const auto by = token_reducer::humanline(policy, reference);
  std::vector<double> sums(9), d_token(9);
  sequence_sums(by, targets, each, {.log_prob = sums});
  spread(by, std::vector<double>(9, 4.0), targets, each, d_token);
  const std::vector<double> want{-1, 1.5, -1, 1.5, -1, 1.5};
  CHECK(std::vector<double>(sums.begin(), sums.begin() + 6) == want);
  CHECK(std::isnan(sums[6]));
  CHECK(sums[7] == 0);
  CHECK(std::isnan(sums[8]));
  CHECK(std::vector<double>(d_token.begin(), d_token.begin() + 6) ==
        std::vector<double>{4, 4, 0, 0, 0, 0});
  CHECK(d_token[7] == 4);
}

TEST_CASE("a token that is cut off may hold anything, and others spoil their sequence alone",
          "[tokens]") {
  const std::vector<double> log_prob{-1, not_a_number, -infinity, -2, not_a_number, -4};
  const std::vector<std::int32_t> targets(6, 0), in_common{1, 2};
  const auto layout = sequence_layout::padded(2, 3);
  token_reducer by{.log_prob = log_prob};
  by.public_tokens = in_common;
  by.ld_alpha = 0;
  std::vector<double> sums(2), d_token(6);
  std::vector<std::int32_t> tokens(2);
  sequence_sums(by, targets, layout, {.log_prob = sums, .tokens = tokens});
  CHECK(sums[0] == -1);
  CHECK(std::isnan(sums[1]));
  CHECK(tokens == std::vector<std::int32_t>{3, 3});
  spread(by, std::vector<double>{0.5, 2}, targets, layout, d_token);
  CHECK(d_token == std::vector<double>{0.5, 0, 0, 2, 2, 0});
}

TEST_CASE("counts of log-ratios that are not 0: at least 1 where anything is scored", "[tokens]") {
  const std::vector<float> policy{-1, -2, -3, -3, -5, -6}, reference{-1, -2, -3, -4, -5, -6};
  const std::vector<std::int32_t> targets{0, 0, 0, 0, ignored_target, ignored_target};
  const token_reducer by{.log_prob = policy, .reference = reference, .count_nonzero = true};
  std::vector<double> sums(3);
  std::vector<std::int32_t> tokens(3);
  sequence_sums(by, targets, sequence_layout::padded(3, 2), {.log_prob = sums, .tokens = tokens});
  CHECK(sums == std::vector<double>{0, 1, 0});
  CHECK(tokens == std::vector<std::int32_t>{1, 1, 0});
}

TEST_CASE("the public length is the shorter one of a pair", "[tokens]") {
  const std::vector<std::int32_t> tokens{3, 0, 9, 5, 7, 9};
  std::vector<std::int32_t> out(6);
  public_tokens(tokens, sequence_pairs::halves(), out);
  CHECK(out == std::vector<std::int32_t>{3, 0, 9, 3, 0, 9});
  const std::vector<std::int32_t> chosen{4, 2}, rejected{0, 3};
  public_tokens(tokens, sequence_pairs::indexed(chosen, rejected), out);
  CHECK(out == std::vector<std::int32_t>{3, 0, 5, 5, 3, 9});
  public_tokens(tokens, sequence_pairs::indexed({}, {}), out);
  CHECK(out == tokens);

  const auto refused = [&](const char* name, const std::vector<std::int32_t>& c,
                           const std::vector<std::int32_t>& r) {
    return refuses(name, [&] { public_tokens(tokens, sequence_pairs::indexed(c, r), out); });
  };
  CHECK(refused("pairs", {4, 2}, {0, 4}));
  CHECK(refused("pairs", {2}, {2}));
  CHECK(refused("chosen[1]", {4, 6}, {0, 1}));
  CHECK(refused("rejected[0]", {4, 2}, {-1, 1}));
  CHECK(refused("rejected and chosen", {4, 2}, {1}));
  const std::vector<std::int32_t> odd{1, 2, 3}, negative{1, -2};
  std::vector<std::int32_t> three(3), two(2);
  CHECK(refuses("chosen", [&] { public_tokens(odd, sequence_pairs::halves(), three); }));
  CHECK(refuses("tokens", [&] { public_tokens(negative, sequence_pairs::halves(), two); }));
  CHECK(refuses("public_tokens", [&] { public_tokens(tokens, sequence_pairs::halves(), two); }));
}

TEMPLATE_TEST_CASE("WPO's weights of sequences and of pairs", "[tokens]", float, double) {
  random_source random{212};
  CAPTURE(random.seed());
  token_batch<TestType> b{random, {.offset = 1, .stride = 2}};
  laid_out_row<double> weight{b.sequences(), {.stride = -2}};
  wpo_weights(b.policy.view(), b.squares.view(), b.target, b.layout(), weight.view(), b.mask);
  CHECK(weight.only_elements_written());
  std::vector<real> want;
  for (const auto& rows : b.scored) {
    real sum = 0;
    for (const std::int64_t t : rows) sum += real{b.policy[t]} - std::log(real{b.squares[t]});
    want.push_back(rows.empty() ? 1 : std::exp(sum / static_cast<real>(rows.size())));
    CHECK(near(weight[static_cast<std::int64_t>(want.size()) - 1], want.back(), 1e-14L));
  }
  std::vector<double> of_pairs(4);
  pair_weights(weight.view(), sequence_pairs::halves(), of_pairs);
  for (std::size_t i = 0; i < 4; ++i) CHECK(near(of_pairs[i], want[i] * want[i + 4], 1e-14L));
  // A sequence may be in several pairs.
  const std::vector<std::int64_t> chosen{7, 7, 0}, rejected{0, 2, 7};
  std::vector<float> by_index(3);
  pair_weights(weight.view(), sequence_pairs::indexed(chosen, rejected), by_index);
  for (std::size_t i = 0; i < 3; ++i) {
    const real product =
        want[static_cast<std::size_t>(chosen[i])] * want[static_cast<std::size_t>(rejected[i])];
    CHECK(near(by_index[i], product, 1e-7L));
  }
  CHECK(refuses("pair_weight",
                [&] { pair_weights(weight.view(), sequence_pairs::halves(), by_index); }));
  const std::vector<std::int32_t> one{8}, other{0};
  CHECK(refuses("chosen[0]", [&] {
    pair_weights(weight.view(), sequence_pairs::indexed(one, other), of_pairs);
  }));
}

TEST_CASE("reducers that make no sense are refused by name", "[tokens][errors]") {
  const std::vector<double> four(4), three(3);
  const std::vector<std::int32_t> targets(4), two_lengths{1, 2}, one_length{1}, negative{1, -1};
  const auto layout = sequence_layout::padded(2, 2);
  std::vector<double> sums(2), one_sum(1), d_token(4), d(2);
  const auto refused = [&](const char* name, const token_reducer& by) {
    const bool sum = refuses(name, [&] { sequence_sums(by, targets, layout, {.log_prob = sums}); });
    return sum && refuses(name, [&] { spread(by, d, targets, layout, d_token); });
  };
  const auto changed = [&](auto change) {
    token_reducer by = token_reducer::humanline(four, four);
    by.public_tokens = two_lengths;
    change(by);
    return by;
  };
  CHECK(refused("log_prob", changed([&](auto& by) { by.log_prob = {}; })));
  CHECK(refused("log_prob", changed([&](auto& by) { by.log_prob = three; })));
  CHECK(refused("reference", changed([&](auto& by) { by.reference = three; })));
  CHECK(refused("reference", changed([&](auto& by) { by.reference = {}; })));
  CHECK(refused("reference", token_reducer{.log_prob = four, .count_nonzero = true}));
  CHECK(refused("log_epsilon_P", changed([&](auto& by) { by.log_epsilon_P = 2; })));
  CHECK(refused("log_epsilon_P", changed([&](auto& by) { by.log_epsilon_R = not_a_number; })));
  CHECK(refused("public_tokens", changed([&](auto& by) { by.public_tokens = one_length; })));
  CHECK(refused("public_tokens", changed([&](auto& by) { by.public_tokens = negative; })));
  for (const double alpha : {-0.1, 1.1, not_a_number}) {
    CHECK(refused("ld_alpha", changed([&](auto& by) { by.ld_alpha = alpha; })));
  }
  const token_reducer by{.log_prob = four};
  CHECK(refuses("log_prob (sums)",
                [&] { sequence_sums(by, targets, layout, {.log_prob = one_sum}); }));
  CHECK(refuses("d_sequence", [&] { spread(by, one_sum, targets, layout, d_token); }));
  CHECK(refuses("d_token", [&] { spread(by, d, targets, layout, sums); }));
  CHECK(refuses("layout", [&] {
    sequence_sums(by, targets, sequence_layout::padded(3, 2), {.log_prob = sums});
  }));
  CHECK(refuses("mask", [&] { spread(by, d, targets, layout, d_token, std::vector<float>(3)); }));
  CHECK(refuses("sum_squares", [&] { wpo_weights(four, three, targets, layout, sums); }));
  CHECK(refuses("weight", [&] { wpo_weights(four, four, targets, layout, one_sum); }));
}
