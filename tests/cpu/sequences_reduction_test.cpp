// What phase 2 makes of many rows: metrics, normalisers under uneven splits, the mismatched-pair
// KL, and results that do not depend on the company a row is in.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using oracle::real;
using prospect::normaliser;
using prospect::paired_batch;
using prospect::strided_span;
using prospect::unpaired_batch;
using prospect::cpu::evaluate;
using testing::all_outputs;
using testing::near;
using testing::paired_case;
using testing::random_source;
using testing::refuses;
using testing::same_bits;
using testing::same_metrics;
using testing::unpaired_case;

using testing::not_a_number;

}  // namespace

// ----------------------------------------------------------------------------- metrics, reduction

TEST_CASE("accuracy is strict: at step 0 it is 0", "[sequences]") {
  const std::vector<float> same{-5, -7, -9}, one_up{-5, -6.5F, -9.5F};
  const auto ties = evaluate(prospect::dpo{},
                             paired_batch<float>{.policy_chosen = same,
                                                 .policy_rejected = same,
                                                 .reference_chosen = same,
                                                 .reference_rejected = same},
                             {});
  CHECK(ties.rewards_accuracies.sum == 0);
  CHECK(ties.rewards_accuracies.count == 3);
  const auto mixed = evaluate(prospect::dpo{},
                              paired_batch<float>{.policy_chosen = one_up,
                                                  .policy_rejected = same,
                                                  .reference_chosen = same,
                                                  .reference_rejected = same},
                              {});
  CHECK(mixed.rewards_accuracies.sum == 1);
  CHECK(near(mixed.rewards_chosen.sum, 0.0, 0, 1e-9L));  // +0.05 and -0.05
  CHECK(mixed.logps_chosen.sum == -21);
}

TEST_CASE("rewards use the raw log-ratio, whatever the loss makes of it", "[sequences]") {
  const std::vector<double> policy{-10}, reference{-14}, zero{0};
  const std::vector<std::int32_t> tokens{8};
  const paired_batch<double> in{.policy_chosen = policy,
                                .policy_rejected = zero,
                                .reference_chosen = reference,
                                .reference_rejected = zero,
                                .chosen_tokens = tokens,
                                .rejected_tokens = tokens};
  CHECK(evaluate(prospect::ipo{.tau = 0.5}, in, {}).rewards_chosen.sum == 2);
  CHECK(evaluate(prospect::hinge{.beta = 0.25}, in, {}).rewards_chosen.sum == 1);
}

TEST_CASE("any split into micro-batches with one global count is the whole batch", "[sequences]") {
  random_source random{71};
  CAPTURE(random.seed());
  const std::int64_t n = 23;
  unpaired_case<double> u{random, n, true, false};
  const prospect::kto loss{.desirable_weight = 4, .undesirable_weight = 1};
  const prospect::reference_point z{.z = 0.75, .raw = 0.75};
  const auto whole = evaluate(loss, u.in(), z, u.out());
  const auto want = u.d_policy.elements();

  const auto run = [&](const std::vector<std::int64_t>& cuts, auto by_for_part) {
    unpaired_case<double> parts = u;
    double total = 0;
    for (std::size_t k = 0; k + 1 < cuts.size(); ++k) {
      const std::int64_t first = cuts[k], count = cuts[k + 1] - first;
      const auto in = u.in();
      const auto m =
          evaluate(loss,
                   unpaired_batch<double>{.policy = in.policy.slice(first, count),
                                          .reference = in.reference.slice(first, count),
                                          .desirable = in.desirable.slice(first, count),
                                          .tokens = in.tokens.slice(first, count)},
                   z, {.d_policy = parts.d_policy.view().slice(first, count)}, by_for_part());
      total += m.total;
    }
    return std::pair{total, parts.d_policy.elements()};
  };
  const std::vector<std::int64_t> uneven{0, 1, 2, 9, 9, 14, 23};
  const auto [total, d] = run(uneven, [&] { return normaliser::over(whole.loss.count); });
  CHECK(near(total, whole.total, 1e-14L));
  CHECK(same_bits(d, want));  // the factor is the same number

  // The mean of each part's own mean is another objective: short parts weigh too much.
  const auto [averaged, unequal] = run(uneven, [] { return normaliser::mean(); });
  CHECK_FALSE(near(averaged / 6, whole.total, 1e-6L));
  CHECK_FALSE(same_bits(unequal, want));

  const auto [summed, plain] = run(uneven, [] { return normaliser::sum(); });
  CHECK(near(summed / whole.loss.count, whole.total, 1e-14L));
  CHECK(near(plain[0], want[0] * whole.loss.count, 1e-15L));
}

