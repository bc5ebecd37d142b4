// Losses of tokens where something is no finite number: whose results it spoils, and who is told.

#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/any.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "cpu/token_loss_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::token_metrics;
using prospect::cpu::evaluate;
using testing::clipped_loss;
using testing::detaching_loss;
using testing::infinity;
using testing::not_a_number;
using testing::plain_tokens;
using testing::random_source;
using testing::summing_loss;
using testing::token_loss_case;

}  // namespace

TEST_CASE("what is no number stays in its token, or its sequence, and is reported", "[tokens]") {
  random_source random{305};
  CAPTURE(random.seed());
  const std::int64_t length = GENERATE(300, 3000);
  const bool in_blocks = GENERATE(true, false);
  CAPTURE(length, in_blocks);
  const std::int64_t at = 40 + length - 30;
  token_loss_case clean = plain_tokens(random, {40, length, 25});
  if (!in_blocks) clean.d_entropy = {};
  const auto check = [&](const auto& loss, std::int64_t first, std::int64_t last) {
    token_loss_case good = clean;
    const token_metrics good_metrics = evaluate(loss, good.in(), good.out());
    for (const double bad : {not_a_number, infinity, -infinity}) {
      for (const bool in_policy : {true, false}) {
        CAPTURE(bad, in_policy);
        token_loss_case c = clean;
        (in_policy ? c.policy : c.old).put(at, bad);
        const token_metrics m = evaluate(loss, c.in(), c.out());
        CHECK(m.nonfinite.sum == static_cast<double>(last - first));
        CHECK(m.first_nonfinite == first);
        CHECK(m.clip_ratio.sum <= good_metrics.clip_ratio.sum + 1);
        CHECK(m.clip_ratio.sum >= good_metrics.clip_ratio.sum - static_cast<double>(last - first));
        bool same = true;
        for (std::int64_t t = 0; t < c.rows; ++t) {
          if (t >= first && t < last) continue;
          same = same && c.loss[t] == good.loss[t] && c.d_policy[t] == good.d_policy[t];
        }
        CHECK(same);
        c.mask.assign(static_cast<std::size_t>(c.rows), 1);
        c.mask[static_cast<std::size_t>(at)] = 0;
        CHECK(evaluate(loss, c.in(), c.out()).nonfinite.sum == 0);
        CHECK(c.d_policy[at] == 0);
      }
    }
  };
  check(clipped_loss<>{}, at, at + 1);
  check(detaching_loss{}, at, at + 1);
  check(summing_loss{}, 40, 40 + length);

  token_loss_case c = clean;
  c.advantage.put(2, not_a_number);
  CHECK(evaluate(clipped_loss<>{}, c.in(), c.out()).nonfinite.sum == 25);
  CHECK(evaluate(prospect::sft{}, c.in(), c.out()).nonfinite.sum == 25);  // which reads none
  for (const double bad : {not_a_number, infinity, -infinity}) {
    c = clean;
    c.reference = {prospect::dtype::f32, c.rows};
    for (std::int64_t t = 0; t < c.rows; ++t) c.reference.put(t, -2);
    c.reference.put(50, bad);
    const token_metrics seen = evaluate(clipped_loss<>{}, c.in(), c.out());  // which reads none
    CHECK(seen.nonfinite.sum == 1);
    CHECK(seen.first_nonfinite == 50);
  }
  c = clean;
  c.entropy = {prospect::dtype::f32, c.rows};
  c.entropy.put(3, infinity);
  token_metrics m = evaluate(clipped_loss<>{}, c.in(), c.out());
  CHECK(m.nonfinite.sum == 1);  // an input, though nothing is made of it
  CHECK(m.first_nonfinite == 3);
  CHECK(std::isfinite(m.total));
  c = clean;
  c.loss = {prospect::dtype::f16, c.rows};
  c.policy.put(7, -1e6);
  CHECK(evaluate(detaching_loss{}, c.in(), c.out()).first_nonfinite == -1);  // e^-1e6 = 0
  c.old.put(7, -1e6);
  m = evaluate(detaching_loss{}, c.in(), c.out());
  CHECK(m.first_nonfinite == 7);  // no number of the type that it is stored as
}

TEST_CASE("a token that is no number is named by its row, whatever lies between", "[tokens]") {
  random_source random{314};
  CAPTURE(random.seed());
  for (const std::int64_t length : {3, 100, 700, 2000}) {
    const token_loss_case clean = plain_tokens(random, {5, length});
    for (const std::int64_t before_last : {1, 2, 20, 90, 600}) {
      const std::int64_t bad = 5 + length - before_last;
      if (bad < 5) continue;
      CAPTURE(length, bad);
      token_loss_case c = clean;
      c.mask.assign(static_cast<std::size_t>(c.rows), 1);
      for (std::int64_t t = 6; t < c.rows; t += 3) {
        if (t != bad) c.mask[static_cast<std::size_t>(t)] = 0;
      }
      c.old.put(bad, not_a_number);
      const token_metrics m = evaluate(clipped_loss<>{}, c.in(), c.out());
      CHECK(m.nonfinite.sum == 1);
      CHECK(m.first_nonfinite == bad);
    }
  }
}

TEST_CASE("a coefficient that its type has no room for is found in every piece", "[tokens]") {
  constexpr std::int64_t length = 100;
  for (const int every : {2, 50}) {  // rows one by one, and two pieces
    for (const std::int64_t bad : {11, 91}) {
      CAPTURE(every, bad);
      const std::vector<float> policy(length, -1);
      std::vector<float> weight(length, 1);
      std::vector<std::uint8_t> mask(length, 1);
      std::vector<prospect::float16> d_policy(length);
      for (std::size_t i = 0; i < mask.size(); i += static_cast<std::size_t>(every)) mask[i] = 0;
      weight[static_cast<std::size_t>(bad)] = 1e6F;
      const token_metrics m = evaluate(prospect::sft{},
                                       {.policy = policy,
                                        .weight = weight,
                                        .mask = mask,
                                        .layout = prospect::sequence_layout::padded(1, length)},
                                       {.d_policy = d_policy}, prospect::normaliser::sum());
      CHECK(m.nonfinite.sum == 1);
      CHECK(m.first_nonfinite == bad);
    }
  }
}

TEST_CASE("a weight that is no number spoils its token, and its sequence where a sum is attached",
          "[tokens]") {
  const std::vector<float> policy{-1, -2, -1.5F, -1}, old{-1.1F, -1.9F, -1.5F, -1.2F};
  const std::vector<float> advantage{1}, weight{1, 1, NAN, 1};
  const auto nonfinite_of = [&](const auto& loss) {
    std::vector<float> d_policy(policy.size());
    const token_metrics m = evaluate(loss,
                                     {.policy = policy,
                                      .old = old,
                                      .advantage = advantage,
                                      .weight = weight,
                                      .layout = prospect::sequence_layout::padded(1, 4)},
                                     {.d_policy = d_policy}, prospect::normaliser::sum());
    CHECK(std::isnan(d_policy[2]));
    return m.nonfinite.sum;
  };
  CHECK(nonfinite_of(prospect::vespo{}) == 1);
  CHECK(nonfinite_of(prospect::gspo_token{}) == 1);
  CHECK(nonfinite_of(prospect::gspo{}) == 4);
}
