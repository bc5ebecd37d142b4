// Four rows at a time, where rows lie so that a load has them, or one after another: the same bits,
// whatever is at the end of a batch, missing, empty or no number.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <vector>

#include "catch.hpp"
#include "cuda/sequence_cases.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::normaliser;
using testing::device_metrics;
using testing::device_row;
using testing::infinity;
using testing::laid_out_row;
using testing::not_a_number;
using testing::placement;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::stored;
using testing::with_scratch;

/// At a multiple of 16 bytes, behind what guards a row.
constexpr placement in_fours{.offset = 3};
/// All others.
constexpr placement elsewhere[] = {{.offset = 4}, {.offset = 3, .stride = 2}, {.stride = -1}};

/// Equal, or neither of them a number.
bool same(double a, double b) { return a == b || (a != a && b != b); }

/// A batch of rows each at a place of its own: numbers in, whole numbers in, results.
template <class S>
struct rows_at {
  static constexpr std::size_t in_numbers = 6, in_counts = 2, out = 5, all = 13;

  std::deque<laid_out_row<S>> numbers, results;
  std::deque<laid_out_row<std::int32_t>> counts;
  std::deque<laid_out_row<std::uint8_t>> thumbs;
  std::deque<device_row<S>> d_numbers, d_results;
  std::deque<device_row<std::int32_t>> d_counts;
  std::deque<device_row<std::uint8_t>> d_thumbs;

  /// The row `moved` lies there, all others in fours; or, without one, all of them there.
  rows_at(std::int64_t n, bool spoilt, std::size_t moved, placement there) {
    std::size_t row = 0;
    const auto place = [&] {
      const bool moves = moved == all || row == moved;
      ++row;
      return moves ? there : in_fours;
    };
    random_source random{601};
    for (std::size_t k = 0; k < in_numbers; ++k) {
      auto& x = numbers.emplace_back(n, place());
      for (std::int64_t i = 0; i < n; ++i) x[i] = stored<S>(random.normal(8) - (k < 4 ? 20 : 0));
    }
    for (std::size_t k = 0; k < in_counts; ++k) {
      auto& x = counts.emplace_back(n, place());
      for (std::int64_t i = 0; i < n; ++i) x[i] = testing::token_count(random, true);
    }
    for (std::size_t k = 0; k < out; ++k) results.emplace_back(n, place());
    auto& thumb = thumbs.emplace_back(n, counts[1].stride() == 1 ? in_fours : there);
    for (std::int64_t i = 0; i < n; ++i) thumb[i] = i % 3 == 0 ? 0 : 2;
    if (spoilt) spoil(n);
    for (auto& x : numbers) d_numbers.emplace_back(x);
    for (auto& x : counts) d_counts.emplace_back(x);
    for (auto& x : results) d_results.emplace_back(x);
    for (auto& x : thumbs) d_thumbs.emplace_back(x);
  }
  /// No numbers: in a row that is scored, in one that is not, and in the last; weights likewise.
  void spoil(std::int64_t n) {
    counts[0][17] = counts[1][17] = counts[0][n - 1] = counts[1][n - 1] = 5;
    counts[0][18] = 0;
    numbers[0][17] = numbers[1][18] = stored<S>(not_a_number);
    numbers[2][n - 1] = stored<S>(-infinity);
    numbers[4][n / 2] = stored<S>(infinity);
    numbers[4][n / 2 + 1] = stored<S>(0);
  }

  /// Results as they come to lie, all of them written and nothing else.
  std::vector<std::vector<S>> fetch(std::size_t wanted) {
    std::vector<std::vector<S>> rows;
    for (std::size_t k = 0; k < wanted; ++k) {
      d_results[k].fetch();
      CHECK(results[k].only_elements_written());
      rows.push_back(results[k].elements());
    }
    return rows;
  }
};

