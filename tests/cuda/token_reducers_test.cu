// Token reducers, WPO's weights and what pairs have in common on the device, against the host.
#include <prospect/cpu/token_reducers.hpp>
#include <prospect/cuda/token_reducers.cuh>

#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cuda/token_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

namespace cpu = prospect::cpu;
namespace gpu = prospect::cuda;
using prospect::ignored_target;
using prospect::sequence_layout;
using testing::device_array;
using testing::random_source;
using testing::require_success;
using testing::same_bits;

}  // namespace

TEST_CASE("reducers and WPO's weights on the device are those of the host") {
  random_source random{703};
  CAPTURE(random.seed());
  // Of no length, of one row, of a tile and around it, and of several with most tokens masked.
  const std::vector<std::int64_t> lengths{3, 0, 1, 256, 257, 700};
  std::vector<std::int32_t> begins, ends, targets, public_lengths{2, 0, 1, 200, 30, 310};
  std::vector<std::uint8_t> mask;
  std::vector<float> policy, squares;
  std::vector<double> reference;
  const auto fill = [&](std::int64_t count, bool outside) {
    for (std::int64_t k = 0; k < count; ++k) {
      targets.push_back(random.chance(0.8) ? 1 : static_cast<std::int32_t>(ignored_target));
      mask.push_back(random.chance(0.8) ? 1 : 0);
      const bool scored = !outside && targets.back() == 1 && mask.back() == 1;
      const auto nan = std::numeric_limits<float>::quiet_NaN();
      policy.push_back(scored ? static_cast<float>(-std::abs(random.normal(3))) : nan);
      const double u = random.chance(0.2) ? 0 : random.chance(0.2) ? 1.5 : random.normal(1.5);
      reference.push_back(double{policy.back()} - u);
      squares.push_back(scored ? static_cast<float>(random.uniform(0.01, 1)) : nan);
    }
  };
  for (const std::int64_t length : lengths) {
    fill(random.integer(0, 2), true);
    begins.push_back(static_cast<std::int32_t>(targets.size()));
    fill(length, false);
    ends.push_back(static_cast<std::int32_t>(targets.size()));
  }
  fill(2, true);
  const std::vector<double> d{0.5, -2, 0.25, 1e-3, -1, 3};
  const device_array<std::int32_t> there_begins{begins}, there_ends{ends}, y{targets},
      there_public{public_lengths};
  const device_array<std::uint8_t> there_mask{mask};
  const device_array<float> p{policy}, s{squares};
  const device_array<double> r{reference}, there_d{d}, sums(6);
  const device_array<std::int32_t> tokens(6);
  const device_array<float> d_token(targets.size());
  const auto here = sequence_layout::ranges(begins, ends);
  const auto there = sequence_layout::ranges(there_begins.input(), there_ends.input());

  const auto check = [&](const prospect::token_reducer& host, prospect::token_reducer device) {
    device.log_prob = p.input();
    if (!host.reference.empty()) device.reference = r.input();
    if (!host.public_tokens.empty()) device.public_tokens = there_public.input();
    std::vector<double> want(6);
    std::vector<std::int32_t> want_tokens(6);
    std::vector<float> want_token(targets.size());
    cpu::sequence_sums(host, targets, here, {.log_prob = want, .tokens = want_tokens}, mask);
    cpu::spread(host, d, targets, here, want_token, mask);
    require_success(gpu::sequence_sums(device, y.input(), there,
                                       {.log_prob = sums.row(), .tokens = tokens.row()},
                                       there_mask.input(), nullptr));
    require_success(gpu::spread(device, there_d.input(), y.input(), there, d_token.row(),
                                there_mask.input(), nullptr));
    testing::synchronise();
    CHECK(tokens.host() == want_tokens);
    const auto got = sums.host();
    for (std::size_t i = 0; i < 6; ++i) CHECK(testing::near(got[i], want[i], 1e-13L, 1e-13L));
    CHECK(same_bits(d_token.host(), want_token));
  };
  prospect::token_reducer ld{.log_prob = policy, .public_tokens = public_lengths, .ld_alpha = 0.3};
  check(ld, ld);
  ld.ld_alpha = 0;
  check(ld, ld);
  auto all = prospect::token_reducer::humanline(policy, reference);
  check(all, all);
  all.count_nonzero = true;
  all.public_tokens = public_lengths;
  all.ld_alpha = 0.75;
  check(all, all);

  std::vector<double> weight(6), of_pairs(3);
  cpu::wpo_weights(policy, squares, targets, here, weight, mask);
  require_success(gpu::wpo_weights(p.input(), s.input(), y.input(), there, sums.row(),
                                   there_mask.input(), nullptr));
  cpu::pair_weights(weight, prospect::sequence_pairs::halves(), of_pairs);
  const device_array<double> there_pairs(3);
  require_success(gpu::pair_weights(sums.input(), prospect::sequence_pairs::halves(),
                                    there_pairs.row(), nullptr));
  testing::synchronise();
  const auto got = sums.host();
  for (std::size_t i = 0; i < 6; ++i) CHECK(testing::near(got[i], weight[i], 1e-13L));
  const auto got_pairs = there_pairs.host();
  for (std::size_t i = 0; i < 3; ++i) CHECK(testing::near(got_pairs[i], of_pairs[i], 1e-13L));
}

