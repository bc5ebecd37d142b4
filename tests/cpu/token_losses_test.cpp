// Losses of tokens against the textbook, token by token; and what must change nothing: how a batch
// is laid out, who runs the loops, how a step is cut into micro-batches, what masked rows hold.

#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/any.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "cpu/token_loss_checks.hpp"
#include "executors.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::averaging;
using prospect::normaliser;
using prospect::sequence_layout;
using prospect::token_metrics;
using prospect::cpu::evaluate;
using testing::clipped_loss;
using testing::detaching_loss;
using testing::infinity;
using testing::near;
using testing::not_a_number;
using testing::numbers_of;
using testing::plain_tokens;
using testing::random_source;
using testing::same_bits;
using testing::summing_loss;
using testing::token_loss_case;

template <class Loss>
void check_by_hand(const Loss& loss, token_loss_case c, const normaliser& by) {
  const token_metrics m = evaluate(loss, c.in(), c.out(), by);
  check_token_results(c, m, loss.average, by_hand(loss, c, by));
}

bool same_metrics(const token_metrics& a, const token_metrics& b) {
  const auto x = a.named(), y = b.named();
  bool same = same_bits(a.total, b.total);
  for (std::size_t i = 0; i < x.size(); ++i) {
    same =
        same && same_bits(x[i].value.sum, y[i].value.sum) && x[i].value.count == y[i].value.count;
  }
  return same;
}

}  // namespace

TEST_CASE("tokens, their coefficients and every metric by hand", "[tokens]") {
  random_source random{301};
  CAPTURE(random.seed());
  for (int round = 0; round < 120; ++round) {
    const bool fp64 = round % 2 == 0;
    std::vector<std::int64_t> lengths;
    for (auto n = random.integer(1, 7); n > 0; --n) {
      lengths.push_back(random.chance(0.2) ? random.integer(0, 1) : random.integer(2, 700));
    }
    const token_loss_case c = testing::random_tokens(random, fp64, lengths);
    const auto average = static_cast<averaging>(random.integer(0, 2));
    const normaliser by = random.chance(0.4)   ? normaliser::mean()
                          : random.chance(0.5) ? normaliser::sum()
                                               : normaliser::over(3.5);
    CAPTURE(round, static_cast<int>(average), c.rows, lengths.size());
    check_by_hand(clipped_loss<>{average, c.reference.given() ? 0.25 : 0}, c, by);
    check_by_hand(clipped_loss<false>{average, c.reference.given() ? 0.25 : 0}, c, by);
    check_by_hand(summing_loss{average}, c, by);
    check_by_hand(detaching_loss{average}, c, by);
  }
}

TEST_CASE("the gradient of a loss that sums is that of its total", "[tokens]") {
  random_source random{302};
  CAPTURE(random.seed());
  token_loss_case c = testing::random_tokens(random, true, {9, 1, 0, 300});
  c.d_policy = {prospect::dtype::f64, c.rows};
  const summing_loss loss{};
  evaluate(loss, c.in(), c.out());
  for (const std::int64_t t : {c.begins[0] + 3, c.begins[1], c.begins[3] + 270}) {
    const double step = 1e-5;
    const auto total = [&](double by) {
      token_loss_case moved = c;
      moved.policy.put(t, c.policy[t] + by);
      return evaluate(loss, moved.in(), {}).total;
    };
    if (!c.scored(t)) continue;
    CHECK(near(c.d_policy[t], (total(step) - total(-step)) / (2 * step), 1e-6L, 1e-8L));
  }
}

