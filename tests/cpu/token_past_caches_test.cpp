// Losses of batches whose results are written past the caches: the same bits as those of smaller
// batches, wherever their rows begin, and nothing beside them.

#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/losses.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "executors.hpp"
#include "random.hpp"

namespace {

using prospect::any_row;
using prospect::const_any_row;
using prospect::strided_span;
using testing::random_source;

constexpr auto enough_rows = prospect::cpu::detail::worth_passing_caches;

/// Sequences of 0 to 1500 tokens side by side, most after a prompt, some with gaps, some with none
/// that is scored; and of a few tokens.
template <class R>
struct many_sequences {
  std::vector<std::int64_t> offset{0};
  std::vector<R> policy, old, reference, advantage;
  std::vector<std::uint8_t> mask;

  many_sequences() {
    random_source random{2012};
    while (offset.back() < enough_rows + 1000) {
      const std::int64_t count = random.integer(0, random.chance(0.5) ? 1500 : 40);
      const std::int64_t prompt = random.chance(0.2) ? 0 : random.integer(0, count);
      const bool gaps = random.chance(0.1);
      for (std::int64_t i = 0; i < count; ++i) {
        mask.push_back(i >= prompt && !(gaps && random.chance(0.02)) ? 1 : 0);
        policy.push_back(R(-1 - std::abs(random.normal(1))));
        old.push_back(policy.back() + R(random.normal(0.2)));
        reference.push_back(policy.back() + R(random.normal(0.2)));
      }
      advantage.push_back(random.chance(0.1) ? R(0) : R(random.normal(1)));
      offset.push_back(offset.back() + count);
    }
  }
  std::int64_t rows() const { return offset.back(); }
  std::int64_t size() const { return static_cast<std::int64_t>(advantage.size()); }
};

constexpr float untouched_row = 77;

/// Results that begin so many numbers after a line of memory does, and as many beside them.
template <class R>
struct rows_past {
  std::int64_t before;
  std::vector<R> loss, d_policy;

  rows_past(std::int64_t rows, std::int64_t at)
      : before{16 + at},
        loss(static_cast<std::size_t>(rows + 64), R(untouched_row)),
        d_policy(static_cast<std::size_t>(rows + 64), R(untouched_row)) {}

  /// Those of the rows from `first` on.
  any_row part(std::vector<R>& row, std::int64_t first, std::int64_t count) const {
    return strided_span<R>{row.data() + before + first, count};
  }
  bool nothing_beside(std::int64_t rows) const {
    const auto untouched = [&](const std::vector<R>& row) {
      const auto poisoned = [](R x) { return x == R(untouched_row); };
      return std::all_of(row.begin(), row.begin() + before, poisoned) &&
             std::all_of(row.begin() + before + rows, row.end(), poisoned);
    };
    return untouched(loss) && untouched(d_policy);
  }
};

/// The sequences [begin, end) as a batch of their own.
template <class R, class Loss, class E>
prospect::token_metrics evaluate_part(const Loss& loss, const many_sequences<R>& in,
                                      rows_past<R>& out, bool with_losses, std::int64_t begin,
                                      std::int64_t end, E& on) {
  const auto first = in.offset[static_cast<std::size_t>(begin)];
  const std::int64_t count = in.offset[static_cast<std::size_t>(end)] - first;
  std::vector<std::int64_t> offset;
  for (auto i = static_cast<std::size_t>(begin); std::int64_t(i) <= end; ++i) {
    offset.push_back(in.offset[i] - first);
  }
  const auto row = [&](const std::vector<R>& all) {
    return const_any_row{strided_span<const R>{all.data() + first, count}};
  };
  return prospect::cpu::evaluate(
      loss,
      {.policy = row(in.policy),
       .old = row(in.old),
       .reference = row(in.reference),
       .advantage = strided_span<const R>{in.advantage.data() + begin, end - begin},
       .mask = {in.mask.data() + first, count},
       .layout = prospect::sequence_layout::packed(offset)},
      {.loss = with_losses ? out.part(out.loss, first, count) : any_row{},
       .d_policy = out.part(out.d_policy, first, count)},
      prospect::normaliser::sum(), on);
}

/// The first row of the batch that is not what smaller batches give, or not 0 where it is not
/// scored; -1 if there is none.
template <class R>
std::int64_t first_wrong(const many_sequences<R>& in, const rows_past<R>& got,
                         const std::vector<R>& row, const rows_past<R>& want,
                         const std::vector<R>& wanted) {
  for (std::int64_t i = 0; i < in.rows(); ++i) {
    const R x = row[static_cast<std::size_t>(got.before + i)];
    const R y = wanted[static_cast<std::size_t>(want.before + i)];
    const bool scored = in.mask[static_cast<std::size_t>(i)] != 0;
    if (!testing::same_bits(x, y) || (!scored && x != 0)) return i;
  }
  return -1;
}

/// Whether what `loss` gives is what it gives in two halves, wherever its rows begin.
template <class R, class Loss>
void check_halves(const Loss& loss, const many_sequences<R>& in, bool with_losses) {
  CAPTURE(std::string{loss.name}, with_losses);
  rows_past<R> want{in.rows(), 0};
  prospect::serial_executor alone;
  const std::int64_t middle = in.size() / 2;
  evaluate_part(loss, in, want, with_losses, 0, middle, alone);
  evaluate_part(loss, in, want, with_losses, middle, in.size(), alone);
  for (const std::int64_t at : {0, 1, 7, 15}) {
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(at, name);
      rows_past<R> got{in.rows(), at};
      evaluate_part(loss, in, got, with_losses, 0, in.size(), on);
      CHECK(first_wrong(in, got, got.d_policy, want, want.d_policy) == -1);
      if (with_losses) CHECK(first_wrong(in, got, got.loss, want, want.loss) == -1);
      CHECK(got.nothing_beside(in.rows()));
    });
  }
}

}  // namespace

TEMPLATE_TEST_CASE("results past the caches are those of smaller batches", "[token_losses]", float,
                   double) {
  const many_sequences<TestType> in;
  REQUIRE(in.rows() >= enough_rows);
  check_halves(prospect::grpo{.beta = 0.04}, in, true);
  check_halves(prospect::sft{}, in, false);
  check_halves(prospect::gspo{}, in, false);
}

TEST_CASE("results past the caches: what is not finite is found", "[token_losses]") {
  many_sequences<float> in;
  // Sequences that are not finite are done again block by block, the last of which may be small.
  std::int64_t wrong = 0, first = -1;
  for (std::size_t i = 0; i + 1 < in.offset.size(); ++i) {
    const std::int64_t last = in.offset[i + 1] - 1;
    const auto at = static_cast<std::size_t>(last);
    if (last < in.offset[i] || in.mask[at] == 0) continue;
    in.old[at] = std::numeric_limits<float>::quiet_NaN();
    if (first < 0) first = last;
    ++wrong;
  }
  rows_past<float> out{in.rows(), 3};
  prospect::serial_executor alone;
  const auto metrics = evaluate_part(prospect::grpo{}, in, out, true, 0, in.size(), alone);
  CHECK(metrics.nonfinite.sum == static_cast<double>(wrong));
  CHECK(metrics.first_nonfinite == first);
  check_halves(prospect::grpo{}, in, true);
}
