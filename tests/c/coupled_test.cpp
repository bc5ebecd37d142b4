// Rewards, value estimates and AOT through C: what a call refuses, by name, what is optional, and
// the caller's scratch. That the numbers are right is shown by the conformance vectors.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "c/surface.hpp"

using testing::c_row;
using testing::refused;
using testing::sized;

TEST_CASE("advantages through C") {
  std::vector<float> rewards{1, 2, NAN, 5, 5, 5}, out(6, 7);
  auto groups = sized<prospect_layout>();
  groups.sequences = 2;
  groups.length = 3;
  std::vector<prospect_row> rows{c_row(rewards), c_row(rewards)};
  auto a = sized<prospect_advantages>();
  a.groups = &groups;
  a.rewards = rows.data();
  a.components = 1;
  a.scale = PROSPECT_SCALE_NONE;
  a.advantages = c_row(out);
  std::int64_t bad = -7, first = -7;
  prospect_error error{};
  REQUIRE(prospect_advantages_cpu(&a, &bad, &first, &error) == PROSPECT_OK);
  CHECK((bad == 1 && first == 2 && std::isnan(out[2])));
  out[2] = 0;
  CHECK(out == std::vector<float>{-0.5F, 0.5F, 0, 0, 0, 0});
  a.advantage = PROSPECT_RLOO;
  REQUIRE(prospect_advantages_cpu(&a, nullptr, nullptr, nullptr) == PROSPECT_OK);
  CHECK((out[0] == -1 && out[1] == 1));
  a.advantage = PROSPECT_GDPO;
  a.components = 2;
  REQUIRE(prospect_advantages_cpu(&a, nullptr, nullptr, nullptr) == PROSPECT_OK);
  CHECK((out[0] < 0 && out[1] == -out[0] && out[3] == 0));

  const auto refuses = [&](prospect_status status, const char* words) {
    refused(prospect_advantages_cpu(&a, &bad, &first, &error), status, error, words);
  };
  a.advantage = PROSPECT_GRPO;
  refuses(PROSPECT_INVALID_ARGUMENT, "components");
  a.components = 1;
  a.advantage = 9;
  refuses(PROSPECT_UNSUPPORTED, "advantage is unknown");
  a.advantage = PROSPECT_GRPO;
  a.scale = 9;
  refuses(PROSPECT_UNSUPPORTED, "scale is unknown");
  a.scale = 0;
  a.epsilon = -1;
  refuses(PROSPECT_INVALID_ARGUMENT, "epsilon");
  a.epsilon = 0;
  groups.length = 4;
  refuses(PROSPECT_INVALID_ARGUMENT, "groups");
  groups.length = 3;
  a.rewards = nullptr;
  refuses(PROSPECT_INVALID_ARGUMENT, "rewards is NULL");
  CHECK((bad == 1 && first == 2));

  std::vector<std::int64_t> chosen(2), rejected(2);
  std::vector<std::int32_t> narrow(2);
  std::int64_t pairs = -7;
  REQUIRE(prospect_best_and_worst_cpu(c_row(rewards), &groups, c_row(chosen), c_row(rejected),
                                      &pairs, &error) == PROSPECT_OK);
  CHECK((pairs == 2 && chosen == std::vector<std::int64_t>{1, 3}));
  CHECK(rejected == std::vector<std::int64_t>{0, 5});
  refused(prospect_best_and_worst_cpu(c_row(rewards), &groups, c_row(narrow), c_row(rejected),
                                      &pairs, &error),
          PROSPECT_UNSUPPORTED, error, "rejected.dtype");

  double value = 7;
  const std::vector<double> equal(3, 0.25);
  REQUIRE(prospect_optimal_value_cpu(c_row(equal), 0.5, &value, &error) == PROSPECT_OK);
  CHECK(value == 0.25);
  refused(prospect_optimal_value_cpu(c_row(rewards), 0.5, &value, &error),
          PROSPECT_INVALID_ARGUMENT, error, "rewards is not finite at 2");
}