TEST_CASE("however sequences are laid out and whoever runs the loops: the same bits", "[tokens]") {
  random_source random{303};
  CAPTURE(random.seed());
  std::vector<std::int64_t> lengths;
  for (int i = 0; i < 50; ++i) lengths.push_back(random.integer(0, 1300));
  lengths[0] = 1300;  // several blocks
  constexpr std::int64_t block = prospect::cpu::detail::block_size;
  constexpr std::int64_t longest = 1300 + block;
  token_loss_case packed = plain_tokens(random, lengths);
  packed.d_entropy = {};           // nothing is copied, and a sequence is one block
  REQUIRE(packed.rows > 1 << 14);  // worth threads

  const auto check = [&](const auto& loss) {
    prospect::serial_executor serial;
    const token_metrics want =
        evaluate(loss, packed.in(), packed.out(), normaliser::mean(), serial);
    const auto losses = numbers_of(packed.loss, packed.rows);
    const auto coefficients = numbers_of(packed.d_policy, packed.rows);
    testing::with_each_executor([&](const std::string& name, testing::any_executor& on) {
      CAPTURE(name);
      token_loss_case again = packed;
      CHECK(same_metrics(evaluate(loss, again.in(), again.out(), normaliser::mean(), on), want));
      CHECK(same_bits(numbers_of(again.d_policy, packed.rows), coefficients));
    });

    // Where row j of a sequence goes: padded right or left, rows in between, at the end of gaps.
    const auto elsewhere = [&](const auto& place, bool padded) {
      token_loss_case c;
      const std::int64_t n = packed.sequences();
      c.rows = n * longest;
      for (auto* row : {&c.policy, &c.old, &c.loss, &c.d_policy, &c.d_entropy}) {
        *row = {prospect::dtype::f32, c.rows};
        for (std::int64_t t = 0; t < c.rows; ++t) row->put(t, not_a_number);
      }
      c.advantage = packed.advantage;
      c.mask.assign(static_cast<std::size_t>(c.rows), 0);
      std::vector<std::int64_t> at;
      for (std::int64_t i = 0; i < n; ++i) {
        const auto k = static_cast<std::size_t>(i);
        for (std::int64_t j = 0; j < lengths[k]; ++j) {
          at.push_back(i * longest + place(j, lengths[k]));
          c.policy.put(at.back(), packed.policy[packed.begins[k] + j]);
          c.old.put(at.back(), packed.old[packed.begins[k] + j]);
          c.mask[static_cast<std::size_t>(at.back())] = 1;
        }
        c.begins.push_back(i * longest + (lengths[k] > 0 ? place(0, lengths[k]) : 0));
        c.ends.push_back(lengths[k] > 0 ? place(lengths[k] - 1, lengths[k]) + i * longest + 1
                                        : c.begins.back());
      }
      auto in = c.in();
      if (padded) in.layout = sequence_layout::padded(n, longest);
      CHECK(same_metrics(evaluate(loss, in, c.out()), want));
      bool same = true;
      std::vector<bool> scored(static_cast<std::size_t>(c.rows));
      for (std::size_t k = 0; k < at.size(); ++k) {
        scored[static_cast<std::size_t>(at[k])] = true;
        same = same && same_bits(c.loss[at[k]], losses[k]) &&
               same_bits(c.d_policy[at[k]], coefficients[k]);
      }
      CHECK(same);
      for (std::int64_t t = 0; t < c.rows; ++t) {
        if (scored[static_cast<std::size_t>(t)]) continue;
        same = same && c.loss[t] == 0 && c.d_policy[t] == 0 && c.d_entropy[t] == 0;
      }
      CHECK(same);
    };
    for (const bool padded : {true, false}) {
      CAPTURE(padded);
      elsewhere([](std::int64_t j, std::int64_t) { return j; }, padded);
      elsewhere([=](std::int64_t j, std::int64_t n) { return longest - n + j; }, padded);
      elsewhere([](std::int64_t j, std::int64_t) { return j + j / 21; }, padded);
      elsewhere([](std::int64_t j, std::int64_t) { return j < block ? j : j + block; }, padded);
    }
    std::vector<std::int32_t> offsets{0};
    for (const std::int64_t end : packed.ends) offsets.push_back(static_cast<std::int32_t>(end));
    auto in = packed.in();
    in.layout = sequence_layout::packed(offsets);
    CHECK(same_metrics(evaluate(loss, in, packed.out()), want));
  };
  // A ratio of 0, and formulas that a compiler may round one way here and another there.
  for (std::int64_t t = packed.begins[1]; t < packed.ends[1]; ++t) {
    packed.old.put(t, packed.policy[t] + 200);
  }
  check(clipped_loss<>{});
  check(summing_loss{});
  check(prospect::grpo{.delta = 1.3});
  check(prospect::gspo{});
  check(prospect::luspo{.delta = 1.3});
}

