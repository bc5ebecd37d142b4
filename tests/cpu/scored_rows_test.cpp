// Which rows of a sequence are scored, whatever says so, and the blocks that they are handed out
// in; and that a pass that knows it beforehand gives what one gives that looks for itself.

#include <prospect/cpu/detail/scored_rows.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using prospect::index_row;
using prospect::mask_row;
using prospect::strided_span;
using prospect::cpu::detail::scored_rows;
using testing::random_source;

/// Flags of a sequence: a prompt before its completion, gaps in it or none, and what follows.
std::vector<bool> random_flags(random_source& random, std::int64_t rows) {
  const std::int64_t begin = random.chance(0.3) ? 0 : random.integer(0, rows);
  const std::int64_t end = random.chance(0.3) ? rows : random.integer(begin, rows);
  const double gaps = random.chance(0.5) ? 0 : random.uniform(0, 1) * random.uniform(0, 1);
  std::vector<bool> scored;
  for (std::int64_t i = 0; i < rows; ++i) {
    scored.push_back(i >= begin && i < end && !random.chance(gaps));
  }
  return scored;
}

/// A row that says the same by elements of any type, `stride` apart.
template <class T, class Element>
std::vector<T> elements_of(const std::vector<bool>& scored, std::int64_t stride,
                           const Element& element) {
  std::vector<T> row;
  for (const bool s : scored) {
    row.push_back(element(s));
    for (std::int64_t i = 1; i < stride; ++i) row.push_back(element(!s));
  }
  return row;
}
template <class T>
strided_span<const T> every(const std::vector<T>& row, std::int64_t stride) {
  return {row.data(), static_cast<std::int64_t>(row.size()) / stride, stride};
}

/// The run of the rows [first, last) and its blocks, against what the flags say row by row.
void check_scored(const index_row& targets, const mask_row& mask, const std::vector<bool>& scored,
                  std::int64_t first, std::int64_t last) {
  std::vector<std::int64_t> want;
  for (std::int64_t i = first; i < last; ++i) {
    if (scored[static_cast<std::size_t>(i)]) want.push_back(i);
  }
  const auto count = static_cast<std::int64_t>(want.size());
  const bool side_by_side = want.empty() || want.back() - want.front() + 1 == count;
  const scored_rows rows{targets, mask};
  const prospect::cpu::detail::scored_run run = rows.find(first, last);
  CHECK(run.count == count);
  CHECK(run.side_by_side() == side_by_side);
  if (side_by_side && !want.empty()) CHECK(run.first == want.front());
  if (!side_by_side) {
    std::int64_t pieces = 1;
    for (std::size_t i = 1; i < want.size(); ++i) pieces += want[i] != want[i - 1] + 1 ? 1 : 0;
    CHECK(run.first == -pieces);
  }

  std::vector<std::int64_t> got, sizes;
  prospect::cpu::detail::waiting_rows waiting;
  rows.for_each_block_of(run, first, last, waiting,
                         [&](const prospect::cpu::detail::scored_block& block) {
                           sizes.push_back(block.at.count);
                           for (std::int64_t i = 0; i < block.at.count; ++i)
                             got.push_back(block.row(i));
                         });
  CHECK(got == want);
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    CHECK(sizes[i] ==
          std::min<std::int64_t>(prospect::cpu::detail::block_size,
                                 count - std::int64_t(i) * prospect::cpu::detail::block_size));
  }
}

}  // namespace

TEST_CASE("flags in a word: any byte that is not 0") {
  random_source random{12};
  for (int trial = 0; trial < 500; ++trial) {
    const std::int64_t n = trial < 64 ? trial + 1 : random.integer(1, 64);
    std::vector<std::uint8_t> bytes;
    for (std::int64_t i = 0; i < n; ++i) {
      constexpr std::uint8_t some[] = {0, 0, 0, 1, 2, 0x40, 0x7f, 0x80, 0xff};
      bytes.push_back(some[random.integer(0, 8)]);
    }
    const std::uint64_t word = prospect::cpu::detail::word_of_bytes(bytes.data(), n);
    for (std::int64_t i = 0; i < 64; ++i) {
      const bool set = i < n && bytes[static_cast<std::size_t>(i)] != 0;
      CHECK(((word >> i) & 1) == (set ? 1U : 0U));
    }
  }
}

TEST_CASE("runs of flags in a word") {
  using runs = std::vector<std::pair<int, int>>;
  const auto runs_of_word = [](std::uint64_t word) {
    runs all;
    prospect::cpu::detail::for_each_run_of_flags(
        word, [&](int first, int n) { all.emplace_back(first, n); });
    return all;
  };
  CHECK(runs_of_word(0).empty());
  CHECK(runs_of_word(~std::uint64_t{0}) == runs{{0, 64}});
  CHECK(runs_of_word(1) == runs{{0, 1}});
  CHECK(runs_of_word(std::uint64_t{1} << 63) == runs{{63, 1}});
  CHECK(runs_of_word(0x7fffffffffffffffU) == runs{{0, 63}});
  CHECK(runs_of_word(0xfffffffffffffffeU) == runs{{1, 63}});
  CHECK(runs_of_word(0xc0000000000000a6U) == runs{{1, 2}, {5, 1}, {7, 1}, {62, 2}});
}

