// The archive's loops over the whole line, in every instruction set this machine has: losses that
// are nothing but a primitive, with their derivatives, are within its 2 ulp in fp32.

#include <kernels/loops.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/any.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "core/float_sweep.hpp"
#include "kernels/sets.hpp"
#include "oracle/scalar.hpp"

namespace {

namespace pk = prospect::kernels;
using testing::ulps;
using testing::worst_float;

/// What two losses give at x: DPO at a margin x, and KTO's thumb up at an advantage x.
template <class R>
struct values {
  R softplus, minus_sigmoid, sigmoid, minus_slope;
};
/// The worst of each.
using worst_values = std::array<worst_float, 4>;

values<double> expected(float x) {
  const double minus = -static_cast<double>(x);
  return {oracle::softplus(minus), -oracle::sigmoid(minus), oracle::sigmoid(minus),
          -oracle::sigmoid_slope(minus)};
}

std::vector<values<float>> computed(pk::isa set, const std::vector<float>& x) {
  const std::vector<float> none(x.size());
  const std::vector<std::uint8_t> up(x.size(), 1);
  std::vector<float> dpo(x.size()), d_dpo(x.size()), kto(x.size()), d_kto(x.size());
  prospect::serial_executor on;
  prospect::cpu::detail::evaluate_pairs<float>(pk::loops_for<float, prospect::any_paired>(set),
                                               prospect::any_paired{prospect::dpo{.beta = 1}},
                                               {.policy_chosen = x,
                                                .policy_rejected = none,
                                                .reference_chosen = none,
                                                .reference_rejected = none},
                                               {.loss = dpo, .d_policy_chosen = d_dpo},
                                               prospect::normaliser::sum(), on);
  prospect::cpu::detail::evaluate_completions<float>(
      pk::loops_for<float, prospect::any_unpaired>(set),
      prospect::any_unpaired{prospect::kto{.beta = 1}},
      {.policy = x, .reference = none, .desirable = up}, prospect::constant_point(0),
      {.loss = kto, .d_policy = d_kto}, prospect::normaliser::sum(), on);
  std::vector<values<float>> all;
  for (std::size_t i = 0; i < x.size(); ++i) all.push_back({dpo[i], d_dpo[i], kto[i], d_kto[i]});
  return all;
}

void keep_worse(worst_values& worst, const values<float>& got, const values<double>& want,
                float x) {
  testing::detail::keep_worse(worst[0], ulps(got.softplus, want.softplus), x);
  testing::detail::keep_worse(worst[1], ulps(got.minus_sigmoid, want.minus_sigmoid), x);
  testing::detail::keep_worse(worst[2], ulps(got.sigmoid, want.sigmoid), x);
  testing::detail::keep_worse(worst[3], ulps(got.minus_slope, want.minus_slope), x);
}

/// The worst over finite x, for each instruction set.
std::vector<worst_values> worst_at(const std::vector<pk::isa>& sets, const std::vector<float>& x) {
  std::vector<worst_values> worst(sets.size());
  std::vector<std::vector<values<float>>> got;
  for (const pk::isa set : sets) got.push_back(computed(set, x));
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!std::isfinite(x[i])) continue;
    const values<double> want = expected(x[i]);
    for (std::size_t k = 0; k < sets.size(); ++k) keep_worse(worst[k], got[k][i], want, x[i]);
  }
  return worst;
}

void check(const std::vector<worst_values>& worst) {
  REQUIRE(!worst.empty());
  for (std::size_t set = 0; set < worst.size(); ++set) {
    for (std::size_t value = 0; value < worst[set].size(); ++value) {
      CAPTURE(set, value, worst[set][value].at);
      CHECK(worst[set][value].error <= 2);
    }
  }
}

}  // namespace

TEST_CASE("every instruction set is within 2 ulp, densely sampled", "[loops]") {
  check(worst_at(testing::sets_of_this_machine(), testing::detail::dense_floats()));
}

TEST_CASE("every instruction set is within 2 ulp on all 2^32 floats", "[loops][.exhaustive]") {
  constexpr std::uint64_t part = 1U << 16, end = 1ULL << 32;
  const std::vector<pk::isa> sets = testing::sets_of_this_machine();
  std::vector<worst_values> worst(sets.size());
  std::atomic<std::uint64_t> next{0};
  std::mutex guard;
  const auto work = [&] {
    std::vector<float> x(part);
    for (std::uint64_t first; (first = next.fetch_add(part)) < end;) {
      for (std::uint64_t i = 0; i < part; ++i) {
        x[i] = std::bit_cast<float>(static_cast<std::uint32_t>(first + i));
      }
      const std::vector<worst_values> here = worst_at(sets, x);
      const std::lock_guard lock{guard};
      for (std::size_t k = 0; k < sets.size(); ++k) {
        for (std::size_t v = 0; v < here[k].size(); ++v) {
          testing::detail::keep_worse(worst[k][v], here[k][v].error, here[k][v].at);
        }
      }
    }
  };
  {
    std::vector<std::jthread> threads;
    for (unsigned i = 0; i < std::max(1U, std::thread::hardware_concurrency()); ++i) {
      threads.emplace_back(work);
    }
  }
  check(worst);
}