TEMPLATE_TEST_CASE("whichever results are asked for: the same bits", "[tokens]", float, double) {
  random_source random{313};
  CAPTURE(random.seed());
  constexpr auto type = prospect::dtype_of<TestType>;
  token_loss_case c = plain_tokens(
      random, {529, 1, 15, 16, 17, 63, 64, 65, 79, 511, 512, 513, 527, 528, 543, 1024, 3000, 0, 2},
      type);
  for (std::int64_t t = 0; t < 529; ++t) c.old.put(t, c.policy[t] + 200);  // a ratio of 0
  c.advantage.put(0, 1);
  const auto check = [&](const auto& loss) {
    const token_metrics want = evaluate(loss, c.in(), c.out());  // in blocks
    const auto losses = numbers_of(c.loss, c.rows), d = numbers_of(c.d_policy, c.rows);
    for (const bool with_loss : {true, false}) {
      for (const bool with_d : {true, false}) {
        CAPTURE(with_loss, with_d);
        token_loss_case again = c;
        for (std::int64_t t = 0; t < c.rows; ++t) {
          again.loss.put(t, 77);
          again.d_policy.put(t, 77);
        }
        const auto out = again.out();
        CHECK(same_metrics(evaluate(loss, c.in(),
                                    {.loss = with_loss ? out.loss : prospect::any_row{},
                                     .d_policy = with_d ? out.d_policy : prospect::any_row{}}),
                           want));
        if (with_loss) CHECK(same_bits(numbers_of(again.loss, c.rows), losses));
        if (with_d) CHECK(same_bits(numbers_of(again.d_policy, c.rows), d));
      }
    }
  };
  check(clipped_loss<>{});
  check(summing_loss{});
  check(prospect::grpo{.delta = 1.1});
  check(prospect::gspo{});
  c.reference = c.old;
  check(clipped_loss<>{.pull = 0.5});
  check(prospect::grpo{.beta = 0.25});
  check(prospect::gspo{.beta = 0.1});
  check(prospect::gspo_token{.beta = 0.1});
  check(prospect::luspo{.delta = 1.3, .beta = 0.1, .use_bias_correction_kl = 1});
  check(prospect::grpo{});  // which does not read it
  c.old = {};
  check(prospect::kl_k3{});
  c.reference = {};
  check(prospect::sft{});
}

TEST_CASE("micro-batches of a step add up to one batch", "[tokens]") {
  random_source random{304};
  CAPTURE(random.seed());
  for (const averaging average :
       {averaging::tokens, averaging::sequence_means, averaging::sequences}) {
    const std::vector<std::int64_t> lengths{30, 7, 290, 64, 1};
    token_loss_case c = plain_tokens(random, lengths);
    const summing_loss loss{average};
    const token_metrics whole = evaluate(loss, c.in(), c.out());
    const auto want = numbers_of(c.d_policy, c.rows);
    double total = 0;
    std::vector<double> got;
    for (const auto& [first, last] : {std::pair{0, 2}, {2, 5}}) {
      const auto begin = static_cast<std::size_t>(first), end = static_cast<std::size_t>(last);
      token_loss_case part = c;
      part.begins = {c.begins.begin() + first, c.begins.begin() + last};
      part.ends = {c.ends.begin() + first, c.ends.begin() + last};
      part.advantage = {prospect::dtype::f32, last - first};
      for (std::int64_t i = first; i < last; ++i) part.advantage.put(i - first, c.advantage[i]);
      total += evaluate(loss, part.in(), part.out(), normaliser::over(whole.loss.count)).total;
      for (std::int64_t t = c.begins[begin]; t < c.ends[end - 1]; ++t) {
        got.push_back(part.d_policy[t]);
      }
    }
    CHECK(same_bits(got, want));
    CHECK(near(total, whole.total, 1e-14L, 1e-16L));
  }
}

