// The MPI adapter where a batch is spread over ranks: sums are those of one rank that is given the
// parts, to the bit and on every rank, whoever holds which part; KTO and DPO are what they are on
// the whole batch, where ranks have uneven shares, none, or one class only.
#include <prospect/adapters/mpi.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adapters/mpi_ranks.hpp"
#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

namespace {

namespace adapters = prospect::adapters;
using oracle::real;
using prospect::matrix_view;
using prospect::normaliser;
using prospect::observation;
using prospect::strided_span;
using prospect::sum_count;
using testing::as_on_rank_0;
using testing::mine_of;
using testing::near;
using testing::random_source;
using testing::same_bits;
using testing::share;

template <class T>
T number(double x) {
  return static_cast<T>(x);
}
template <>
sum_count number<sum_count>(double x) {
  return {.sum = x, .count = std::floor(std::abs(x))};
}
double sum_of(double x) { return x; }
double sum_of(const sum_count& x) { return x.sum; }

/// The same parts on one rank alone: `cpu::sum_over_ranks` of what each of them gives.
template <class T, class Work>
T on_one_rank(const std::vector<share>& shares, const Work& work) {
  std::vector<T> parts;
  for (const share& s : shares) parts.push_back(work(s));
  return prospect::cpu::sum_over_ranks<T>(strided_span<const T>{parts});
}

}  // namespace

TEMPLATE_TEST_CASE("columns are added up from the first part to the last, whoever has which",
                   "[mpi]", float, double, sum_count) {
  random_source random{4101};
  CAPTURE(random.seed(), testing::rank());
  for (int round = 0; round < 20; ++round) {
    // Twice 16 MiB of all parts, and then some that are not; nothing; one column; and a few.
    const std::int64_t parts = random.integer(1, 9);
    const std::int64_t piece = (1 << 24) / static_cast<std::int64_t>(sizeof(TestType)) / parts;
    const std::int64_t n = round == 0   ? 2 * piece + 457
                           : round == 1 ? 0
                           : round == 2 ? 1
                                        : random.integer(1, 300);
    const std::int64_t pitch = n + 3;
    std::vector<TestType> all(static_cast<std::size_t>(parts * pitch), number<TestType>(7e7));
    for (TestType& x : all)
      x = number<TestType>(std::ldexp(random.normal(1), static_cast<int>(random.integer(0, 60))));
    std::vector<TestType> want(static_cast<std::size_t>(n));
    prospect::cpu::sum_over_ranks<TestType>({all.data(), parts, n, pitch}, want);

    const share mine = mine_of(testing::any_shares(random, parts));
    CAPTURE(round, parts, n, mine.first, mine.count);
    const matrix_view<const TestType> own{all.data() + mine.first * pitch, mine.count, n, pitch};
    std::vector<TestType> got(want.size(), number<TestType>(-1));
    adapters::sum_over_ranks<TestType>(own, got, MPI_COMM_WORLD);
    CHECK(same_bits(got, want));
    CHECK(as_on_rank_0(got));

    // By one rank that has all of them; and in the place of a part.
    std::vector<TestType> alone(want.size(), number<TestType>(-1));
    adapters::sum_over_ranks<TestType>({all.data(), parts, n, pitch}, alone, MPI_COMM_SELF);
    CHECK(same_bits(alone, want));
    if (mine.count > 0)
      got.assign(all.begin() + mine.first * pitch, all.begin() + mine.first * pitch + n);
    adapters::sum_over_ranks<TestType>(
        mine.count == 1 ? matrix_view<const TestType>{got.data(), 1, n} : own, got, MPI_COMM_WORLD);
    CHECK(same_bits(got, want));

    for (std::int64_t j = 0; j < n && round > 0; ++j) {
      real sum = 0, size = 0;
      for (std::int64_t i = 0; i < parts; ++i) {
        const double x = sum_of(all[static_cast<std::size_t>(i * pitch + j)]);
        sum += x;
        size += std::abs(x);
      }
      constexpr real rounding = std::is_same_v<TestType, float> ? 0x1p-24L : 0;
      REQUIRE(near(sum_of(want[static_cast<std::size_t>(j)]), sum, rounding, 1e-15L * size));
    }
  }
}