template <class S, class Metrics>
struct outcome {
  bool fours;
  std::vector<std::vector<S>> rows;
  Metrics metrics;
};
template <class S, class Metrics>
bool same(const outcome<S, Metrics>& a, const outcome<S, Metrics>& b) {
  const Metrics &m = a.metrics, &n = b.metrics;
  bool all = a.rows.size() == b.rows.size() && m.first_nonfinite == n.first_nonfinite &&
             same(m.total, n.total);
  for (std::size_t k = 0; k < m.named().size(); ++k) {
    const prospect::sum_count x = m.named()[k].value, y = n.named()[k].value;
    all = all && same(x.sum, y.sum) && x.count == y.count;
  }
  for (std::size_t k = 0; all && k < a.rows.size(); ++k) {
    for (std::size_t i = 0; all && i < a.rows[k].size(); ++i) {
      const S x = a.rows[k][i], y = b.rows[k][i];
      all = same_bits(x, y) || (std::isnan(static_cast<double>(prospect::load(x))) &&
                                std::isnan(static_cast<double>(prospect::load(y))));
    }
  }
  return all;
}

/// What there is of a batch.
struct given {
  bool reference = true, tokens = true, weight = true, results = true, spoilt = false;
};

template <class S, class Loss>
auto pairs(const Loss& loss, std::int64_t n, given has, std::size_t moved, placement there) {
  rows_at<S> r{n, has.spoilt, moved, there};
  prospect::paired_batch<S> in{.policy_chosen = r.d_numbers[0].view(),
                               .policy_rejected = r.d_numbers[1].view()};
  if (has.reference) {
    in.reference_chosen = r.d_numbers[2].view();
    in.reference_rejected = r.d_numbers[3].view();
  }
  if (has.weight) {
    in.weight = r.d_numbers[4].view();
    in.margin = r.d_numbers[5].view();
  }
  if (has.tokens) {
    in.chosen_tokens = r.d_counts[0].view();
    in.rejected_tokens = r.d_counts[1].view();
  }
  prospect::paired_outputs<S> out{.d_policy_chosen = r.d_results[0].view(),
                                  .d_policy_rejected = r.d_results[1].view()};
  if (has.results) {
    out.loss = r.d_results[2].view();
    out.reward_chosen = r.d_results[3].view();
    out.reward_rejected = r.d_results[4].view();
  }
  const device_metrics<prospect::paired_metrics> metrics;
  const gpu::detail::paired_job<S, Loss> job{loss, in, out, normaliser::mean(), metrics.data()};
  require_success(
      with_scratch([&](scratch space) { return gpu::detail::run(job, space, nullptr); }));
  return outcome<S, prospect::paired_metrics>{job.in_fours(), r.fetch(has.results ? 5 : 2),
                                              metrics.host()};
}

template <class S, class Loss = prospect::kto, class Point>
auto completions(std::int64_t n, given has, const Point& point, std::size_t moved,
                 placement there) {
  rows_at<S> r{n, has.spoilt, moved, there};
  prospect::unpaired_batch<S> in{.policy = r.d_numbers[0].view(),
                                 .desirable = r.d_thumbs[0].view()};
  if (has.reference) in.reference = r.d_numbers[2].view();
  if (has.weight) in.weight = r.d_numbers[4].view();
  if (has.tokens) in.tokens = r.d_counts[0].view();
  if (prospect::reads_target<float>(Loss{})) in.target = r.d_numbers[5].view();
  prospect::unpaired_outputs<S> out{.d_policy = r.d_results[0].view()};
  if (has.results) {
    out.loss = r.d_results[1].view();
    out.reward = r.d_results[2].view();
  }
  const device_metrics<prospect::unpaired_metrics> metrics;
  const gpu::detail::unpaired_job<S, Loss> job{
      {}, in, point, out, normaliser::mean(), metrics.data()};
  require_success(
      with_scratch([&](scratch space) { return gpu::detail::run(job, space, nullptr); }));
  return outcome<S, prospect::unpaired_metrics>{job.in_fours(), r.fetch(has.results ? 3 : 1),
                                                metrics.host()};
}

/// A loss that reads whatever a pair has.
struct reads_all {
  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return softplus(p.mean_log_ratio_margin()) - p.mean_policy_margin();
  }
};

}  // namespace

TEMPLATE_TEST_CASE("four rows at a time, or one after another: the same bits", "", float, double,
                   prospect::bfloat16, prospect::float16) {
  using S = TestType;
  const std::size_t all = rows_at<S>::all;
  const std::int64_t n = 4096 + GENERATE(1, 2, 3, 508);
  CAPTURE(n);
  const bool spoilt = n % 2 == 1;
  const auto check = [&](const auto& run) {
    const auto at_once = run(in_fours);
    const auto apart = run(placement{.offset = 1, .stride = 2});
    CHECK(at_once.fours);
    CHECK_FALSE(apart.fours);
    CHECK(same(at_once, apart));
    CHECK(at_once.metrics.loss.count > 0);
    CHECK(at_once.metrics.first_nonfinite == (spoilt ? 17 : -1));
    CHECK(at_once.metrics.nonfinite.sum >= (spoilt ? 2 : 0));
  };
  const given has{.spoilt = spoilt};
  check([&](placement p) { return pairs<S>(prospect::dpo{}, n, has, all, p); });
  check([&](placement p) { return completions<S>(n, has, prospect::cross_class{}, all, p); });
}

