// Gradients close to the smallest normal number: right, and without the subnormal numbers that take
// a processor a hundred cycles each.

#include <prospect/cpu/head.hpp>

#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

/// Counts what a processor would be slow for.
struct counting_gemm {
  std::atomic<std::int64_t>*steps, *subnormal;

  template <class R>
  void operator()(gemm_operand<R> a, gemm_operand<R> b, prospect::matrix_view<R> c,
                  bool accumulate) const {
    const auto at = [](const gemm_operand<R>& m, std::int64_t i, std::int64_t j) {
      return m.transposed ? m.matrix.row(j)[i] : m.matrix.row(i)[j];
    };
    const auto slow = [](R x) { return x != 0 && std::abs(x) < std::numeric_limits<R>::min(); };
    const std::int64_t inner = a.transposed ? a.matrix.rows : a.matrix.columns;
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t j = 0; j < c.columns; ++j) {
        R sum = 0;
        for (std::int64_t k = 0; k < inner; ++k) {
          sum = std::fma(at(a, i, k), at(b, k, j), sum);
          count += slow(sum) || slow(at(a, i, k)) ? 1 : 0;
        }
        c.row(i)[j] = accumulate ? c.row(i)[j] + sum : sum;
        count += slow(c.row(i)[j]) ? 1 : 0;
      }
    }
    *steps += c.rows * c.columns * inner;
    *subnormal += count;
  }
};

/// All but a few tokens of the vocabulary lie this far below those, in nats.
template <class S>
head_case<S> peaked(random_source& random, double from, double to, std::int64_t rank = 0) {
  head_case<S> c{random, {48, 16, 1100, rank}, true};
  for (std::size_t v = 0; v < c.bias.size(); ++v) {
    c.bias[v] = stored<S>(v < 3 ? 0 : -random.uniform(from, to));
  }
  for (std::int64_t v = 0; v < 1100; ++v) {
    c.weight.fill_row(v, [&](std::int64_t) { return random.normal(0.1); });
    if (rank > 0) c.lora_b.fill_row(v, [&](std::int64_t) { return random.normal(0.1); });
  }
  return c;
}

/// Relative to what is there, however little that is.
template <class S>
double relative_distance(const std::vector<S>& got, std::vector<double> want) {
  double most = 0;
  for (const double x : want) most = std::max(most, std::abs(x));
  std::vector<double> scaled;
  for (const S& x : got) scaled.push_back(static_cast<double>(prospect::load(x)) / most);
  for (double& x : want) x /= most;
  return distance(scaled, want);
}

}  // namespace

TEMPLATE_TEST_CASE("the head path forms hardly a subnormal number", "[head][subnormal]", float,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{751};
  const std::int64_t rank = GENERATE(0, 8);
  CAPTURE(random.seed(), rank);
  struct kind {
    double d, from, to;
  };
  for (const auto& [d, from, to] : {kind{1e-30, 0, 0},
                                    {1e-33, 0, 0},
                                    {1e-36, 0, 0},
                                    {1e-38, 0, 0},
                                    {1e-3, 85, 98},
                                    {1e-3, 75, 85},
                                    {1e-3, 78, 82},
                                    {1, 80, 95},
                                    {1, 85, 87},
                                    {1, 60, 110}}) {
    head_case<TestType> c = peaked<TestType>(random, from, to, rank);
    for (auto& x : c.d_token) x *= static_cast<R>(d);
    for (const head_schedule schedule : all_schedules) {
      CAPTURE(d, from, to, schedule);
      std::atomic<std::int64_t> steps{0}, subnormal{0};
      head_results<TestType> r{c.shape};
      run(c, r, schedule, r.gradients(), counting_gemm{&steps, &subnormal});
      CHECK(static_cast<double>(subnormal) < 2e-4 * static_cast<double>(steps));
    }
  }
}

