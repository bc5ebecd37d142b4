// The orders that docs/reduction_order.md writes down, added up by hand: digits are lost on the
// way, differently in every other order. And a batch that must not be cut: a loss that measures
// its own.
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/token/grpo.hpp>
#include <prospect/losses/unpaired/kto.hpp>

#include <cmath>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/rows.hpp"
#include "oracle/simple_kto.hpp"
#include "random.hpp"

namespace {

using prospect::normaliser;
using prospect::sequence_layout;
using prospect::strided_span;
using testing::near;
using testing::random_source;
using testing::same_bits;

/// Eight sums, of every eighth number.
struct lanes {
  double of[8] = {};
  std::int64_t seen = 0;

  void add(double x) { of[seen++ % 8] += x; }
  double total() const {
    return ((of[0] + of[4]) + (of[2] + of[6])) + ((of[1] + of[5]) + (of[3] + of[7]));
  }
};

/// Numbers of sizes that swallow each other.
double any_size(random_source& random) {
  return std::ldexp(random.normal(1), static_cast<int>(random.integer(0, 60)));
}

}  // namespace

TEST_CASE("rows of a batch: lanes of a piece, pieces lane by lane, then the lanes", "[order]") {
  random_source random{5101};
  CAPTURE(random.seed());
  for (const std::int64_t n : {7, 4096, 4097, 10'007}) {
    CAPTURE(n);
    std::vector<double> policy;
    for (std::int64_t i = 0; i < n; ++i) policy.push_back(any_size(random));
    const std::vector<double> reference(policy.size());
    lanes all;
    for (std::int64_t first = 0; first < n; first += 4096) {
      lanes piece;
      for (std::int64_t i = first; i < n && i < first + 4096; ++i) {
        piece.add(policy[static_cast<std::size_t>(i)]);
      }
      for (int k = 0; k < 8; ++k) all.of[k] += piece.of[k];
    }
    CHECK(same_bits(prospect::cpu::mismatched_kl(policy, reference).sum, all.total()));
  }
}

TEST_CASE("tokens of a loss of tokens: lanes of a sequence, then sequences, then runs of them",
          "[order]") {
  const auto advantages = [](const std::vector<double>& advantage, const sequence_layout& layout,
                             const std::vector<std::uint8_t>& mask) {
    const std::vector<double> policy(advantage.size(), -1);
    return prospect::cpu::evaluate(
               prospect::grpo{},
               {.policy = policy, .token_advantage = advantage, .mask = mask, .layout = layout}, {},
               normaliser::sum())
        .advantages.sum;
  };
  CHECK(advantages({1e16, 1, 1, 1, -1e16, 1, 1, 1}, sequence_layout::padded(2, 4), {}) == 4);

  random_source random{5102};
  CAPTURE(random.seed());
  for (const std::int64_t sequences : {5, 127, 128, 300}) {  // runs of 1, 1, 2 and 3
    CAPTURE(sequences);
    const std::int64_t run = sequences / 128 + 1;
    std::vector<double> advantage;
    std::vector<std::uint8_t> mask;
    std::vector<std::int64_t> offsets{0};
    double want = 0, of_run = 0;
    for (std::int64_t i = 0; i < sequences; ++i) {
      lanes sequence;
      for (std::int64_t t = random.integer(0, 600); t > 0; --t) {
        advantage.push_back(any_size(random));
        mask.push_back(random.chance(0.8) ? 1 : 0);
        if (mask.back() != 0) sequence.add(advantage.back());
      }
      offsets.push_back(static_cast<std::int64_t>(advantage.size()));
      of_run += sequence.total();
      if ((i + 1) % run == 0 || i + 1 == sequences) {
        want += of_run;
        of_run = 0;
      }
    }
    CHECK(same_bits(advantages(advantage, sequence_layout::packed(offsets), mask), want));
  }
}

TEST_CASE("a loss that measures its batch is another one of a part of it", "[order]") {
  const std::vector<double> policy{-1, -2, -3, -4}, reference{-2, -2.5, -2, -5};
  const std::vector<std::uint8_t> desirable{1, 0, 1, 0};
  const strided_span<const double> p{policy}, r{reference};
  const strided_span<const std::uint8_t> up{desirable};
  std::vector<double> d(4);
  const auto rows = [&](std::int64_t first, std::int64_t count) {
    prospect::cpu::evaluate<double>(prospect::kto{},
                                    {.policy = p.slice(first, count),
                                     .reference = r.slice(first, count),
                                     .desirable = up.slice(first, count)},
                                    prospect::cross_class{},
                                    {.d_policy = strided_span<double>{d}.slice(first, count)},
                                    normaliser::over(4));
    return d[2];
  };
  const auto by_oracle = [](const oracle::simple_kto_batch& batch) {
    return oracle::simple_kto(batch, prospect::kto{}.beta, 1, 1).d_desirable.back();
  };
  const double whole = rows(0, 4), part = rows(2, 2);
  CHECK(near(whole, by_oracle({.desirable = {1, -1}, .undesirable = {0.5, 1}}), 1e-12L));
  CHECK(near(part, by_oracle({.desirable = {-1}, .undesirable = {1}}) / 2, 1e-12L));
  CHECK(near(whole, -0.012443, 1e-4L));
  CHECK(near(part, -0.006188, 1e-4L));
}
