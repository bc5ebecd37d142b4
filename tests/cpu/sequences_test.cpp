// Phase 2 on the CPU: every loss over every storage type and layout against its oracle; rows that
// do not count, and rows that are not finite.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "cpu/sequence_checks.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

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

using testing::infinity;
using testing::not_a_number;

/// The back end under test.
struct cpu_sequences {
  template <class S, class L>
  prospect::paired_metrics operator()(const L& loss, paired_case<S>& c) const {
    return evaluate(loss, c.in(), c.out());
  }
  template <class S, class L>
  prospect::unpaired_metrics operator()(const L& loss, unpaired_case<S>& c,
                                        const prospect::reference_point& point) const {
    return evaluate(loss, c.in(), point, c.out());
  }
};
constexpr cpu_sequences on_cpu_rows;

const std::vector<std::int64_t> sizes{1, 2, 5, 33};

}  // namespace

// ----------------------------------------------------------------- every loss, dtype, and layout

TEMPLATE_TEST_CASE("paired losses agree with their oracle in every storage type and layout",
                   "[sequences]", float, double, bfloat16, float16) {
  random_source random{61};
  CAPTURE(random.seed());
  testing::for_each_type<testing::textbook_paired>([&](const auto& loss) {
    for (int round = 0; round < 6; ++round) {
      for (const std::int64_t n : sizes) {
        paired_case<TestType> c{random, n, round % 2 == 1};
        testing::check_paired(on_cpu_rows, loss, c);
      }
    }
  });
}

TEMPLATE_TEST_CASE("unpaired losses agree with their oracle in every storage type and layout",
                   "[sequences]", float, double, bfloat16, float16) {
  random_source random{62};
  CAPTURE(random.seed());
  testing::for_each_type<testing::textbook_unpaired>([&](auto loss) {
    loss.desirable_weight = 1.5;
    loss.undesirable_weight = 0.75;
    for (int round = 0; round < 6; ++round) {
      for (const std::int64_t n : sizes) {
        unpaired_case<TestType> c{random, n, round % 2 == 1};
        testing::check_unpaired(on_cpu_rows, loss, c, round * 0.75);
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
  for (const double rubbish : {not_a_number, -infinity, infinity}) {
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
      testing::check_unpaired(on_cpu_rows, prospect::kto{}, u, z);
    }
  }
}

TEST_CASE("a non-finite row is reported, and stays alone", "[sequences]") {
  random_source random{69};
  CAPTURE(random.seed());
  for (const double special : {not_a_number, infinity, -infinity}) {
    const auto bad = static_cast<float>(special);
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