TEST_CASE("class weights are not in the denominator", "[sequences]") {
  random_source random{72};
  CAPTURE(random.seed());
  unpaired_case<double> u{random, 16, false};
  u.desirable[0] = 1;
  evaluate(prospect::kto{}, u.in(), {.z = 1}, u.out());
  const auto plain = u.d_policy.elements();
  evaluate(prospect::kto{.desirable_weight = 8}, u.in(), {.z = 1}, u.out());
  for (std::int64_t i = 0; i < 16; ++i) {
    const double weight = u.desirable[i] != 0 ? 8 : 1;
    CHECK(u.d_policy[i] == weight * plain[static_cast<std::size_t>(i)]);
  }
}

TEST_CASE("losses are never reduced or normalised", "[sequences]") {
  random_source random{73};
  CAPTURE(random.seed());
  paired_case<float> p{random, 12, true};
  evaluate(prospect::dpo{}, p.in(), p.out(), normaliser::mean());
  const auto loss = p.loss.elements();
  for (const normaliser by : {normaliser::sum(), normaliser::over(1e4)}) {
    evaluate(prospect::dpo{}, p.in(), p.out(), by);
    CHECK(same_bits(p.loss.elements(), loss));
  }
}

TEST_CASE("a normaliser may be further out than fp32 reaches", "[sequences]") {
  std::vector<float> chosen, none(70), d(70), plain(70);
  for (int i = 0; i < 70; ++i) chosen.push_back(12 + 0.1F * static_cast<float>(i));
  const paired_batch<float> pairs{.policy_chosen = chosen,
                                  .policy_rejected = none,
                                  .reference_chosen = none,
                                  .reference_rejected = none};
  const prospect::dpo loss{.beta = 1};
  evaluate(loss, pairs, {.d_policy_chosen = plain}, normaliser::sum());
  for (const double count : {1e-42, 1e-35, 1e30}) {
    CAPTURE(count);
    evaluate(loss, pairs, {.d_policy_chosen = d}, normaliser::over(count));
    for (std::size_t i = 0; i < 70; ++i) {
      CHECK(near(d[i], static_cast<real>(plain[i]) / static_cast<real>(count), 2e-7L));
    }
  }
}

TEST_CASE("sums are fp64 whatever the storage", "[sequences]") {
  // 0.1 summed in fp32 is off in the third digit by then.
  const std::int64_t n = 300'000;
  const float policy = -0.1F, reference = 0;
  const std::uint8_t up = 1;
  const auto m = evaluate(
      prospect::kto{},
      unpaired_batch<float>{
          .policy = {&policy, n, 0}, .reference = {&reference, n, 0}, .desirable = {&up, n, 0}},
      prospect::zero_point(), {});
  CHECK(near(m.logps_chosen.sum, static_cast<real>(policy) * n, 1e-12L));
}

