// Next-token terms of paired losses, and mixtures: totals and gradients against the textbook, with
// both denominators, and what is refused.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>
#include <prospect/losses/parts/scores.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "oracle/losses.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using prospect::normaliser;
using prospect::cpu::evaluate;
using testing::near;
using testing::random_source;
using testing::refuses;
using testing::same_bits;

using testing::not_a_number;

/// What a batch comes to by the book: the loss of each pair and all gradients of the total.
struct by_the_book {
  std::vector<real> loss, chosen, rejected, third;
  real total = 0;
};

/// Pairs with a third completion, some of them empty on one side or without a third.
template <class R>
struct triples {
  std::int64_t n;
  std::vector<R> policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected,
      weight;
  std::vector<std::int32_t> chosen_tokens, rejected_tokens, third_tokens;
  std::vector<R> loss, d_chosen, d_rejected, d_third;

  triples(random_source& random, std::int64_t size) : n{size} {
    const auto add = [&](std::vector<R>& row, double x) { row.push_back(static_cast<R>(x)); };
    for (std::int64_t i = 0; i < n; ++i) {
      for (auto* row : {&policy_chosen, &policy_rejected, &policy_third, &reference_chosen,
                        &reference_rejected}) {
        add(*row, -1 - std::abs(random.normal(30)));
      }
      add(weight, random.normal(1));
      for (auto* row : {&chosen_tokens, &rejected_tokens, &third_tokens}) {
        row->push_back(random.chance(0.2) ? 0 : static_cast<std::int32_t>(random.integer(1, 40)));
      }
      for (auto* row : {&loss, &d_chosen, &d_rejected, &d_third}) add(*row, not_a_number);
    }
    weight[0] = 0;
  }

  template <class T>
  static prospect::strided_span<T> part(std::vector<T>& row, std::int64_t first,
                                        std::int64_t count) {
    return prospect::strided_span<T>{row}.slice(first, count);
  }
  prospect::paired_batch<R> in(std::int64_t first, std::int64_t count, bool third) {
    prospect::paired_batch<R> batch{.policy_chosen = part(policy_chosen, first, count),
                                    .policy_rejected = part(policy_rejected, first, count),
                                    .reference_chosen = part(reference_chosen, first, count),
                                    .reference_rejected = part(reference_rejected, first, count),
                                    .chosen_tokens = part(chosen_tokens, first, count),
                                    .rejected_tokens = part(rejected_tokens, first, count),
                                    .weight = part(weight, first, count)};
    if (third) {
      batch.policy_third = part(policy_third, first, count);
      batch.third_tokens = part(third_tokens, first, count);
    }
    return batch;
  }
  prospect::paired_outputs<R> out(std::int64_t first, std::int64_t count, bool third) {
    prospect::paired_outputs<R> batch{.loss = part(loss, first, count),
                                      .d_policy_chosen = part(d_chosen, first, count),
                                      .d_policy_rejected = part(d_rejected, first, count)};
    if (third) batch.d_policy_third = part(d_third, first, count);
    return batch;
  }
  bool counted(std::size_t i) const { return chosen_tokens[i] > 0 && rejected_tokens[i] > 0; }

  real pairs() const {
    real all = 0;
    for (std::size_t i = 0; i < chosen_tokens.size(); ++i) all += counted(i) ? 1 : 0;
    return all;
  }
  real tokens(bool chosen, bool third) const {
    real all = 0;
    for (std::size_t i = 0; i < chosen_tokens.size(); ++i) {
      if (counted(i)) all += (chosen ? chosen_tokens[i] : 0) + (third ? third_tokens[i] : 0);
    }
    return all;
  }

