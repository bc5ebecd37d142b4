// Phase 2 on the CPU: every loss over every storage type and layout against its oracle; rows that
// do not count, and rows that are not finite.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

namespace {

using oracle::real;
using prospect::bfloat16;
using prospect::float16;
using prospect::paired_batch;
using prospect::strided_span;
using prospect::unpaired_batch;
using prospect::cpu::evaluate;
using testing::all_outputs;
using testing::near;
using testing::paired_case;
using testing::random_source;
using testing::same_bits;
using testing::same_metrics;
using testing::stored;
using testing::stored_near;
using testing::unpaired_case;

const float not_a_number = std::numeric_limits<float>::quiet_NaN();
const float infinity = std::numeric_limits<float>::infinity();

/// A number summed beside the bound on its error.
struct bounded_sum {
  real sum = 0, tolerance = 0;
  std::int64_t count = 0;
  void add(real x, real by) {
    sum += x;
    tolerance += by;
    ++count;
  }
  bool matches(const prospect::sum_count& got) const {
    return got.count == static_cast<double>(count) &&
           near(got.sum, sum, 1e-14L, tolerance + 1e-300L);
  }
};

template <class Losses, class Visit>
void for_each_type(const Visit& visit) {
  std::apply([&](const auto&... loss) { (visit(loss), ...); }, Losses{});
}

template <class S>
constexpr real unit = std::numeric_limits<prospect::compute_t<S>>::epsilon();

template <class S, class L>
void check_paired(const L& loss, paired_case<S>& c, std::int64_t n) {
  using R = prospect::compute_t<S>;
  CAPTURE(L::name, n);
  const auto metrics = evaluate(loss, c.in(), c.out());

  real counted = 0;
  for (std::int64_t i = 0; i < n; ++i) counted += c.counted(i) ? 1 : 0;
  bounded_sum losses, chosen, rejected, margins, accuracies, logps_chosen, logps_rejected;
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (!c.counted(i)) {
      for (auto* row : c.outputs()) CHECK(same_bits((*row)[i], stored<S>(0)));
      continue;
    }
    const auto point = c.point(i);
    const auto e = testing::expected<R>(loss, point);
    const real scale = prospect::reward_scale(loss), r_w = scale * point.chosen,
               r_l = scale * point.rejected;
    CHECK(stored_near<S>(c.loss[i], e.want[0], e.tolerance[0]));
    CHECK(stored_near<S>(c.d_chosen[i], e.want[1] / counted, 2 * e.tolerance[1] / counted));
    CHECK(stored_near<S>(c.d_rejected[i], e.want[2] / counted, 2 * e.tolerance[2] / counted));
    CHECK(stored_near<S>(c.reward_chosen[i], r_w, unit<S> * std::abs(r_w)));
    CHECK(stored_near<S>(c.reward_rejected[i], r_l, unit<S> * std::abs(r_l)));
    losses.add(e.want[0], e.tolerance[0]);
    chosen.add(r_w, unit<S> * std::abs(r_w));
    rejected.add(r_l, unit<S> * std::abs(r_l));
    margins.add(r_w - r_l, unit<S> * (std::abs(r_w) + std::abs(r_l)));
    accuracies.add(point.chosen > point.rejected ? 1 : 0, 0);
    logps_chosen.add(prospect::load(c.policy_chosen[i]), 0);
    logps_rejected.add(prospect::load(c.policy_rejected[i]), 0);
  }
  CHECK(losses.matches(metrics.loss));
  CHECK(chosen.matches(metrics.rewards_chosen));
  CHECK(rejected.matches(metrics.rewards_rejected));
  CHECK(margins.matches(metrics.rewards_margins));
  CHECK(accuracies.matches(metrics.rewards_accuracies));
  CHECK(logps_chosen.matches(metrics.logps_chosen));
  CHECK(logps_rejected.matches(metrics.logps_rejected));
  CHECK(metrics.nonfinite.sum == 0);
  CHECK(metrics.first_nonfinite == -1);
  CHECK(near(metrics.total, counted > 0 ? losses.sum / counted : 0, 1e-14L,
             losses.tolerance + 1e-300L));
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());
}