TEST_CASE("the clipped value loss through C") {
  const std::vector<float> value{1, 2}, old_value{1, 1}, returns{0, 3};
  const std::vector<std::uint8_t> mask{1, 1};
  std::vector<float> d(2, 7);
  auto v = sized<prospect_values>();
  v.value = c_row(value);
  v.old_value = c_row(old_value);
  v.returns = c_row(returns);
  v.d_value = c_row(d);
  testing::c_metrics m;
  prospect_error error{};
  REQUIRE(prospect_value_loss_cpu(&v, &m, nullptr, &error) == PROSPECT_OK);
  CHECK((d[0] == 0.5F && d[1] == 0));  // moved farther than 0.2, towards the return
  CHECK(m.metrics.size == 2);
  v.cliprange_value = 2;
  v.mask = c_row(mask);
  v.normaliser = PROSPECT_SUM;
  REQUIRE(prospect_value_loss_cpu(&v, nullptr, nullptr, &error) == PROSPECT_OK);
  CHECK((d[0] == 1 && d[1] == -1));
  const auto refuses = [&](prospect_status status, const char* words) {
    refused(prospect_value_loss_cpu(&v, &m, nullptr, &error), status, error, words);
  };
  v.normaliser = 9;
  refuses(PROSPECT_UNSUPPORTED, "normaliser");
  v.normaliser = PROSPECT_OVER_AT;
  refuses(PROSPECT_INVALID_ARGUMENT, "count_at is NULL");
  v.normaliser = PROSPECT_MEAN;
  v.cliprange_value = NAN;
  refuses(PROSPECT_INVALID_ARGUMENT, "cliprange_value");
  v.cliprange_value = 0;
  v.returns = {};
  refuses(PROSPECT_INVALID_ARGUMENT, "returns");
  v.reserved = 1;
  refuses(PROSPECT_UNSUPPORTED, "values.reserved");
  CHECK((d[0] == 1 && d[1] == -1));
}

TEST_CASE("AOT through C, in the caller's scratch") {
  const std::vector<double> policy{-1, -5, -2, -3}, reference{-2, -2, -9, -4};
  auto p = sized<prospect_pairs>();
  p.policy_chosen = prospect_row_slice(c_row(policy), 0, 2);
  p.policy_rejected = prospect_row_slice(c_row(policy), 2, 2);
  p.reference_chosen = prospect_row_slice(c_row(reference), 0, 2);
  p.reference_rejected = prospect_row_slice(c_row(reference), 2, 2);
  std::vector<double> margin(2, 7);
  const prospect_loss dpo = testing::c_loss("dpo");
  prospect_error error{};
  std::size_t bytes = 0;
  auto context = sized<prospect_context>();
  context.query = &bytes;
  const auto run = [&](const prospect_loss& loss) {
    return prospect_aot_margins_cpu(&loss, &p, c_row(margin), &context, &error);
  };
  REQUIRE(run(dpo) == PROSPECT_OK);
  CHECK((bytes > 0 && margin[0] == 7));
  context.query = nullptr;
  // Differences of the policy are 1, -2, of the reference 7, 2: each pair keeps its own.
  REQUIRE(run(dpo) == PROSPECT_OK);
  CHECK(margin == std::vector<double>{0, 0});
  std::vector<double> scratch(bytes / sizeof(double));
  context.scratch = scratch.data();
  context.scratch_size = bytes;
  REQUIRE(run(dpo) == PROSPECT_OK);
  context.scratch_size = bytes - 1;
  refused(run(dpo), PROSPECT_INVALID_ARGUMENT, error, "context.scratch");
  context = sized<prospect_context>();
  refused(run(testing::c_loss("nca")), PROSPECT_INVALID_ARGUMENT, error, "loss is none");
  refused(run(testing::c_loss("kto")), PROSPECT_INVALID_ARGUMENT, error, "paired");

  std::vector<std::int32_t> up{0, 1}, down{2, 3}, chosen(2), rejected(2);
  auto q = sized<prospect_pairs>();
  q.policy = c_row(policy);
  q.reference = c_row(reference);
  q.chosen = c_row(up);
  q.rejected = c_row(down);
  const auto pair_up = [&](const prospect_pairs& of) {
    return prospect_aot_pairs_cpu(&of, c_row(chosen), c_row(rejected), nullptr, &error);
  };
  REQUIRE(pair_up(q) == PROSPECT_OK);
  CHECK(chosen == std::vector<std::int32_t>{1, 0});    // log-ratios 1, -3
  CHECK(rejected == std::vector<std::int32_t>{3, 2});  // 7, 1
  refused(pair_up(p), PROSPECT_INVALID_ARGUMENT, error, "pairs.chosen");
}
