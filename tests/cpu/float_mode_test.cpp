// The floating-point mode of a host's threads: whatever it is, results are the same bits, and it is
// found again as it was left.
#include <prospect/prospect.hpp>

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace {

using testing::same_bits;

/// The modes a host may be in: rounding, subnormal numbers taken for 0 (-ffast-math), and traps,
/// where what is inexact or no number ends the program.
void enter(int mode) {
  std::fesetround(mode == 1 ? FE_UPWARD : mode == 2 ? FE_TOWARDZERO : FE_TONEAREST);
#if defined(__SSE__)
  if (mode == 2 || mode == 3) _mm_setcsr(_mm_getcsr() | 0x8040);  // FTZ and DAZ
  if (mode == 4) _mm_setcsr(_mm_getcsr() & ~0x1fbfU);             // traps; nothing has happened yet
#endif
}
std::uint32_t here() {
#if defined(__SSE__)
  return _mm_getcsr() & 0xffc0;
#else
  return static_cast<std::uint32_t>(std::fegetround());
#endif
}

/// A host's own threads: every piece on a new one, in the mode that the host left it in.
struct hosts_threads {
  int mode;
  void run(std::int64_t n, prospect::task body) const {
    for (std::int64_t i = 0; i < n; ++i) {
      std::thread{[&] {
        enter(mode);
        const auto before = here();
        body(i);
        kept = kept && here() == before;
      }}.join();
    }
  }
  mutable bool kept = true;
};

struct results {
  std::vector<float> log_prob, entropy, gradient, deferred, scaled, d_token;
  std::vector<double> lse, sums, kl, loss, d, d_tokens, reduced, advantages;
  double total = 0, simple = 0, of_tokens = 0, of_ranks = 0;
};

constexpr std::int64_t row_count = 6, columns = 301;

/// Numbers that tell modes apart: thirds, and subnormal ones.
struct inputs {
  std::vector<float> logits;
  std::vector<double> reference;

  inputs() : logits(row_count * columns), reference(row_count) {
    testing::random_source random{11};
    for (float& x : logits) x = static_cast<float>(random.uniform(-90, 3) / 3);
    logits[5] = 1e-40F;
    for (double& x : reference) x = random.uniform(-9, -1) / 3;
  }
};

/// All that loops over data.
template <class E>
results all_phases(const inputs& in, E& on) {
  using namespace prospect;
  results r;
  std::vector<float> logits = in.logits;
  const std::vector<std::int32_t> targets{0, 5, 300, 7, ignored_target, 1};
  r.log_prob.resize(row_count), r.entropy.resize(row_count), r.lse.resize(row_count),
      r.d_token.resize(row_count);
  const matrix_view<float> x{logits.data(), row_count, columns};
  const token_options options{.temperature = 0.7, .soft_cap = 30};
  cpu::token_log_probs<float>(
      x, targets, {.log_prob = r.log_prob, .lse = r.lse, .entropy = r.entropy}, options, on);

  const auto layout = sequence_layout::padded(row_count, 1);
  r.sums.resize(row_count);
  cpu::sequence_sums<float>(r.log_prob, targets, layout, {.log_prob = r.sums});
  const std::vector<std::uint8_t> thumbs{1, 0, 1, 1, 0, 0};
  r.loss.resize(row_count), r.d.resize(row_count);
  const auto seen = cpu::mismatched_kl<double>(r.sums, in.reference, {}, on);
  r.kl = {seen.sum, seen.count};
  const unpaired_batch<double> batch{
      .policy = r.sums, .reference = in.reference, .desirable = thumbs};
  r.total = cpu::evaluate<double>(kto{}, batch, reference_point::from(seen),
                                  {.loss = r.loss, .d_policy = r.d}, normaliser::mean(), on)
                .total;
  r.simple = cpu::evaluate<double>(kto{}, batch, cross_class{}, {}, normaliser::mean(), on).total;

  cpu::spread<float>(r.d, targets, layout, r.d_token);
  r.deferred = logits;
  cpu::token_log_probs_and_gradient<float>({r.deferred.data(), row_count, columns}, targets, {},
                                           options, on);
  r.scaled = r.deferred;
  cpu::scale_rows<float>({r.scaled.data(), row_count, columns}, r.d_token, on);
  cpu::logits_gradient<float>(x, targets, r.log_prob, r.lse, r.d_token, options, on);
  r.gradient = logits;

  r.d_tokens.resize(row_count), r.reduced.resize(row_count), r.advantages.resize(row_count);
  cpu::grpo_advantages(in.reference, sequence_layout::padded(2, row_count / 2), r.advantages);
  r.of_tokens = cpu::evaluate(grpo{},
                              {.policy = r.sums,
                               .old = in.reference,
                               .token_advantage = r.advantages,
                               .layout = sequence_layout::padded(2, row_count / 2)},
                              {.d_policy = r.d_tokens}, normaliser::mean(), on)
                    .total;
  const std::vector<std::int32_t> all_scored(row_count, 0);
  cpu::sequence_sums(token_reducer::humanline(r.sums, in.reference), all_scored, layout,
                     {.log_prob = r.reduced}, {}, on);
  r.of_ranks = cpu::sum_over_ranks<double>(strided_span<const double>{in.reference});
  return r;
}

}  // namespace