TEST_CASE("scored rows, by masks and targets of any kind") {
  random_source random{13};
  for (int trial = 0; trial < 300; ++trial) {
    const std::int64_t rows = random.integer(0, trial < 200 ? 1500 : 70);
    const std::vector<bool> scored = random_flags(random, rows);
    const std::int64_t first = random.chance(0.5) ? 0 : random.integer(0, rows);
    const std::int64_t last = random.chance(0.5) ? rows : random.integer(first, rows);
    const std::int64_t stride = random.integer(1, 3);
    CAPTURE(trial, rows, first, last, stride);
    const auto bytes = elements_of<std::uint8_t>(scored, stride, [&](bool s) {
      return static_cast<std::uint8_t>(s ? random.integer(1, 255) : 0);
    });
    const auto words =
        elements_of<std::int32_t>(scored, stride, [](bool s) { return s ? 0x10000 : 0; });
    const auto numbers = elements_of<float>(scored, stride, [&](bool s) {
      constexpr float yes[] = {1, -0.5F, std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::quiet_NaN()};
      return s ? yes[random.integer(0, 3)] : random.chance(0.5) ? -0.0F : 0.0F;
    });
    const auto narrow = elements_of<std::int32_t>(
        scored, stride, [&](bool s) { return s ? static_cast<int>(random.integer(0, 9)) : -100; });
    const auto wide = elements_of<std::int64_t>(
        scored, stride, [&](bool s) { return s ? std::int64_t{1} << 32 : std::int64_t{-100}; });
    check_scored({}, every(bytes, stride), scored, first, last);
    check_scored({}, every(words, stride), scored, first, last);
    check_scored({}, every(numbers, stride), scored, first, last);
    check_scored(every(narrow, stride), {}, scored, first, last);
    check_scored(every(wide, stride), {}, scored, first, last);
    check_scored({}, {}, std::vector<bool>(scored.size(), true), first, last);
    // Of both, those that neither leaves out.
    const std::vector<bool> other = random_flags(random, rows);
    const auto other_flags = elements_of<std::uint8_t>(
        other, 1, [](bool s) { return static_cast<std::uint8_t>(s ? 1 : 0); });
    std::vector<bool> by_both;
    for (std::size_t i = 0; i < scored.size(); ++i) by_both.push_back(scored[i] && other[i]);
    check_scored(every(narrow, stride), other_flags, by_both, first, last);
  }
}

/// More sequences than are remembered, so that some are known when results are worked out and some
/// looked for again; or all, where the caller counted them.
TEST_CASE("scored rows that are known beforehand change no bit") {
  random_source random{14};
  std::vector<std::int64_t> offset{0};
  std::vector<float> policy, old, advantage;
  std::vector<std::uint8_t> mask;
  double tokens = 0;
  double sequences = 0;
  double negative_log_likelihood = 0;
  while (std::int64_t(advantage.size()) < prospect::cpu::detail::known_runs::most + 900) {
    const std::vector<bool> scored = random_flags(random, random.integer(0, 60));
    for (const bool s : scored) {
      mask.push_back(s ? 1 : 0);
      policy.push_back(static_cast<float>(-std::abs(random.normal(1))));
      old.push_back(policy.back() + static_cast<float>(random.normal(0.1)));
      tokens += s ? 1 : 0;
      negative_log_likelihood -= s ? double{policy.back()} : 0;
    }
    sequences += std::find(scored.begin(), scored.end(), true) != scored.end() ? 1 : 0;
    advantage.push_back(static_cast<float>(random.normal(1)));
    offset.push_back(static_cast<std::int64_t>(policy.size()));
  }
  const prospect::token_batch in{.policy = policy,
                                 .old = old,
                                 .advantage = advantage,
                                 .mask = mask,
                                 .layout = prospect::sequence_layout::packed(offset)};
  const auto check_known = [&](const auto& loss, double count) {
    CAPTURE(std::string{loss.name});
    std::vector<float> want(policy.size(), 7);
    prospect::serial_executor alone;
    const auto by_caller = prospect::cpu::evaluate(loss, in, {.d_policy = want},
                                                   prospect::normaliser::over(count), alone);
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(name);
      std::vector<float> got(policy.size(), 7);
      const auto counted =
          prospect::cpu::evaluate(loss, in, {.d_policy = got}, prospect::normaliser::mean(), on);
      CHECK(testing::same_bits(got, want));
      CHECK(testing::same_bits(counted.total, by_caller.total));
      CHECK(counted.tokens.sum == tokens);
    });
    return by_caller;
  };
  const auto likelihood = check_known(prospect::sft{}, tokens);
  CHECK(std::abs(likelihood.loss.sum - negative_log_likelihood) < 1e-9 * negative_log_likelihood);
  check_known(prospect::grpo{}, sequences);
  check_known(prospect::gspo{}, sequences);
}