TEMPLATE_TEST_CASE("very small coefficients scale the head's gradients exactly",
                   "[head][subnormal]", float, double) {
  random_source random{752};
  CAPTURE(random.seed());
  // Whose smallest probability is some 2^-20.
  head_case<TestType> c{random, {48, 16, 1100, 3}, true, {.temperature = 2}};
  constexpr int by = std::is_same_v<TestType, double> ? -990 : -100;
  constexpr auto least = std::numeric_limits<TestType>::min();
  for (const head_schedule schedule : trained_schedules) {
    CAPTURE(schedule);
    head_case<TestType> small = c;
    for (auto& x : small.d_token) x = std::ldexp(x, by);
    head_results<TestType> want{c.shape}, got{c.shape};
    run(c, want, schedule, want.gradients());
    run(small, got, schedule, got.gradients());
    std::int64_t wrong = 0, lost = 0;
    const auto compare = [&](TestType small_one, TestType x) {
      const TestType scaled = std::ldexp(x, by);
      if (std::abs(scaled) < least) {
        lost += x != 0 ? 1 : 0;
        wrong += std::abs(small_one) < least ? 0 : 1;
      } else {
        wrong += same_bits(small_one, scaled) ? 0 : 1;
      }
    };
    const auto g = got.weight.elements(), w = want.weight.elements();
    for (std::size_t i = 0; i < g.size(); ++i) compare(g[i], w[i]);
    const auto gh = got.hidden.elements(), wh = want.hidden.elements();
    for (std::size_t i = 0; i < gh.size(); ++i) compare(gh[i], wh[i]);
    const auto ga = got.lora_a.elements(), wa = want.lora_a.elements();
    for (std::size_t i = 0; i < ga.size(); ++i) compare(ga[i], wa[i]);
    const auto gb = got.lora_b.elements(), wb = want.lora_b.elements();
    for (std::size_t i = 0; i < gb.size(); ++i) compare(gb[i], wb[i]);
    CHECK(wrong == 0);
    CHECK(lost < 1000);
  }
}

TEMPLATE_TEST_CASE("gradients by far-off tokens are right", "[head][subnormal]", float, double) {
  random_source random{753};
  CAPTURE(random.seed());
  for (const double depth : {40.0, 70.0, 80.0}) {
    head_case<TestType> c = peaked<TestType>(random, depth, depth + 3, 2);
    // A target that is sure leaves nothing but gradients by the others.
    for (auto& y : c.targets) y = y == ignored_target ? y : 1;
    c.bias[0] = c.bias[2] = c.bias[5];
    const head_answer want{c};
    for (const head_schedule schedule : all_schedules) {
      CAPTURE(depth, schedule);
      head_results<TestType> r{c.shape};
      run(c, r, schedule, r.gradients());
      const auto& hidden = schedule == head_schedule::frozen ? want.d_hidden_unit : want.d_hidden;
      CHECK(relative_distance(r.hidden.elements(), hidden) <= 1e-4);
      if (schedule != head_schedule::frozen) {
        CHECK(relative_distance(r.weight.elements(), want.d_weight) <= 1e-4);
        CHECK(relative_distance(r.lora_a.elements(), want.d_lora_a) <= 1e-4);
        CHECK(relative_distance(r.lora_b.elements(), want.d_lora_b) <= 1e-4);
      }
    }
  }
}

TEST_CASE("sums near the largest number stay what they are when little is added",
          "[head][subnormal]") {
  random_source random{754};
  head_case<float> c{random, {48, 16, 1100, 2}, true};
  for (auto& x : c.d_token) x *= 1e-33F;
  for (const head_schedule schedule : trained_schedules) {
    CAPTURE(schedule);
    head_results<float> r{c.shape};
    for (std::int64_t v = 0; v < 1100; ++v) {
      r.weight.fill_row(v, [&](std::int64_t k) { return k == 3 ? 3e38 : 1e-20; });
      r.lora_b.fill_row(v, [&](std::int64_t) { return 3e38; });
      r.bias[v] = 3e38F;
    }
    for (int i = 0; i < 2; ++i) r.lora_a.fill_row(i, [](std::int64_t) { return -3e38; });
    auto before = r;
    run(c, r, schedule, r.gradients(true));
    CHECK(same_bits(r.weight.elements(), before.weight.elements()));
    CHECK(same_bits(r.lora_a.elements(), before.lora_a.elements()));
    CHECK(same_bits(r.lora_b.elements(), before.lora_b.elements()));
  }
}
