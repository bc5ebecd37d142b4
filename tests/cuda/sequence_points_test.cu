// Reference points on CUDA where something is missing or no number: what is left out, counted,
// refused or reported. And what couples the rows of a batch at its edges: the clamp at exactly 0,
// rows that are empty.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cuda/sequence_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::normaliser;
using prospect::observation;
using prospect::reference_point;
using testing::device_array;
using testing::infinity;
using testing::near;
using testing::not_a_number;
using testing::on_device_completions;
using testing::paired_case;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::sequences_on_cuda;
using testing::unpaired_case;
using testing::with_scratch;

bool says(const char* problem, std::string_view what) {
  return problem != nullptr && std::string_view{problem}.find(what) != std::string_view::npos;
}

/// n completions of one number each, in a row of their own.
unpaired_case<float> completions(const std::vector<float>& ratios,
                                 const std::vector<std::uint8_t>& desirable) {
  random_source random{401};
  unpaired_case<float> c{random, static_cast<std::int64_t>(ratios.size()), false};
  for (std::size_t k = 0; k < ratios.size(); ++k) {
    const auto i = static_cast<std::int64_t>(k);
    c.policy[i] = ratios[k];
    c.reference[i] = 0;
    c.desirable[i] = desirable[k];
  }
  return c;
}

/// Mismatched rows on the device.
struct device_mismatched {
  on_device_completions<float> rows;
  device_array<observation> observed{1};

  explicit device_mismatched(unpaired_case<float>& c) : rows{c} {}
  gpu::mismatched_batch<float> batch() const {
    return {.policy = rows.policy.view(),
            .reference = rows.reference.view(),
            .tokens = rows.tokens.view(),
            .observed = observed.data()};
  }
  observation seen() const { return observed.host()[0]; }
};

bool same(const observation& a, const observation& b) {
  return a.sum == b.sum && a.count == b.count && a.nonfinite == b.nonfinite &&
         a.first_nonfinite == b.first_nonfinite;
}

}  // namespace

// -------------------------------------------------------------------------- what is not finite

TEST_CASE("a mismatched row that is not finite is left out and counted") {
  random_source random{402};
  unpaired_case<float> c{random, 33, true};
  unpaired_case<float> other{random, 57, true};
  for (std::int64_t i = 0; i < 57; ++i) other.tokens[i] = i == 5 ? 0 : 3;
  other.policy[5] = not_a_number;  // not scored
  for (const double bad : {not_a_number, infinity, -infinity}) {
    CAPTURE(bad);
    unpaired_case<float> spoilt = other;
    spoilt.policy[40] = static_cast<float>(bad);
    spoilt.reference[11] = static_cast<float>(bad);
    const observation want = prospect::cpu::mismatched_kl<float>(
        spoilt.in().policy, spoilt.in().reference, spoilt.in().tokens);
    REQUIRE(want.count == 54);
    const device_mismatched m{spoilt};
    require_success(
        with_scratch([&](scratch space) { return gpu::mismatched_kl(m.batch(), space, nullptr); }));
    const observation seen = m.seen();
    CHECK(near(seen.sum, want.sum, 1e-12L));
    CHECK(seen.count == want.count);
    CHECK(seen.nonfinite == 2);
    CHECK(seen.first_nonfinite == 11);

    const auto by_value = sequences_on_cuda(prospect::kto{}, c, reference_point::from(seen));
    const auto first = testing::all_outputs<float>(c);
    const auto by_batch = sequences_on_cuda(prospect::kto{}, c, m.batch());
    CHECK(same_bits(first, testing::all_outputs<float>(c)));
    CHECK(testing::same_metrics(by_value, by_batch));
    CHECK(by_batch.nonfinite.sum == 0);
    CHECK(same(m.seen(), seen));
  }
}