TEST_CASE("the order is one that shows, and no other", "[mpi]") {
  // Digits are lost on the way, differently in every order.
  const std::vector<double> parts{1, 1e16, 1, -1e16, 0.25, 3e-17};
  const double in_order = ((((1 + 1e16) + 1) - 1e16) + 0.25) + 3e-17;
  REQUIRE(in_order != (((((3e-17 + 0.25) - 1e16) + 1) + 1e16) + 1));
  const auto n = static_cast<std::int64_t>(parts.size());
  const std::int64_t r = testing::rank(), of = testing::ranks();
  const auto first = parts.begin() + n * r / of, last = parts.begin() + n * (r + 1) / of;
  const std::vector<double> mine(first, last);
  CHECK(adapters::sum_over_ranks([&] { return mine; }, MPI_COMM_WORLD) == in_order);
  CHECK(adapters::sum_over_ranks([&] { return static_cast<double>(mine.size()); },
                                 MPI_COMM_WORLD) == static_cast<double>(n));
  // Another order of the ranks is another communicator.
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -testing::rank(), &reversed);
  double other = 0;
  for (std::int64_t k = of - 1; k >= 0; --k) {
    for (std::int64_t i = n * k / of; i < n * (k + 1) / of; ++i) {
      other = k == of - 1 && i == n * k / of ? parts[static_cast<std::size_t>(i)]
                                             : other + parts[static_cast<std::size_t>(i)];
    }
  }
  CHECK(adapters::sum_over_ranks([&] { return mine; }, reversed) == other);
  MPI_Comm_free(&reversed);
}