  /// With `of(i)` the formula of pair i in sums of log-probabilities.
  template <class Of>
  by_the_book expected(const Of& of, real alpha, bool chosen, bool third, real pairs,
                       real tokens) const {
    by_the_book book;
    for (std::size_t i = 0; i < chosen_tokens.size(); ++i) {
      oracle::paired_value v{};
      real d_third_i = 0, log_prob = 0;
      const real w = weight[i], token = alpha / tokens;
      if (counted(i)) {
        v = of(i);
        if (chosen) log_prob += policy_chosen[i];
        if (third && third_tokens[i] > 0) {
          log_prob += policy_third[i];
          d_third_i = -w * token;
        }
        book.chosen.push_back(w * (v.d_chosen / pairs - (chosen ? token : 0)));
        book.rejected.push_back(w * v.d_rejected / pairs);
      } else {
        book.chosen.push_back(0);
        book.rejected.push_back(0);
      }
      book.third.push_back(d_third_i);
      book.loss.push_back(w * (v.loss - token * pairs * log_prob));
      book.total += book.loss.back() / pairs;
    }
    return book;
  }
  void check(const by_the_book& book, double total, bool third) const {
    const real e = 8 * std::numeric_limits<R>::epsilon();
    for (std::size_t i = 0; i < loss.size(); ++i) {
      CAPTURE(i);
      CHECK(near(loss[i], book.loss[i], e, e));
      CHECK(near(d_chosen[i], book.chosen[i], e, e / 100));
      CHECK(near(d_rejected[i], book.rejected[i], e, e / 100));
      if (third) CHECK(near(d_third[i], book.third[i], e));
    }
    CHECK(near(total, book.total, 8 * e, 8 * e));
  }
};

oracle::paired_value of_margin(real beta, real margin) {
  const real s = oracle::sigmoid(-beta * margin);
  return {oracle::softplus(-beta * margin), -beta * s, beta * s};
}
/// CPO's formula, and TPO's.
template <class R>
auto of_policies(const triples<R>& t, real beta) {
  return [&t, beta](std::size_t i) {
    return of_margin(beta, static_cast<real>(t.policy_chosen[i]) - t.policy_rejected[i]);
  };
}
template <class R>
auto of_odds(const triples<R>& t, real beta) {
  return [&t, beta](std::size_t i) {
    const real n = t.chosen_tokens[i], m = t.rejected_tokens[i], p = t.policy_chosen[i] / n,
               q = t.policy_rejected[i] / m;
    const real odds = p - std::log(-std::expm1(p)) - q + std::log(-std::expm1(q));
    const real s = beta * oracle::sigmoid(-odds);
    return oracle::paired_value{beta * oracle::softplus(-odds), s / std::expm1(p) / n,
                                -s / std::expm1(q) / m};
  };
}
template <class R>
auto of_mpo(const triples<R>& t, real sigmoid, real bco) {
  return [&t, sigmoid, bco](std::size_t i) {
    const real beta = 0.1, a = static_cast<real>(t.policy_chosen[i]) - t.reference_chosen[i],
               b = static_cast<real>(t.policy_rejected[i]) - t.reference_rejected[i];
    const auto dpo = of_margin(beta, a - b), up = of_margin(beta, a), down = of_margin(beta, -b);
    return oracle::paired_value{sigmoid * dpo.loss + bco * (up.loss + down.loss),
                                sigmoid * dpo.d_chosen + bco * up.d_chosen,
                                sigmoid * dpo.d_rejected - bco * down.d_chosen};
  };
}

/// As one batch, and in two parts with the counts of the whole.
template <class R, class Loss, class Of>
void check_loss(const Loss& loss, triples<R>& t, const Of& of, real alpha, bool chosen,
                bool third) {
  const real pairs = t.pairs(), tokens = t.tokens(chosen, third);
  const by_the_book book = t.expected(of, alpha, chosen, third, pairs, tokens);
  const double total = evaluate(loss, t.in(0, t.n, third), t.out(0, t.n, third)).total;
  t.check(book, total, third);
  CHECK(total != 0);

  const auto whole =
      normaliser::over(static_cast<double>(pairs)).tokens_over(static_cast<double>(tokens));
  const auto before = t.d_chosen;
  double sum = 0;
  for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, 5}, {5, t.n - 5}}) {
    sum += evaluate(loss, t.in(first, count, third), t.out(first, count, third), whole).total;
  }
  t.check(book, sum, third);
  CHECK(same_bits(t.d_chosen, before));

  // Two denominators of the caller's, and none.
  t.check(
      t.expected(of, alpha, chosen, third, 7, 90),
      evaluate(loss, t.in(0, t.n, third), t.out(0, t.n, third), normaliser::over(7).tokens_over(90))
          .total,
      third);
  t.check(t.expected(of, alpha, chosen, third, 1, 1),
          evaluate(loss, t.in(0, t.n, third), t.out(0, t.n, third), normaliser::sum()).total,
          third);
}

}  // namespace

