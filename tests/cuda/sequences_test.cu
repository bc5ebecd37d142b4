// Phase 2 on CUDA: every loss, storage type and point, against the textbook where it has a word to
// say and against the CPU otherwise.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/sequence_checks.hpp"
#include "cuda/sequence_cases.hpp"
#include "oracle/simple_kto.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::bfloat16;
using prospect::float16;
using prospect::reference_point;
using testing::device_array;
using testing::on_device_completions;
using testing::paired_case;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::sequences_on_cuda;
using testing::unpaired_case;
using testing::with_scratch;

/// What a user writes: ten lines, no line for a device.
struct exponential_loss {
  double beta = 0.1;
  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return prospect::exp(-beta * p.log_ratio_margin());
  }
};

std::vector<std::int64_t> sizes() {
  return testing::full_size() ? std::vector<std::int64_t>{1, 7, 131, 2049, 9001, 200000}
                              : std::vector<std::int64_t>{1, 7, 131};
}

}  // namespace

TEMPLATE_TEST_CASE("paired losses agree with their oracle on the device", "", float, double,
                   bfloat16, float16) {
  random_source random{161};
  CAPTURE(random.seed());
  testing::for_each_type<testing::textbook_paired>([&](const auto& loss) {
    for (const std::int64_t n : sizes()) {
      paired_case<TestType> c{random, n, n % 2 == 1};
      testing::check_paired(sequences_on_cuda, loss, c);
    }
  });
}

TEMPLATE_TEST_CASE("unpaired losses agree with their oracle on the device", "", float, double,
                   bfloat16, float16) {
  random_source random{162};
  CAPTURE(random.seed());
  testing::for_each_type<testing::textbook_unpaired>([&](auto loss) {
    loss.desirable_weight = 1.5;
    loss.undesirable_weight = 0.75;
    for (const std::int64_t n : sizes()) {
      unpaired_case<TestType> c{random, n, n % 2 == 1};
      testing::check_unpaired(sequences_on_cuda, loss, c, 0.75);
    }
  });
}

TEST_CASE("a loss of the user's own runs in the same kernel") {
  random_source random{163};
  paired_case<float> c{random, 131, true};
  paired_case<float> twin = c;
  const exponential_loss loss;
  const auto on_host = prospect::cpu::evaluate(loss, twin.in(), twin.out());
  const auto metrics = sequences_on_cuda(loss, c);
  CHECK(testing::near(metrics.total, on_host.total, 1e-6L));
  for (std::int64_t i = 0; i < 131; ++i) {
    CAPTURE(i);
    // The margin is rounded at 8 e^-margin's slope, on both sides.
    CHECK(testing::near(c.loss[i], twin.loss[i], 4e-6L));
    CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 4e-6L));
    CHECK(testing::near(c.d_rejected[i], twin.d_rejected[i], 4e-6L));
  }
}

TEST_CASE("a mixture runs in the same kernel, its next-token term divided by tokens") {
  random_source random{165};
  paired_case<float> c{random, 131, true};
  paired_case<float> twin = c;
  const auto loss = 0.8 * prospect::dpo{} + 0.2 * prospect::bco_pair{} + 1.0 * prospect::sft{};
  const auto on_host = prospect::cpu::evaluate(loss, twin.in(), twin.out());
  const auto metrics = sequences_on_cuda(loss, c);
  CHECK(testing::near(metrics.total, on_host.total, 1e-6L));
  for (std::int64_t i = 0; i < 131; ++i) {
    CAPTURE(i);
    CHECK(testing::near(c.loss[i], twin.loss[i], 4e-6L));
    CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 4e-6L));
    CHECK(testing::near(c.d_rejected[i], twin.d_rejected[i], 4e-6L));
  }
}