TEST_CASE("no floating-point mode of a host changes a number", "[float_mode]") {
  const prospect::serial_executor plain;
  const inputs in;
  const results right = all_phases(in, plain);
  const int mode = GENERATE(1, 2, 3, 4);
  const bool own_threads = GENERATE(false, true);
  CAPTURE(mode, own_threads);

  results got;
  bool restored = false;
  const hosts_threads threads{mode};
  std::thread{[&] {  // so that the mode is not that of the checks below
    enter(mode);
    const auto before = here();
    got = own_threads ? all_phases(in, threads) : all_phases(in, plain);
    restored = here() == before;
  }}
      .join();
  CHECK(restored);
  CHECK(threads.kept);
  CHECK(same_bits(got.log_prob, right.log_prob));
  CHECK(same_bits(got.lse, right.lse));
  CHECK(same_bits(got.entropy, right.entropy));
  CHECK(same_bits(got.sums, right.sums));
  CHECK(same_bits(got.kl, right.kl));
  CHECK(same_bits(got.loss, right.loss));
  CHECK(same_bits(got.d, right.d));
  CHECK(same_bits(got.total, right.total));
  CHECK(same_bits(got.simple, right.simple));
  CHECK(same_bits(got.d_token, right.d_token));
  CHECK(same_bits(got.gradient, right.gradient));
  CHECK(same_bits(got.deferred, right.deferred));
  CHECK(same_bits(got.scaled, right.scaled));
  CHECK(same_bits(got.d_tokens, right.d_tokens));
  CHECK(same_bits(got.reduced, right.reduced));
  CHECK(same_bits(got.advantages, right.advantages));
  CHECK(same_bits(got.of_tokens, right.of_tokens));
  CHECK(same_bits(got.of_ranks, right.of_ranks));
}

TEST_CASE("what is counted on the host's own thread is the same in any mode", "[float_mode]") {
  using namespace prospect;
  struct counted {
    sum_count sum, pooled, state;
    weight_proposal weights;
    double factor = 0, mean = 0;
  };
  const auto count = [](int mode) {
    counted r;
    std::thread{[&] {
      enter(mode);
      ema_point average{0.9};
      pooled_point pool;
      for (const double x : {1.0 / 3, 1e-320, 2.0 / 7, 1e16}) {
        r.sum.add(x);
        const sum_count seen{.sum = x, .count = 3};
        average.add(seen);
        pool.add(seen);
      }
      r.pooled = pool.observed();
      r.state = average.state();
      r.mean = r.sum.mean();
      r.weights = propose_class_weights(7, 31);
      r.factor = normaliser::mean().factor(49);
    }}.join();
    return r;
  };
  const counted right = count(0);
  const int mode = GENERATE(1, 2, 3, 4);
  CAPTURE(mode);
  const counted got = count(mode);
  const auto same = [](const sum_count& a, const sum_count& b) {
    return same_bits(a.sum, b.sum) && same_bits(a.count, b.count);
  };
  CHECK(same(got.sum, right.sum));
  CHECK(same(got.pooled, right.pooled));
  CHECK(same(got.state, right.state));
  CHECK(same_bits(got.mean, right.mean));
  CHECK(same_bits(got.factor, right.factor));
  CHECK(same_bits(got.weights.low.undesirable, right.weights.low.undesirable));
  CHECK(same_bits(got.weights.low.desirable, right.weights.low.desirable));
  CHECK(same_bits(got.weights.high.desirable, right.weights.high.desirable));
  CHECK(same_bits(got.weights.unweighted_ratio, right.weights.unweighted_ratio));
}