TEMPLATE_TEST_CASE("next-token terms have a denominator of their own", "[next_token]", float,
                   double) {
  random_source random{431};
  CAPTURE(random.seed());
  for (const std::int64_t n : {7, 33, 301}) {
    triples<TestType> t{random, n};
    check_loss(prospect::cpo{.beta = 0.2, .cpo_alpha = 0.7}, t, of_policies(t, 0.2L), 0.7L, true,
               false);
    check_loss(prospect::cpo{.beta = 0.2, .cpo_alpha = 0}, t, of_policies(t, 0.2L), 0, true, false);
    check_loss(prospect::orpo{}, t, of_odds(t, 0.1L), 1, true, false);
    check_loss(prospect::orpo{}, t, of_odds(t, 0.1L), 1, true, true);
    check_loss(prospect::tpo{.beta = 0.02}, t, of_policies(t, 0.02L), 1, false, true);
    check_loss(prospect::mpo{}, t, of_mpo(t, 0.8L, 0.2L), 1, true, false);
  }
}

TEST_CASE("a mixture is the sum of its losses, weight by weight", "[next_token]") {
  using prospect::bco_pair, prospect::dpo, prospect::sft;
  constexpr auto mpo = 0.8 * dpo{} + 0.2 * bco_pair{} + 1.0 * sft{};
  STATIC_REQUIRE(prospect::paired_loss<decltype(mpo)>);
  STATIC_REQUIRE(prospect::branch_free_loss<decltype(mpo)>);
  STATIC_REQUIRE(prospect::problem(mpo) == nullptr);
  CHECK(prospect::reward_scale(sft{} + 2 * dpo{.beta = 0.3}) == 0.3);
  CHECK(prospect::reward_scale(2 * prospect::scored{dpo{.beta = 0.3}, prospect::forward_kl} +
                               sft{}) == 0.3);
  CHECK(prospect::reads_reference<double>(mpo));
  CHECK_FALSE(prospect::reads_tokens<double>(mpo));
  CHECK(prospect::reads_tokens<double>(0.5 * dpo{} + prospect::ipo{}));
  CHECK_FALSE(prospect::reads_tokens<double>(0.5 * dpo{} + 0 * prospect::ipo{}));

  random_source random{432};
  CAPTURE(random.seed());
  triples<double> t{random, 21}, u = t;
  evaluate(mpo, t.in(0, 21, false), t.out(0, 21, false));
  evaluate(prospect::mpo{}, u.in(0, 21, false), u.out(0, 21, false));
  CHECK(same_bits(t.loss, u.loss));
  CHECK(same_bits(t.d_chosen, u.d_chosen));
  CHECK(same_bits(t.d_rejected, u.d_rejected));

  // Of a loss that has a next-token term already, and a third completion.
  check_loss(
      0.5 * prospect::cpo{.cpo_alpha = 0.5} + 0.25 * sft{}, t,
      [&](std::size_t i) {
        const auto v = of_policies(t, 0.1L)(i);
        return oracle::paired_value{v.loss / 2, v.d_chosen / 2, v.d_rejected / 2};
      },
      0.5L, true, false);
  check_loss(prospect::tpo{.beta = 0.1, .tpo_alpha = 0.5} + 0 * sft{}, t, of_policies(t, 0.1L),
             0.5L, false, true);

  // Of three that have nothing in common.
  const auto odd = 0.5 * prospect::hinge{} + 0.001 * prospect::sppo_hard{} +
                   2 * prospect::exo{.label_smoothing = 0.01};
  const prospect::pair<double> p{.chosen = {.policy = -7, .ratio = 3.5, .tokens = 4},
                                 .rejected = {.policy = -9, .ratio = -2.25, .tokens = 5}};
  const auto got = differentiate(odd, p), one = differentiate(prospect::hinge{}, p),
             two = differentiate(prospect::sppo_hard{}, p),
             three = differentiate(prospect::exo{.label_smoothing = 0.01}, p);
  CHECK(near(got.loss, 0.5 * one.loss + 0.001 * two.loss + 2 * three.loss, 1e-15L));
  CHECK(near(got.d_chosen, 0.5 * one.d_chosen + 0.001 * two.d_chosen + 2 * three.d_chosen, 1e-15L));
  CHECK(near(got.d_rejected, 0.5 * one.d_rejected + 0.001 * two.d_rejected + 2 * three.d_rejected,
             1e-15L));

  CHECK(std::string{prospect::problem(prospect::tpo{} + sft{})}.find("next-token") !=
        std::string::npos);
  CHECK(std::string{prospect::problem(-1 * dpo{} + sft{})}.find("weight") != std::string::npos);
  CHECK(std::string{prospect::problem(1 * dpo{.beta = 0} + sft{})}.find("beta") !=
        std::string::npos);

  // Of completions, too.
  constexpr auto both = 0.5 * prospect::kto{} + 2 * prospect::kto_zero{};
  STATIC_REQUIRE(prospect::unpaired_loss<decltype(both)>);
  const prospect::unpaired<double> e{.answer = {.policy = -3, .ratio = 1}, .z = 0.25};
  CHECK(differentiate(both, e).loss == 0.5 * differentiate(prospect::kto{}, e).loss +
                                           2 * differentiate(prospect::kto_zero{}, e).loss);
}