TEMPLATE_TEST_CASE("SimpleKTO on the device agrees with its oracle", "", float, double) {
  using S = TestType;
  random_source random{166};
  for (const double level : {-3.0, 0.0, 4.0}) {
    for (const std::int64_t n : {std::int64_t{2}, std::int64_t{24}, std::int64_t{131}}) {
      CAPTURE(level, n);
      unpaired_case<S> c{random, n, false};
      oracle::simple_kto_batch classes;
      for (std::int64_t i = 0; i < n; ++i) {
        c.desirable[i] = i == 0 || (i != 1 && random.chance(0.4)) ? 1 : 0;
        c.policy[i] = static_cast<S>(level + random.normal(4));
        c.reference[i] = 0;
        (c.desirable[i] != 0 ? classes.desirable : classes.undesirable).push_back(c.policy[i]);
      }
      const prospect::kto loss{.desirable_weight = 1.5};
      const auto metrics = sequences_on_cuda(loss, c, prospect::cross_class{});
      const auto want = oracle::simple_kto(classes, loss.beta, loss.desirable_weight);
      const oracle::real tolerance = 24 * std::numeric_limits<S>::epsilon();
      std::size_t up = 0;
      std::size_t down = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        CAPTURE(i);
        const bool desirable = c.desirable[i] != 0;
        const auto l = desirable ? want.desirable[up] : want.undesirable[down];
        const auto d = desirable ? want.d_desirable[up] : want.d_undesirable[down];
        (desirable ? up : down) += 1;
        CHECK(testing::near(c.loss[i], l, 0, tolerance));
        CHECK(testing::near(c.d_policy[i], d, 0, tolerance * loss.beta / static_cast<double>(n)));
      }
      CHECK(testing::near(metrics.total, want.loss, 0, tolerance));
      CHECK(metrics.kl.count == 2);
    }
  }
}

TEST_CASE("every provider of the same point gives the same bits") {
  random_source random{167};
  const std::int64_t n = 131;
  unpaired_case<float> c{random, n, true};
  for (const double shift : {-20.0, 2.0}) {  // clamped, and not
    CAPTURE(shift);
    unpaired_case<float> other{random, 57, true};
    for (std::int64_t i = 0; i < 57; ++i) {
      other.reference[i] = other.policy[i] - static_cast<float>(shift);
    }
    on_device_completions<float> o{other};
    const device_array<prospect::observation> observed(1);
    const gpu::mismatched_batch<float> batch{.policy = o.policy.view(),
                                             .reference = o.reference.view(),
                                             .tokens = o.tokens.view(),
                                             .observed = observed.data()};
    require_success(
        with_scratch([&](scratch space) { return gpu::mismatched_kl(batch, space, nullptr); }));
    const prospect::observation seen = observed.host()[0];
    const auto want = prospect::cpu::mismatched_kl<float>(other.in().policy, other.in().reference,
                                                          other.in().tokens);
    CHECK(seen.count == want.count);
    CHECK(testing::near(seen.sum, want.sum, 1e-12L));

    const prospect::kto loss;
    const reference_point point = reference_point::from(seen);
    CHECK((point.z > 0) == (shift > 0));
    const auto by_value = sequences_on_cuda(loss, c, point);
    const auto first = testing::all_outputs<float>(c);
    const auto by_observation = sequences_on_cuda(loss, c, gpu::observed_point{observed.data()});
    CHECK(same_bits(first, testing::all_outputs<float>(c)));
    const auto by_batch = sequences_on_cuda(loss, c, batch);
    CHECK(same_bits(first, testing::all_outputs<float>(c)));
    CHECK(testing::same_metrics(by_value, by_observation));
    CHECK(testing::same_metrics(by_value, by_batch));
    CHECK(by_batch.kl.mean() == point.z);
    CHECK(by_batch.kl_unclamped.mean() == point.raw);
  }
}

TEST_CASE("a class may be absent") {
  random_source random{168};
  unpaired_case<float> c{random, 9, false};
  for (std::int64_t i = 0; i < 9; ++i) c.desirable[i] = 1;
  const auto alone = sequences_on_cuda(prospect::kto{}, c, reference_point{});
  CHECK(alone.rewards_chosen.count == 9);
  CHECK(!alone.rewards_rejected.present());
  const auto cross = sequences_on_cuda(prospect::kto{}, c, prospect::cross_class{});
  CHECK(cross.kl.count == 1);  // the absent class offers no baseline
  CHECK(std::isfinite(cross.total));
  unpaired_case<float> twin = c;
  const auto want =
      prospect::cpu::evaluate(prospect::kto{}, twin.in(), prospect::cross_class{}, twin.out());
  for (std::int64_t i = 0; i < 9; ++i) {
    CHECK(testing::near(c.d_policy[i], twin.d_policy[i], 1e-6L, 1e-9L));
  }
  CHECK(testing::near(cross.total, want.total, 1e-6L));
}