TEST_CASE("an observation that is not finite spoils what depends on it, and is reported") {
  random_source random{403};
  unpaired_case<float> c{random, 19, true};
  const auto clean = sequences_on_cuda(prospect::kto_zero{}, c, reference_point{});
  const auto without_z = testing::all_outputs<float>(c);
  const double big = 1e300;
  for (const prospect::sum_count seen : {prospect::sum_count{not_a_number, 3},
                                         {infinity, 3},
                                         {-infinity, 3},
                                         {3, not_a_number},
                                         {3, infinity},
                                         {3, -1},
                                         {big, 1}}) {
    CAPTURE(seen.sum, seen.count);
    const device_array<prospect::sum_count> observed{std::vector{seen}};
    const auto m = sequences_on_cuda(prospect::kto{}, c, gpu::observed_point{observed.data()});
    CHECK(m.loss.count == clean.loss.count);
    CHECK(m.nonfinite.sum == m.loss.count);
    CHECK(m.first_nonfinite >= 0);
    CHECK(std::isnan(m.total));
    CHECK(m.kl.count == 1);
    CHECK(std::isnan(m.kl.sum));
    for (std::int64_t i = 0; i < 19; ++i) {
      CAPTURE(i);
      CHECK(std::isnan(c.loss[i]) == (c.tokens[i] > 0));
      CHECK(std::isnan(c.d_policy[i]) == (c.tokens[i] > 0));
    }
    // A loss that reads no point loses nothing.
    const auto zero =
        sequences_on_cuda(prospect::kto_zero{}, c, gpu::observed_point{observed.data()});
    CHECK(same_bits(without_z, testing::all_outputs<float>(c)));
    CHECK(testing::same_metrics(zero, clean));
  }
}

TEST_CASE("a point that is not finite is refused where the host sees it") {
  random_source random{404};
  unpaired_case<float> c{random, 5, false};
  const on_device_completions<float> d{c};
  const auto evaluate = [&](const reference_point& point) {
    return gpu::evaluate(prospect::kto{}, d.in(), point, d.out(), normaliser::mean(), nullptr, {},
                         nullptr);
  };
  for (const double bad : {not_a_number, infinity, -infinity}) {
    CHECK(says(gpu::problem(reference_point{.z = bad}), "reference_point"));
    CHECK(evaluate({.z = bad}) == cudaErrorInvalidValue);
    CHECK(evaluate({.z = 0, .raw = bad}) == cudaErrorInvalidValue);
  }
  CHECK(gpu::problem(reference_point{.z = 1e300, .raw = 1e300}) == nullptr);
  CHECK(evaluate({.z = 1e300, .raw = 1e300}) == cudaErrorInvalidValue);  // infinite in fp32
}

TEST_CASE("a loss that reads no point reports none") {
  random_source random{405};
  unpaired_case<float> c{random, 9, false};
  const auto zero =
      sequences_on_cuda(prospect::kto_zero{}, c, reference_point{.z = 123, .raw = 123});
  CHECK(!zero.kl.present());
  CHECK(!zero.kl_unclamped.present());
  const auto kto = sequences_on_cuda(prospect::kto{}, c, reference_point{.z = 123, .raw = 123});
  CHECK(kto.kl.mean() == 123);
}

TEST_CASE("a margin that is infinite gives what the formula tends to") {
  random_source random{406};
  paired_case<float> c{random, 4, false};
  for (std::int64_t i = 0; i < 4; ++i) c.reference_chosen[i] = c.reference_rejected[i] = 0;
  c.policy_chosen[0] = infinity;
  c.policy_rejected[1] = infinity;
  const auto m = sequences_on_cuda(prospect::dpo{}, c);
  CHECK(same_bits(c.loss[0], 0.0F));
  CHECK(c.d_chosen[0] == 0);
  CHECK(c.d_rejected[0] == 0);
  CHECK(c.loss[1] == infinity);
  CHECK(near(c.d_chosen[1], -0.1L / 4, 2e-7L));
  CHECK(m.nonfinite.sum == 2);
}