TEST_CASE("four rows at a time with as much as there is of a batch: the same bits") {
  const std::int64_t n = 4103;
  const std::size_t all = rows_at<float>::all;
  const placement apart{.offset = 1, .stride = 2};
  const int step = testing::on_silicon() ? 1 : 5;  // there are 16 subsets, and emulators are slow
  for (int which = 0; which < 16; which += step) {
    const given has{(which & 1) != 0, (which & 2) != 0, (which & 4) != 0, (which & 8) != 0};
    CAPTURE(which);
    CHECK(same(pairs<float>(prospect::dpo{.label_smoothing = 0.125}, n, has, all, in_fours),
               pairs<float>(prospect::dpo{.label_smoothing = 0.125}, n, has, all, apart)));
    CHECK(same(pairs<float>(reads_all{}, n, has, all, in_fours),
               pairs<float>(reads_all{}, n, has, all, apart)));
    const prospect::reference_point z{.z = 0.75, .raw = 0.75};
    CHECK(same(completions<float>(n, has, z, all, in_fours),
               completions<float>(n, has, z, all, apart)));
  }
}

TEST_CASE("a target of each completion is read in fours as well, with weights and without") {
  const std::int64_t n = 4098;
  const std::size_t all = rows_at<float>::all;
  const placement apart{.offset = 1, .stride = 2};
  const prospect::reference_point z{.z = 0.75, .raw = 0.75};
  for (const bool weight : {false, true}) {
    CAPTURE(weight);
    const given has{.weight = weight};
    const auto at_once = completions<float, prospect::a2po>(n, has, z, all, in_fours);
    CHECK(at_once.fours);
    CHECK(same(at_once, completions<float, prospect::a2po>(n, has, z, all, apart)));
    // And it matters: without its target the same loss is another.
    CHECK(at_once.metrics.loss.sum !=
          completions<float>(n, has, z, all, in_fours).metrics.loss.sum);
  }
}

TEST_CASE("one row that does not lie in fours, and none is taken so") {
  const std::int64_t n = 4101;
  const auto whole = pairs<float>(prospect::dpo{}, n, {}, 0, in_fours);
  CHECK(whole.fours);
  for (std::size_t row = 0; row < rows_at<float>::all; ++row) {
    for (std::size_t i = 0; i < std::size(elsewhere); ++i) {
      if (i != row % std::size(elsewhere) && !testing::on_silicon()) continue;
      const placement& there = elsewhere[i];
      CAPTURE(row, there.offset, there.stride);
      const auto other = pairs<float>(prospect::dpo{}, n, {}, row, there);
      CHECK_FALSE(other.fours);
      CHECK(same(whole, other));
    }
  }
}

TEST_CASE("batches around what a tile, a row a thread and a cluster take: as on the CPU") {
  for (const std::int64_t n : {511, 512, 513, 4095, 4096, 4097, 32767, 32768, 32771}) {
    CAPTURE(n);
    random_source random{602};
    testing::paired_case<float> c{random, n, true, false}, twin = c;
    const auto want = prospect::cpu::evaluate(prospect::dpo{}, twin.in(), twin.out());
    const auto got = testing::sequences_on_cuda(prospect::dpo{}, c);
    CHECK(got.loss.count == want.loss.count);
    CHECK(testing::near(got.loss.sum, want.loss.sum, 1e-7L));
    CHECK(testing::near(got.rewards_margins.sum, want.rewards_margins.sum, 1e-10L, 1e-10L * n));
    CHECK(got.rewards_accuracies.sum == want.rewards_accuracies.sum);
    for (const std::int64_t i : {std::int64_t{0}, n / 2, n - 2, n - 1}) {
      CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 4e-6L, 1e-12L));
      CHECK(testing::near(c.reward_rejected[i], twin.reward_rejected[i], 4e-6L, 1e-12L));
    }
  }
}