TEMPLATE_TEST_CASE("KTO of a batch that is spread over ranks", "[mpi]", float, double,
                   prospect::bfloat16) {
  random_source random{4102};
  CAPTURE(random.seed(), testing::rank());
  const prospect::kto loss{.beta = 0.2, .desirable_weight = 1.5, .undesirable_weight = 0.75};
  for (int round = 0; round < 12; ++round) {
    const std::int64_t n = round == 0 ? 20000 : random.integer(testing::ranks(), 60);
    testing::unpaired_case<TestType> u{random, n, true};
    testing::unpaired_case<TestType> mismatched{random, n, true};
    auto shares = testing::any_shares(random, n);
    if (round == 1) {  // the last rank has everything
      shares.assign(shares.size(), {0, 0});
      shares.back() = {0, n};
    }
    // One class only on the first rank, the other one on the last.
    for (std::int64_t i = 0; i < shares.front().count; ++i) u.desirable[i] = 1;
    if (testing::ranks() > 1) {
      for (std::int64_t i = shares.back().first; i < n; ++i) u.desirable[i] = 0;
    }
    const share mine = mine_of(shares);
    CAPTURE(round, n, mine.first, mine.count);

    // The reference point.
    const auto observe = [&](const share& s) {
      const auto in = mismatched.in();
      return s.count == 0
                 ? observation{}
                 : prospect::cpu::mismatched_kl<TestType>(in.policy.slice(s.first, s.count),
                                                          in.reference.slice(s.first, s.count),
                                                          in.tokens.slice(s.first, s.count));
    };
    const auto rows = mismatched.in();
    const observation seen = adapters::mismatched_kl(
        rows.policy.slice(mine.first, mine.count), rows.reference.slice(mine.first, mine.count),
        rows.tokens.slice(mine.first, mine.count), MPI_COMM_WORLD);
    const auto seen_here = on_one_rank<observation>(shares, observe);
    CHECK(same_bits(seen.sum, seen_here.sum));
    CHECK(same_bits(seen.count, seen_here.count));
    CHECK(as_on_rank_0(std::vector<sum_count>{seen}));
    real kl = 0, observed = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      if (mismatched.tokens[i] == 0) continue;
      kl += mismatched.point(i, 0).log_ratio;
      observed += 1;
    }
    CHECK(near(seen.sum, kl, 1e-6L, 1e-5L * observed));
    CHECK(seen.count == static_cast<double>(observed));
    const auto z = prospect::reference_point::from(seen);

    // The denominator, the coefficients, the metrics.
    double counted = 0;
    for (std::int64_t i = mine.first; i < mine.first + mine.count; ++i) {
      counted += u.tokens[i] > 0 ? 1 : 0;
    }
    const double all_counted = adapters::sum_over_ranks(counted, MPI_COMM_WORLD);
    if (all_counted == 0) continue;
    const auto evaluate = [&](testing::unpaired_case<TestType>& of, const share& s) {
      const auto in = of.in();
      return prospect::cpu::evaluate(
          loss,
          prospect::unpaired_batch<TestType>{.policy = in.policy.slice(s.first, s.count),
                                             .reference = in.reference.slice(s.first, s.count),
                                             .desirable = in.desirable.slice(s.first, s.count),
                                             .tokens = in.tokens.slice(s.first, s.count)},
          z,
          {.loss = of.loss.view().slice(s.first, s.count),
           .d_policy = of.d_policy.view().slice(s.first, s.count),
           .reward = of.reward.view().slice(s.first, s.count)},
          normaliser::over(all_counted));
    };
    auto alone = u, whole = u;
    const auto got = adapters::sum_over_ranks([&] { return evaluate(u, mine); }, MPI_COMM_WORLD);
    const auto want = on_one_rank<prospect::unpaired_metrics>(
        shares, [&](const share& s) { return evaluate(alone, s); });
    CHECK(same_bits(got, want));
    CHECK(as_on_rank_0(std::vector<prospect::unpaired_metrics>{got}));

    // A completion has the bits that it has in the whole batch.
    const auto undivided = evaluate(whole, {0, n});
    std::int64_t wrong = 0;
    for (std::int64_t i = mine.first; i < mine.first + mine.count; ++i) {
      wrong += same_bits(u.d_policy[i], whole.d_policy[i]) && same_bits(u.loss[i], whole.loss[i]) &&
                       same_bits(u.reward[i], whole.reward[i])
                   ? 0
                   : 1;
    }
    CHECK(wrong == 0);
    CHECK(all_counted == undivided.loss.count);

    // And all is what the paper says.
    real total = 0, up = 0, ups = 0, downs = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      if (u.tokens[i] == 0) continue;
      const auto p = u.point(i, z.z);
      total += testing::textbook(loss, p).loss;
      (p.desirable ? ups : downs) += 1;
      up += p.desirable ? static_cast<real>(loss.beta) * p.log_ratio : 0;
    }
    const real size = 1e-6L * (1 + ups + downs);
    CHECK(near(got.loss.sum, total, 1e-6L, size));
    CHECK(got.loss.count == static_cast<double>(ups + downs));
    CHECK(near(got.total, ups + downs > 0 ? total / (ups + downs) : 0, 1e-6L, 1e-6L));
    CHECK(near(got.rewards_chosen.sum, up, 1e-5L, 10 * size));
    CHECK(got.rewards_chosen.count == static_cast<double>(ups));
    CHECK(got.rewards_rejected.count == static_cast<double>(downs));
    CHECK(got.logps_rejected.present() == (downs > 0));
    if (got.kl.present()) CHECK(near(got.kl.mean(), z.z, 1e-15L));
  }
}