TEST_CASE("without an old policy the ratio is 1, whatever the policy", "[tokens]") {
  random_source random{306};
  token_loss_case c = plain_tokens(random, {5, 3});
  c.old = {};
  c.policy.put(2, -infinity);
  const token_metrics m = evaluate(clipped_loss<>{}, c.in(), c.out());
  for (std::int64_t t = 0; t < 8; ++t) {
    const double a = c.advantage[t < 5 ? 0 : 1];
    CHECK(c.loss[t] == -a);
    CHECK(near(c.d_policy[t], -a / (t < 5 ? 5 : 3) / 2, 1e-6L));
  }
  CHECK(m.ratio.mean() == 1);
  CHECK(m.nonfinite.sum == 1);
}

TEMPLATE_TEST_CASE("no weights and weights of 1 are the same", "[tokens]", float, double) {
  random_source random{309};
  CAPTURE(random.seed());
  token_loss_case c = plain_tokens(random, {777, 3, 40});
  const auto type = prospect::dtype_of<TestType>;
  if (type == prospect::dtype::f64) {
    for (auto* row : {&c.policy, &c.loss, &c.d_policy}) {
      testing::run_time_row wide{type, c.rows};
      for (std::int64_t t = 0; t < c.rows; ++t) wide.put(t, (*row)[t] * 1.0000001);
      *row = wide;
    }
  }
  token_loss_case weighted = c;
  weighted.weight = {prospect::dtype::f32, c.rows};
  for (std::int64_t t = 0; t < c.rows; ++t) weighted.weight.put(t, 1);
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::token_loss<L>) {
      CAPTURE(std::string{L::name});
      if (prospect::reads_reference<double>(loss)) return;
      const token_metrics want = evaluate(loss, c.in(), c.out());
      CHECK(same_metrics(evaluate(loss, weighted.in(), weighted.out()), want));
      CHECK(numbers_of(weighted.d_policy, c.rows) == numbers_of(c.d_policy, c.rows));
    }
  });
}

TEST_CASE("nothing scored, nothing at all", "[tokens]") {
  random_source random{307};
  token_loss_case c = plain_tokens(random, {6, 0, 2});
  c.targets.assign(8, -100);
  token_metrics m = evaluate(clipped_loss<>{}, c.in(), c.out());
  CHECK(m.total == 0);
  CHECK_FALSE(m.loss.present());
  CHECK_FALSE(m.tokens.present());
  for (std::int64_t t = 0; t < 8; ++t) CHECK(c.d_policy[t] == 0);
  m = evaluate(clipped_loss<>{}, prospect::token_batch{}, prospect::token_batch_outputs{});
  CHECK(m.total == 0);
  CHECK_FALSE(m.loss.present());
  // Rows of no sequence.
  c.begins.clear();
  c.ends.clear();
  c.advantage = {};
  c.loss.put(4, 9);
  evaluate(clipped_loss<>{}, c.in(), c.out());
  CHECK(c.loss[4] == 0);
}

TEST_CASE("one of several losses of tokens is that loss", "[tokens]") {
  random_source random{308};
  token_loss_case c = plain_tokens(random, {70, 13});
  const token_metrics one = evaluate(prospect::sft{}, c.in(), c.out());
  const auto want = numbers_of(c.d_policy, c.rows);
  const token_metrics any = evaluate(prospect::any_token{prospect::sft{}}, c.in(), c.out());
  CHECK(same_metrics(one, any));
  CHECK(same_bits(numbers_of(c.d_policy, c.rows), want));
  CHECK(near(one.total, one.loss.mean(), 1e-15L));
  CHECK(near(want[3], -1.0L / 83, 1e-7L));
}