TEST_CASE("pairs on the device: common lengths, products, and what names no sequence") {
  const std::vector<std::int32_t> counts{3, 0, 9, 5, 7, 9};
  const device_array<std::int32_t> tokens{counts}, out(6);
  const auto in_pairs = [&](const prospect::sequence_pairs& pairs) {
    require_success(gpu::public_tokens(tokens.input(), pairs, out.row(), nullptr));
    testing::synchronise();
    return out.host();
  };
  CHECK(in_pairs(prospect::sequence_pairs::halves()) ==
        std::vector<std::int32_t>{3, 0, 9, 3, 0, 9});
  // Sequence 0 is in two pairs; the partner of sequence 2 is none.
  const device_array<std::int64_t> chosen{{4, 2, 0}}, rejected{{0, 6, 5}};
  const auto lying = prospect::sequence_pairs::indexed(chosen.input(), rejected.input());
  CHECK(in_pairs(lying) == std::vector<std::int32_t>{-1, 0, -1, 5, 3, 3});
  const auto right =
      prospect::sequence_pairs::indexed(chosen.input().slice(0, 1), rejected.input().slice(0, 1));
  CHECK(in_pairs(right) == std::vector<std::int32_t>{3, 0, 9, 5, 3, 9});

  const device_array<double> weight{{2, 3, 5, 7, 11, 13}}, products(3);
  require_success(gpu::pair_weights(weight.input(), lying, products.row(), nullptr));
  testing::synchronise();
  CHECK(products.host()[0] == 22);
  CHECK(std::isnan(products.host()[1]));
  CHECK(products.host()[2] == 26);

  // A length that is none spoils its own sequence.
  const device_array<float> log_prob{{-1, -2}};
  const device_array<std::int32_t> targets{{0, 0}}, lengths{{-1, 1}};
  const device_array<double> sums(2);
  prospect::token_reducer by{.log_prob = log_prob.input()};
  by.public_tokens = lengths.input();
  require_success(gpu::sequence_sums(by, targets.input(), sequence_layout::padded(2, 1),
                                     {.log_prob = sums.row()}, {}, nullptr));
  testing::synchronise();
  CHECK(std::isnan(sums.host()[0]));
  CHECK(sums.host()[1] == -2);

  // What shows without a look at the device is refused.
  const auto layout = sequence_layout::padded(2, 1);
  const auto refused = [&](const prospect::token_reducer& wrong) {
    return gpu::sequence_sums(wrong, targets.input(), layout, {.log_prob = sums.row()}, {},
                              nullptr) == cudaErrorInvalidValue &&
           gpu::spread(wrong, sums.input(), targets.input(), layout, sums.row(), {}, nullptr) ==
               cudaErrorInvalidValue;
  };
  by.ld_alpha = 2;
  CHECK(refused(by));
  CHECK(refused({}));
  CHECK(refused({.log_prob = log_prob.input(), .log_epsilon_R = 1.5}));
  CHECK(gpu::pair_weights(weight.input(), lying, sums.row(), nullptr) == cudaErrorInvalidValue);
  CHECK(gpu::public_tokens(tokens.input(), lying, lengths.row(), nullptr) == cudaErrorInvalidValue);
  CHECK(gpu::wpo_weights(log_prob.input(), weight.input(), targets.input(), layout, sums.row(), {},
                         nullptr) == cudaErrorInvalidValue);
}