TEST_CASE("DPO of pairs that are spread over ranks", "[mpi]") {
  random_source random{4103};
  CAPTURE(random.seed(), testing::rank());
  const prospect::dpo loss{.beta = 0.3};
  for (int round = 0; round < 12; ++round) {
    const std::int64_t n = round == 0 ? 17001 : random.integer(testing::ranks(), 40);
    testing::paired_case<float> pairs{random, n, true};
    const auto shares = testing::any_shares(random, n);
    const share mine = mine_of(shares);
    CAPTURE(round, n, mine.first, mine.count);
    double counted = 0;
    for (std::int64_t i = mine.first; i < mine.first + mine.count; ++i) {
      counted += pairs.counted(i) ? 1 : 0;
    }
    const double all_counted = adapters::sum_over_ranks(counted, MPI_COMM_WORLD);
    if (all_counted == 0) continue;
    const auto evaluate = [&](testing::paired_case<float>& of, const share& s) {
      const auto in = of.in();
      const auto cut = [&](auto row) { return row.slice(s.first, s.count); };
      return prospect::cpu::evaluate(
          loss,
          prospect::paired_batch<float>{.policy_chosen = cut(in.policy_chosen),
                                        .policy_rejected = cut(in.policy_rejected),
                                        .reference_chosen = cut(in.reference_chosen),
                                        .reference_rejected = cut(in.reference_rejected),
                                        .chosen_tokens = cut(in.chosen_tokens),
                                        .rejected_tokens = cut(in.rejected_tokens)},
          {.loss = cut(of.loss.view()),
           .d_policy_chosen = cut(of.d_chosen.view()),
           .d_policy_rejected = cut(of.d_rejected.view())},
          normaliser::over(all_counted));
    };
    auto alone = pairs, whole = pairs;
    const auto got =
        adapters::sum_over_ranks([&] { return evaluate(pairs, mine); }, MPI_COMM_WORLD);
    const auto want = on_one_rank<prospect::paired_metrics>(
        shares, [&](const share& s) { return evaluate(alone, s); });
    CHECK(same_bits(got, want));
    CHECK(as_on_rank_0(std::vector<prospect::paired_metrics>{got}));
    static_cast<void>(evaluate(whole, {0, n}));
    std::int64_t wrong = 0;
    for (std::int64_t i = mine.first; i < mine.first + mine.count; ++i) {
      wrong += same_bits(pairs.d_chosen[i], whole.d_chosen[i]) &&
                       same_bits(pairs.d_rejected[i], whole.d_rejected[i])
                   ? 0
                   : 1;
    }
    CHECK(wrong == 0);
    real total = 0, right = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      if (!pairs.counted(i)) continue;
      const auto p = pairs.point(i);
      total += testing::textbook(loss, p).loss;
      right += p.chosen > p.rejected ? 1 : 0;
    }
    CHECK(near(got.total, total / all_counted, 1e-6L));
    CHECK(got.rewards_accuracies.sum == static_cast<double>(right));
    CHECK(got.rewards_accuracies.count == all_counted);
  }
}

TEST_CASE("losses of tokens and value estimates add up as well", "[mpi]") {
  random_source random{4104};
  const auto of_rank = [&](double r) {
    prospect::token_metrics m;
    m.loss = {.sum = 0.1 + r, .count = 3};
    m.tokens = {.sum = 10 + r, .count = 2};
    m.total = 1.0 / (r + 3);
    return m;
  };
  const auto value_of_rank = [&](double r) {
    prospect::value_metrics m;
    m.loss = {.sum = 1 / (r + 7), .count = r};
    m.total = r / 3;
    return m;
  };
  std::vector<prospect::token_metrics> parts;
  std::vector<prospect::value_metrics> values;
  for (int r = 0; r < testing::ranks(); ++r) {
    parts.push_back(of_rank(r));
    values.push_back(value_of_rank(r));
  }
  const auto got = adapters::sum_over_ranks(of_rank(testing::rank()), MPI_COMM_WORLD);
  CHECK(same_bits(got, prospect::cpu::sum_over_ranks<prospect::token_metrics>(
                           strided_span<const prospect::token_metrics>{parts})));
  CHECK(got.tokens.count == 2.0 * testing::ranks());
  const auto value = adapters::sum_over_ranks(value_of_rank(testing::rank()), MPI_COMM_WORLD);
  CHECK(same_bits(value, prospect::cpu::sum_over_ranks<prospect::value_metrics>(
                             strided_span<const prospect::value_metrics>{values})));
}