template <class S, class L>
void check_unpaired(const L& loss, unpaired_case<S>& c, std::int64_t n, double z) {
  using R = prospect::compute_t<S>;
  CAPTURE(L::name, n, z);
  const prospect::reference_point point{.z = z, .raw = z - 1};
  const auto metrics = evaluate(loss, c.in(), point, c.out());

  real counted = 0;
  for (std::int64_t i = 0; i < n; ++i) counted += c.tokens[i] > 0 ? 1 : 0;
  bounded_sum losses, rewards[2], logps[2];
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (c.tokens[i] == 0) {
      for (auto* row : c.outputs()) CHECK(same_bits((*row)[i], stored<S>(0)));
      continue;
    }
    const auto at = c.point(i, z);
    const auto e = testing::expected<R>(loss, at);
    const real reward = prospect::reward_scale(loss) * at.log_ratio;
    CHECK(stored_near<S>(c.loss[i], e.want[0], e.tolerance[0]));
    CHECK(stored_near<S>(c.d_policy[i], e.want[1] / counted, 2 * e.tolerance[1] / counted));
    CHECK(stored_near<S>(c.reward[i], reward, unit<S> * std::abs(reward)));
    losses.add(e.want[0], e.tolerance[0]);
    rewards[at.desirable ? 1 : 0].add(reward, unit<S> * std::abs(reward));
    logps[at.desirable ? 1 : 0].add(prospect::load(c.policy[i]), 0);
  }
  CHECK(losses.matches(metrics.loss));
  CHECK(rewards[1].matches(metrics.rewards_chosen));
  CHECK(rewards[0].matches(metrics.rewards_rejected));
  CHECK(logps[1].matches(metrics.logps_chosen));
  CHECK(logps[0].matches(metrics.logps_rejected));
  CHECK(metrics.kl.mean() == z);
  CHECK(metrics.kl_unclamped.mean() == z - 1);
  CHECK(near(metrics.total, counted > 0 ? losses.sum / counted : 0, 1e-14L,
             losses.tolerance + 1e-300L));
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());
}

const std::vector<std::int64_t> sizes{1, 2, 5, 33};

}  // namespace

// ----------------------------------------------------------------- every loss, dtype, and layout

TEMPLATE_TEST_CASE("paired losses agree with their oracle in every storage type and layout",
                   "[sequences]", float, double, bfloat16, float16) {
  random_source random{61};
  CAPTURE(random.seed());
  for_each_type<testing::paired_losses>([&](const auto& loss) {
    if constexpr (testing::in_paired_textbook<std::remove_cvref_t<decltype(loss)>>) {
      for (int round = 0; round < 6; ++round) {
        for (const std::int64_t n : sizes) {
          paired_case<TestType> c{random, n, round % 2 == 1};
          check_paired(loss, c, n);
        }
      }
    }
  });
}

TEMPLATE_TEST_CASE("unpaired losses agree with their oracle in every storage type and layout",
                   "[sequences]", float, double, bfloat16, float16) {
  random_source random{62};
  CAPTURE(random.seed());
  for_each_type<testing::unpaired_losses>([&](auto loss) {
    if constexpr (testing::in_unpaired_textbook<decltype(loss)>) {
      loss.desirable_weight = 1.5;
      loss.undesirable_weight = 0.75;
      for (int round = 0; round < 6; ++round) {
        for (const std::int64_t n : sizes) {
          unpaired_case<TestType> c{random, n, round % 2 == 1};
          check_unpaired(loss, c, n, round * 0.75);
        }
      }
    }
  });
}