TEST_CASE("the same call gives the same bits, at any place in any batch", "[sequences]") {
  random_source random{74};
  CAPTURE(random.seed());
  unpaired_case<float> u{random, 40, false, false};
  const prospect::reference_point z{.z = 0.25, .raw = 0.25};
  const auto first = evaluate(prospect::kto{}, u.in(), z, u.out(), normaliser::sum());
  const auto want = all_outputs<float>(u);
  CHECK(same_metrics(first, evaluate(prospect::kto{}, u.in(), z, u.out(), normaliser::sum())));
  CHECK(same_bits(all_outputs<float>(u), want));
  for (std::int64_t i = 0; i < 40; ++i) {
    float loss = 0, d = 0;
    const auto in = u.in();
    evaluate(prospect::kto{},
             unpaired_batch<float>{.policy = in.policy.slice(i, 1),
                                   .reference = in.reference.slice(i, 1),
                                   .desirable = in.desirable.slice(i, 1)},
             z, {.loss = {&loss, 1}, .d_policy = {&d, 1}}, normaliser::sum());
    CHECK(same_bits(loss, u.loss[i]));
    CHECK(same_bits(d, u.d_policy[i]));
  }
}

TEST_CASE("no gradient passes through a given reference point", "[sequences]") {
  // Central differences of `total` with z held fixed.
  random_source random{75};
  CAPTURE(random.seed());
  unpaired_case<double> u{random, 6, false};
  const auto total = [&] { return evaluate(prospect::kto{}, u.in(), {.z = 0.5}, {}).total; };
  evaluate(prospect::kto{}, u.in(), {.z = 0.5}, u.out());
  for (std::int64_t i = 0; i < 6; ++i) {
    const double p = u.policy[i], h = 1e-4;
    u.policy[i] = p + h;
    const double high = total();
    u.policy[i] = p - h;
    const double low = total();
    u.policy[i] = p;
    CHECK(near(u.d_policy[i], (high - low) / (2 * h), 1e-6L, 1e-10L));
  }
}

// ----------------------------------------------------------------------------- mismatched-pair KL

TEST_CASE("the mismatched-pair estimate is a sum with a count", "[sequences]") {
  const std::vector<float> policy{-5, -6, -7, not_a_number}, reference{-6, -6.5F, -9, not_a_number};
  const std::vector<std::int32_t> tokens{3, 0, 2, 0};
  const auto all =
      prospect::cpu::mismatched_kl<float>(strided_span<const float>{policy}.slice(0, 3),
                                          strided_span<const float>{reference}.slice(0, 3));
  CHECK(all.sum == 3.5);
  CHECK(all.count == 3);
  const auto some = prospect::cpu::mismatched_kl<float>(policy, reference, tokens);
  CHECK(some.sum == 3);
  CHECK(some.count == 2);
  CHECK(prospect::reference_point::from(some).z == 1.5);
  CHECK(some.nonfinite == 0);
  CHECK(some.first_nonfinite == -1);
  CHECK(refuses("reference", [&] {
    prospect::cpu::mismatched_kl<float>(policy, strided_span<const float>{reference}.slice(0, 2));
  }));
  CHECK(refuses("tokens", [&] {
    prospect::cpu::mismatched_kl<float>(policy, reference,
                                        strided_span<const std::int32_t>{tokens}.slice(0, 1));
  }));
}

TEST_CASE("pooled over ranks and micro-batches, the estimate is that of the whole batch",
          "[sequences]") {
  random_source random{76};
  CAPTURE(random.seed());
  const std::vector<double> policy = random.normals(17, 2), reference = random.normals(17, 2);
  const strided_span<const double> p{policy}, r{reference};
  const auto whole = prospect::cpu::mismatched_kl<double>(p, r);
  prospect::pooled_point pooled;
  double mean_of_means = 0;
  const std::vector<std::int64_t> cuts{0, 2, 3, 11, 17};
  for (std::size_t k = 0; k + 1 < cuts.size(); ++k) {
    const auto part = prospect::cpu::mismatched_kl<double>(p.slice(cuts[k], cuts[k + 1] - cuts[k]),
                                                           r.slice(cuts[k], cuts[k + 1] - cuts[k]));
    pooled.add(part);
    mean_of_means += part.mean() / 4;
  }
  CHECK(pooled.observed().count == whole.count);
  CHECK(near(pooled.point().raw, whole.mean(), 0, 1e-13L));
  CHECK_FALSE(near(mean_of_means, whole.mean(), 0, 1e-6L));
}