TEMPLATE_TEST_CASE("a loss of tokens averaged another way is the one that is averaged so",
                   "[tokens]", float, double) {
  using R = TestType;
  random_source random{309};
  token_loss_case c = testing::random_tokens(random, sizeof(R) == 8, {70, 13, 0, 260});
  if (!c.reference.given()) c.reference = c.policy;
  const auto check = [&](const auto& loss, const auto& own) {
    const token_metrics want = evaluate(own, c.in(), c.out());
    const auto losses = numbers_of(c.loss, c.rows), d = numbers_of(c.d_policy, c.rows);
    CHECK(same_metrics(evaluate(loss, c.in(), c.out()), want));
    CHECK(same_bits(numbers_of(c.loss, c.rows), losses));
    CHECK(same_bits(numbers_of(c.d_policy, c.rows), d));
  };
  const prospect::grpo grpo{.beta = 0.5};
  const prospect::bnpo bnpo{.beta = 0.5};
  check(prospect::averaged{grpo, prospect::averaging::tokens}, bnpo);
  check(prospect::averaged{bnpo, prospect::averaging::sequence_means}, grpo);
  check(prospect::averaged<prospect::gspo>{}, prospect::gspo{});
  prospect::any_token any{grpo};
  any.average = prospect::averaging::tokens;
  check(any, bnpo);
}

TEST_CASE("what makes no sense is refused by name, before any work", "[tokens]") {
  random_source random{309};
  const token_loss_case good = plain_tokens(random, {6, 2});
  const auto refused = [&](const std::string& argument, const auto& change) {
    token_loss_case c = good;
    c.loss.put(0, 5);
    auto in = c.in();
    auto out = c.out();
    change(in, out);
    CAPTURE(argument);
    CHECK(testing::refuses(argument, [&] { evaluate(clipped_loss<>{.pull = 1}, in, out); }));
    CHECK(c.loss[0] == 5);
  };
  const std::vector<float> seven(7), eight(8), two(2);
  const std::vector<std::int32_t> targets(7);
  std::vector<float> written(8);
  refused("reference", [](auto&, auto&) {});
  refused("advantage is missing", [&](auto& in, auto&) {
    in.reference = eight;
    in.advantage = {};
  });
  refused("token_advantage is given as well as advantage",
          [&](auto& in, auto&) { in.token_advantage = eight; });
  refused("old has 7", [&](auto& in, auto&) { in.old = seven; });
  refused("advantage has 7", [&](auto& in, auto&) { in.advantage = seven; });
  refused("targets has 7", [&](auto& in, auto&) { in.targets = targets; });
  refused("mask has 7", [&](auto& in, auto&) { in.mask = seven; });
  refused("weight has 2", [&](auto& in, auto&) { in.weight = two; });
  refused("layout", [](auto& in, auto&) { in.layout = sequence_layout::padded(3, 2); });
  refused("entropy is missing", [](auto& in, auto&) { in.entropy_coef = 0.5; });
  refused("entropy_coef", [](auto& in, auto&) { in.entropy_coef = not_a_number; });
  refused("d_policy has stride 0", [&](auto&, auto& out) {
    out.d_policy = {written.data(), prospect::dtype::f32, 8, 0};
  });
  token_loss_case c = good;
  CHECK(testing::refuses(
      "normaliser", [&] { evaluate(clipped_loss<>{}, c.in(), c.out(), normaliser::over(-1)); }));
  c.advantage = {};
  CHECK(testing::refusal([&] { evaluate(prospect::sft{}, c.in(), c.out()); }) == "accepted");
}