TEST_CASE("a stride of 0 repeats an input", "[sequences]") {
  random_source random{63};
  CAPTURE(random.seed());
  unpaired_case<float> c{random, 7, false, false};
  const float same = -42.5F;
  for (std::int64_t i = 0; i < 7; ++i) c.reference[i] = same;
  evaluate(prospect::kto{}, c.in(), {.z = 0.5}, c.out());
  const auto want = all_outputs<float>(c);
  auto in = c.in();
  in.reference = strided_span<const float>{&same, 7, 0};
  evaluate(prospect::kto{}, in, {.z = 0.5}, c.out());
  CHECK(same_bits(all_outputs<float>(c), want));
}

TEST_CASE("chosen and rejected may be the halves of one row", "[sequences]") {
  random_source random{64};
  CAPTURE(random.seed());
  paired_case<double> c{random, 5, false, false};
  std::vector<double> policy = c.policy_chosen.elements(), d(10);
  for (const double p : c.policy_rejected.elements()) policy.push_back(p);
  evaluate(prospect::dpo{}, c.in(), c.out());
  const strided_span<const double> both{policy};
  const strided_span<double> d_both{d};
  auto in = c.in();
  in.policy_chosen = both.slice(0, 5);
  in.policy_rejected = both.slice(5, 5);
  evaluate(prospect::dpo{}, in,
           {.d_policy_chosen = d_both.slice(0, 5), .d_policy_rejected = d_both.slice(5, 5)});
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(d[i] == c.d_chosen[static_cast<std::int64_t>(i)]);
    CHECK(d[i + 5] == c.d_rejected[static_cast<std::int64_t>(i)]);
  }
}

TEST_CASE("an output that is not wanted changes nothing else", "[sequences]") {
  random_source random{65};
  CAPTURE(random.seed());
  paired_case<float> p{random, 6, true};
  const auto all = evaluate(prospect::ipo{}, p.in(), p.out());
  const auto loss = p.loss.elements(), d_rejected = p.d_rejected.elements();
  paired_case<float> q = p;
  CHECK(same_metrics(all, evaluate(prospect::ipo{}, q.in(), {})));
  CHECK(same_metrics(all, evaluate(prospect::ipo{}, q.in(), {.loss = q.loss.view()})));
  CHECK(same_bits(q.loss.elements(), loss));
  evaluate(prospect::ipo{}, q.in(), {.d_policy_rejected = q.d_rejected.view()});
  CHECK(same_bits(q.d_rejected.elements(), d_rejected));

  unpaired_case<float> u{random, 6, true};
  const auto every = evaluate(prospect::kto{}, u.in(), {.z = 1}, u.out());
  CHECK(same_metrics(every, evaluate(prospect::kto{}, u.in(), {.z = 1}, {})));
  const auto reward = u.reward.elements();
  evaluate(prospect::kto{}, u.in(), {.z = 1}, {.reward = u.reward.view()});
  CHECK(same_bits(u.reward.elements(), reward));
}

TEST_CASE("an empty batch is fine and counts nothing", "[sequences]") {
  const auto paired = evaluate(prospect::ipo{}, paired_batch<float>{}, {});
  CHECK(paired.loss.count == 0);
  CHECK(paired.total == 0);
  const auto unpaired = evaluate(prospect::kto{}, unpaired_batch<bfloat16>{}, {.z = 1}, {});
  CHECK(unpaired.loss.count == 0);
  CHECK(unpaired.total == 0);
  CHECK(evaluate(prospect::kto{}, unpaired_batch<double>{}, prospect::cross_class{}, {}).total ==
        0);
}

// ------------------------------------------------------------------------- rows that do not count