TEST_CASE("a third completion among sequences", "[next_token]") {
  random_source random{433};
  triples<double> t{random, 9};
  const auto want = evaluate(prospect::tpo{}, t.in(0, 9, true), t.out(0, 9, true));
  std::vector<double> policy(27), d(28, not_a_number), loss(9), third(9);
  std::vector<std::int32_t> tokens(27), chosen, rejected, thirds;
  for (std::size_t i = 0; i < 9; ++i) {
    const std::size_t at[] = {26 - i, i, 9 + i};
    policy[at[0]] = t.policy_chosen[i], tokens[at[0]] = t.chosen_tokens[i];
    policy[at[1]] = t.policy_rejected[i], tokens[at[1]] = t.rejected_tokens[i];
    policy[at[2]] = t.policy_third[i], tokens[at[2]] = t.third_tokens[i];
    chosen.push_back(static_cast<std::int32_t>(at[0]));
    rejected.push_back(static_cast<std::int32_t>(at[1]));
    thirds.push_back(static_cast<std::int32_t>(at[2]));
  }
  policy.push_back(-1), tokens.push_back(1);  // in no pair
  prospect::indexed_pairs in{.policy = policy,
                             .tokens = tokens,
                             .chosen = chosen,
                             .rejected = rejected,
                             .weight = t.weight,
                             .third = thirds};
  const prospect::indexed_outputs out{.loss = loss, .d_policy = d, .d_policy_third = third};
  CHECK(evaluate(prospect::tpo{}, in, out).total == want.total);
  CHECK(same_bits(loss, t.loss));
  CHECK(same_bits(third, t.d_third));
  for (std::size_t i = 0; i < 9; ++i) {
    CHECK(same_bits(d[26 - i], t.d_chosen[i]));
    CHECK(same_bits(d[i], t.d_rejected[i]));
    CHECK(same_bits(d[9 + i], t.d_third[i]));
  }
  CHECK(d[27] == 0);
  thirds[3] = 0;  // is rejected already
  CHECK(refuses("third", [&] { evaluate(prospect::tpo{}, in, out); }));
  thirds[3] = 28;
  CHECK(refuses("third", [&] { evaluate(prospect::tpo{}, in, out); }));
  in.third = {};
  CHECK(refuses("third", [&] { evaluate(prospect::tpo{}, in, {.loss = loss}); }));
}