TEST_CASE("what is no number in the rejected side alone is found") {
  random_source random{407};
  for (const double bad : {not_a_number, infinity, -infinity}) {
    for (const bool reference : {false, true}) {
      CAPTURE(bad, reference);
      paired_case<float> c{random, 11, false};
      (reference ? c.reference_rejected : c.policy_rejected)[7] = static_cast<float>(bad);
      const auto m = sequences_on_cuda(prospect::hinge{}, c);
      CHECK(m.nonfinite.sum == 1);
      CHECK(m.first_nonfinite == 7);
    }
  }
}

// ------------------------------------------------------------------------------ what is missing

TEST_CASE("mismatched rows that were not given are an error, and none that is scored is z = 0") {
  random_source random{408};
  unpaired_case<float> c{random, 9, false};
  const on_device_completions<float> d{c};
  const gpu::mismatched_batch<float> forgotten{};
  CHECK(says(gpu::problem(forgotten), "mismatched policy is missing"));
  CHECK(gpu::evaluate(prospect::kto{}, d.in(), forgotten, d.out(), normaliser::mean(), nullptr, {},
                      nullptr) == cudaErrorInvalidValue);
  const device_array<observation> observed(1);
  CHECK(gpu::mismatched_kl<float>({.observed = observed.data()}, {}, nullptr) ==
        cudaErrorInvalidValue);

  unpaired_case<float> other{random, 1, false};  // micro-batch 1: nothing to pair
  other.tokens[0] = 0;
  other.policy[0] = not_a_number;
  const device_mismatched m{other};
  sequences_on_cuda(prospect::kto{}, c, reference_point{});
  const auto want = testing::all_outputs<float>(c);
  const auto metrics = sequences_on_cuda(prospect::kto{}, c, m.batch());
  CHECK(same_bits(want, testing::all_outputs<float>(c)));
  CHECK(!metrics.kl.present());
  CHECK(!metrics.kl_unclamped.present());
  CHECK(same(m.seen(), observation{}));
}

// ------------------------------------------------------------------------------- at the edges

TEST_CASE("the clamp passes the gradient at a mean of exactly 0") {
  // Each class sees 0: sigmoid' = 1/4, and the other class's slope comes on top.
  unpaired_case<float> c = completions({2, -2, 0}, {1, 1, 0});
  const auto m = sequences_on_cuda(prospect::kto{}, c, prospect::cross_class{});
  CHECK(m.kl.count == 2);
  CHECK(m.kl.sum == 0);
  // d of the undesirable completion: own 1/4, attached 2 sigmoid'(0.2) from the desirable ones.
  const long double slope = 1 / (2 + std::exp(0.2L) + std::exp(-0.2L));
  CHECK(near(c.d_policy[2], 0.1L * (0.25L + 2 * slope) / 3, 4e-7L));
  for (const std::int64_t i : {0, 1}) {
    CHECK(near(c.d_policy[i], -0.1L * (slope + 0.25L / 2) / 3, 4e-7L));
  }
  // A hair below, nothing is attached.
  unpaired_case<float> below = completions({2, -2.00001F, 0}, {1, 1, 0});
  sequences_on_cuda(prospect::kto{}, below, prospect::cross_class{});
  CHECK(near(below.d_policy[0], -0.1L * slope / 3, 4e-7L));
}

TEST_CASE("an attached slope does not reach rows without tokens") {
  for (const std::int64_t n : {40, 4140}) {
    random_source random{409};
    unpaired_case<float> c{random, n, false, false};
    for (std::int64_t i = 0; i < n; ++i) {
      c.reference[i] = c.policy[i] - 3;  // both means are above 0
      if (i % 5 == 1) c.tokens[i] = 0;
    }
    unpaired_case<float> twin = c;
    prospect::cpu::evaluate(prospect::kto{}, twin.in(), prospect::cross_class{}, twin.out());
    sequences_on_cuda(prospect::kto{}, c, prospect::cross_class{});
    for (std::int64_t i = 0; i < n; ++i) {
      if (i % 5 == 1) REQUIRE(same_bits(c.d_policy[i], 0.0F));
      REQUIRE(near(c.d_policy[i], twin.d_policy[i], 4e-6L, 1e-12L));
      if (i % 5 != 1) REQUIRE(c.d_policy[i] != 0);
    }
  }
}