TEMPLATE_TEST_CASE("a row without tokens is not read, whatever is in it", "[sequences]", float,
                   double, bfloat16, float16) {
  using S = TestType;
  random_source random{66};
  CAPTURE(random.seed());
  for (const float rubbish : {not_a_number, -infinity, infinity}) {
    paired_case<S> p{random, 9, true};
    p.chosen_tokens[2] = 0;
    p.rejected_tokens[7] = 0;
    const auto clean = evaluate(prospect::dpo{}, p.in(), p.out());
    const auto bits = all_outputs<S>(p);
    for (std::int64_t i = 0; i < 9; ++i) {
      if (p.counted(i)) continue;
      p.policy_chosen[i] = p.reference_chosen[i] = stored<S>(rubbish);
      p.policy_rejected[i] = p.reference_rejected[i] = stored<S>(rubbish);
    }
    CHECK(same_metrics(clean, evaluate(prospect::dpo{}, p.in(), p.out())));
    CHECK(same_bits(all_outputs<S>(p), bits));

    unpaired_case<S> u{random, 9, true};
    u.tokens[4] = 0;
    const auto check = [&](const auto& point) {
      const auto before = evaluate(prospect::kto{}, u.in(), point, u.out());
      const auto want = all_outputs<S>(u);
      unpaired_case<S> dirty = u;
      for (std::int64_t i = 0; i < 9; ++i) {
        if (u.tokens[i] == 0) dirty.policy[i] = dirty.reference[i] = stored<S>(rubbish);
      }
      CHECK(same_metrics(before, evaluate(prospect::kto{}, dirty.in(), point, dirty.out())));
      CHECK(same_bits(all_outputs<S>(dirty), want));
    };
    check(prospect::reference_point{.z = 0.5, .raw = 0.5});
    check(prospect::cross_class{});
  }
}

TEST_CASE("a batch of empty rows only: zeros, nothing counted", "[sequences]") {
  random_source random{67};
  paired_case<float> p{random, 3, false};
  for (std::int64_t i = 0; i < 3; ++i) p.chosen_tokens[i] = 0;
  const auto metrics = evaluate(prospect::ipo{}, p.in(), p.out());
  CHECK(metrics.total == 0);
  CHECK(metrics.loss.count == 0);
  for (const float x : all_outputs<float>(p)) CHECK(x == 0);
}

TEST_CASE("one class only: the absent class has count 0", "[sequences]") {
  random_source random{68};
  CAPTURE(random.seed());
  for (const bool desirable : {true, false}) {
    unpaired_case<float> u{random, 5, false};
    for (std::int64_t i = 0; i < 5; ++i) u.desirable[i] = desirable ? 1 : 0;
    for (const double z : {0.0, 1.5}) {
      const auto m = evaluate(prospect::kto{}, u.in(), {.z = z, .raw = z}, u.out());
      CHECK(m.loss.count == 5);
      CHECK(m.rewards_chosen.count == (desirable ? 5 : 0));
      CHECK(m.rewards_rejected.count == (desirable ? 0 : 5));
      CHECK(m.logps_chosen.present() == desirable);
      CHECK(m.logps_rejected.present() == !desirable);
      CHECK(std::isfinite(m.total));
      check_unpaired(prospect::kto{}, u, 5, z);
    }
  }
}

TEST_CASE("a non-finite row is reported, and stays alone", "[sequences]") {
  random_source random{69};
  CAPTURE(random.seed());
  for (const float bad : {not_a_number, infinity, -infinity}) {
    CAPTURE(bad);
    paired_case<float> p{random, 8, false};
    evaluate(prospect::dpo{}, p.in(), p.out());
    const auto clean = p;
    p.policy_rejected[3] = bad;
    p.policy_chosen[6] = bad;
    const auto m = evaluate(prospect::dpo{}, p.in(), p.out());
    CHECK(m.nonfinite.sum == 2);
    CHECK(m.nonfinite.count == 8);
    CHECK(m.first_nonfinite == 3);
    auto before = clean;
    for (std::int64_t i = 0; i < 8; ++i) {
      if (i == 3 || i == 6) continue;
      CHECK(same_bits(p.loss[i], before.loss[i]));
      CHECK(same_bits(p.d_chosen[i], before.d_chosen[i]));
      CHECK(same_bits(p.d_rejected[i], before.d_rejected[i]));
    }
  }
  unpaired_case<float> u{random, 8, false};
  u.policy[5] = not_a_number;
  const auto m = evaluate(prospect::kto{}, u.in(), {.z = 0.5}, u.out());
  CHECK(m.nonfinite.sum == 1);
  CHECK(m.first_nonfinite == 5);
}