TEST_CASE("a third completion that is no number spoils its own pair", "[next_token]") {
  random_source random{434};
  triples<float> t{random, 6};
  for (auto* row : {&t.chosen_tokens, &t.rejected_tokens, &t.third_tokens}) row->assign(6, 5);
  t.weight.assign(6, 1);
  evaluate(prospect::tpo{}, t.in(0, 6, true), t.out(0, 6, true));
  triples<float> spoilt = t;
  spoilt.policy_third[3] = static_cast<float>(not_a_number);
  const auto metrics = evaluate(prospect::tpo{}, spoilt.in(0, 6, true), spoilt.out(0, 6, true));
  CHECK(metrics.nonfinite.sum == 1);
  CHECK(metrics.first_nonfinite == 3);
  CHECK(std::isnan(spoilt.loss[3]));
  spoilt.loss[3] = t.loss[3];
  CHECK(same_bits(spoilt.loss, t.loss));
  CHECK(same_bits(spoilt.d_third, t.d_third));
  // Without tokens it is not read, and a term of weight 0 reads none.
  spoilt.third_tokens[3] = 0;
  CHECK(evaluate(prospect::tpo{}, spoilt.in(0, 6, true), spoilt.out(0, 6, true)).nonfinite.sum ==
        0);
  CHECK(spoilt.d_third[3] == 0);
  spoilt.third_tokens[3] = 5;
  spoilt.chosen_tokens[3] = 0;
  CHECK(evaluate(prospect::tpo{}, spoilt.in(0, 6, true), spoilt.out(0, 6, true)).nonfinite.sum ==
        0);
  spoilt.chosen_tokens[3] = 5;
  CHECK(evaluate(prospect::tpo{.tpo_alpha = 0}, spoilt.in(0, 6, true), spoilt.out(0, 6, true))
            .nonfinite.sum == 0);
  for (const float d : spoilt.d_third) CHECK(same_bits(d, 0.0F));
}

TEST_CASE("what would be a wrong denominator is refused by name", "[next_token][errors]") {
  random_source random{435};
  triples<double> t{random, 6};
  const auto refused = [&](const std::string& name, const auto& loss, const auto& in,
                           normaliser by = normaliser::mean()) {
    CAPTURE(name);
    CHECK(refuses(name, [&] { evaluate(loss, in, t.out(0, 6, false), by); }));
  };
  const auto plain = t.in(0, 6, false), with_third = t.in(0, 6, true);
  refused("normaliser", prospect::cpo{}, plain, normaliser::over(6));
  refused("normaliser", prospect::cpo{}, plain, normaliser::over(6).tokens_over(0));
  CHECK_NOTHROW(
      evaluate(prospect::cpo{.cpo_alpha = 0}, plain, t.out(0, 6, false), normaliser::over(6)));
  CHECK_NOTHROW(evaluate(prospect::dpo{}, plain, t.out(0, 6, false), normaliser::over(6)));
  refused("policy_third", prospect::tpo{}, plain);
  refused("policy_third", prospect::cpo{}, with_third);
  refused("policy_third", prospect::dpo{}, with_third);
  CHECK_NOTHROW(evaluate(prospect::tpo{.tpo_alpha = 0}, plain, t.out(0, 6, false)));
  auto in = plain;
  in.chosen_tokens = {};
  refused("chosen_tokens", prospect::cpo{}, in);
  CHECK_NOTHROW(evaluate(prospect::cpo{}, in, {}, normaliser::sum()));
  CHECK_NOTHROW(evaluate(prospect::cpo{}, in, {}, normaliser::mean().tokens_over(50)));
  in = with_third;
  in.third_tokens = {};
  refused("third_tokens", prospect::tpo{}, in);
  in = plain;
  in.third_tokens = with_third.third_tokens;
  refused("third_tokens", prospect::orpo{}, in);
  t.third_tokens[2] = -1;
  refused("third_tokens", prospect::tpo{}, with_third);
  refused("third_tokens", prospect::tpo{}, with_third, normaliser::sum());
  CHECK(refuses("d_policy_third", [&] { evaluate(prospect::orpo{}, plain, t.out(0, 6, true)); }));
}