TEST_CASE("an empty batch writes metrics that count nothing") {
  random_source random{169};
  paired_case<float> c{random, 0, false};
  const auto pairs = sequences_on_cuda(prospect::dpo{}, c);
  CHECK(testing::same_metrics(pairs, prospect::paired_metrics{}));
  unpaired_case<float> u{random, 0, false};
  const auto completions = sequences_on_cuda(prospect::kto{}, u, prospect::cross_class{});
  CHECK(testing::same_metrics(completions, prospect::unpaired_metrics{}));
}

TEST_CASE("a row without tokens is not read, and one that is not finite stays alone") {
  random_source random{170};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::int64_t n = 40;
  paired_case<float> c{random, n, false};
  const auto clean_metrics = sequences_on_cuda(prospect::dpo{}, c);
  paired_case<float> clean = c;
  for (auto* row : c.outputs()) row->block().assign(row->block().size(), testing::poison<float>());

  c.chosen_tokens[5] = 0;  // not counted, whatever is in it
  c.policy_chosen[5] = nan;
  c.reference_rejected[5] = infinity;
  c.policy_rejected[17] = nan;
  c.policy_chosen[30] = -infinity;
  const auto m = sequences_on_cuda(prospect::dpo{}, c);
  CHECK(m.loss.count == n - 1);
  CHECK(m.nonfinite.sum == 2);
  CHECK(m.nonfinite.count == n - 1);
  CHECK(m.first_nonfinite == 17);
  CHECK(std::isnan(m.total));
  CHECK(clean_metrics.first_nonfinite == -1);
  CHECK(same_bits(c.loss[5], 0.0F));
  CHECK(same_bits(c.d_chosen[5], 0.0F));
  CHECK(std::isnan(c.loss[17]));
  for (std::int64_t i = 0; i < n; ++i) {
    if (i == 5 || i == 17 || i == 30) continue;
    CAPTURE(i);
    CHECK(same_bits(c.loss[i], clean.loss[i]));
    // One row less in the mean.
    CHECK(testing::near(c.d_chosen[i], clean.d_chosen[i] * (40.0L / 39), 3e-7L));
  }
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());

  // SimpleKTO: a broken row of one class leaves the other class's point alone.
  unpaired_case<float> u{random, n, false};
  unpaired_case<float> v = u;
  v.policy[3] = nan;
  const auto whole = sequences_on_cuda(prospect::kto{}, v, prospect::cross_class{});
  CHECK(whole.nonfinite.sum == 1);
  CHECK(whole.first_nonfinite == 3);
  unpaired_case<float> twin = v;
  prospect::cpu::evaluate(prospect::kto{}, twin.in(), prospect::cross_class{}, twin.out());
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (i == 3) continue;
    CHECK(std::isfinite(v.d_policy[i]));
    CHECK(testing::near(v.d_policy[i], twin.d_policy[i], 4e-6L, 1e-9L));
  }
}

TEST_CASE("margins up to 1e30 are finite where the mathematics is") {
  testing::for_each_type<testing::textbook_paired>([&](const auto& loss) {
    using L = std::remove_cvref_t<decltype(loss)>;
    CAPTURE(std::string{L::name});
    random_source random{171};
    const std::vector<double> ratios{0, -0.5, 3, 20, -40, 250, -800, 1e10, -1e10, 1e30, -1e30};
    const auto count = static_cast<std::int64_t>(ratios.size());
    paired_case<float> c{random, count * count, false};
    for (std::int64_t i = 0; i < c.loss.size(); ++i) {
      c.policy_chosen[i] = static_cast<float>(ratios[static_cast<std::size_t>(i / count)]);
      c.policy_rejected[i] = static_cast<float>(ratios[static_cast<std::size_t>(i % count)]);
      c.reference_chosen[i] = c.reference_rejected[i] = 0;
    }
    sequences_on_cuda(loss, c);
    paired_case<float> twin = c;
    prospect::cpu::evaluate(loss, twin.in(), twin.out());
    for (std::int64_t i = 0; i < c.loss.size(); ++i) {
      CAPTURE(c.policy_chosen[i], c.policy_rejected[i]);
      CHECK(std::isfinite(c.loss[i]) == std::isfinite(twin.loss[i]));
      CHECK(testing::near(c.loss[i], twin.loss[i], 2e-6L, 1e-30L));
      CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 2e-6L, 1e-30L));
      CHECK(testing::near(c.d_rejected[i], twin.d_rejected[i], 2e-6L, 1e-30L));
    }
  });
}
