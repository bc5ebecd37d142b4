// Rows of a batch on CUDA that differ in type, lie behind indices, or bring weights and margins:
// the same inputs on the CPU give the same results.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "cuda/sequence_cases.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::bfloat16;
using prospect::float16;
using prospect::mixed;
using prospect::normaliser;
using prospect::paired_metrics;
using prospect::unpaired_metrics;
using testing::device_array;
using testing::device_metrics;
using testing::near;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::sequence_scheme;
using testing::stored;
using testing::with_scratch;

constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

template <class S>
std::vector<S> log_probs(random_source& random, std::int64_t n) {
  std::vector<S> row;
  for (std::int64_t i = 0; i < n; ++i) row.push_back(stored<S>(random.normal(8) - 20));
  return row;
}
/// Weights of any sign, 0 among them; margins.
std::vector<float> weights(random_source& random, std::int64_t n) {
  std::vector<float> row;
  for (std::int64_t i = 0; i < n; ++i) {
    row.push_back(i % 5 == 3 ? 0.0F : static_cast<float>(random.normal(2)));
  }
  return row;
}
std::vector<std::int32_t> tokens(random_source& random, std::int64_t n) {
  std::vector<std::int32_t> row;
  for (std::int64_t i = 0; i < n; ++i) row.push_back(testing::token_count(random, true));
  return row;
}

template <class T>
device_array<T> empty(std::int64_t n) {
  return device_array<T>(static_cast<std::size_t>(n));
}

/// Each number within `tolerance`, relatively or absolutely, and one rounding to S.
template <class S>
void check_near(const std::vector<S>& got, const std::vector<S>& want, long double tolerance) {
  REQUIRE(got.size() == want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    CAPTURE(i, prospect::load(got[i]), prospect::load(want[i]));
    const long double x = prospect::load(want[i]);
    CHECK(testing::stored_near<S>(got[i], x, tolerance * (1 + std::abs(x))));
  }
}

void check_metrics(const auto& got, const auto& want, long double tolerance) {
  for (std::size_t k = 0; k < got.named().size(); ++k) {
    const auto g = got.named()[k];
    const auto w = want.named()[k].value;
    CAPTURE(g.name);
    CHECK(g.value.count == w.count);
    CHECK(near(g.value.sum, w.sum, tolerance, tolerance * w.count));
  }
  CHECK(got.first_nonfinite == want.first_nonfinite);
  CHECK(near(got.total, want.total, tolerance, tolerance));
}

/// Pairs whose rows are made of these types, here and there.
template <class Chosen, class Rejected, class Reference, class Weight, class Result>
void check_pairs(const auto& loss, std::int64_t n, long double tolerance) {
  random_source random{301};
  const auto chosen = log_probs<Chosen>(random, n);
  const auto rejected = log_probs<Rejected>(random, n);
  const auto reference_chosen = log_probs<Reference>(random, n);
  const auto reference_rejected = log_probs<Rejected>(random, n);
  const auto chosen_tokens = tokens(random, n);
  const auto rejected_tokens = tokens(random, n);
  std::vector<Weight> weight;
  for (const float w : weights(random, n)) weight.push_back(stored<Weight>(w));
  const auto margin = log_probs<Reference>(random, n);
  std::vector<Result> loss_row(static_cast<std::size_t>(n)), reward = loss_row;
  std::vector<Chosen> d_chosen(loss_row.size());
  std::vector<float> d_rejected(loss_row.size());
  const auto want = prospect::cpu::evaluate(loss,
                                            {.policy_chosen = chosen,
                                             .policy_rejected = rejected,
                                             .reference_chosen = reference_chosen,
                                             .reference_rejected = reference_rejected,
                                             .chosen_tokens = chosen_tokens,
                                             .rejected_tokens = rejected_tokens,
                                             .weight = weight,
                                             .margin = margin},
                                            {.loss = loss_row,
                                             .d_policy_chosen = d_chosen,
                                             .d_policy_rejected = d_rejected,
                                             .reward_chosen = reward});

  const device_array<Chosen> c{chosen};
  const device_array<Rejected> r{rejected}, rr{reference_rejected};
  const device_array<Reference> rc{reference_chosen}, m{margin};
  const device_array<std::int32_t> ct{chosen_tokens}, rt{rejected_tokens};
  const device_array<Weight> w{weight};
  const auto l = empty<Result>(n), reward_of = empty<Result>(n);
  const auto dc = empty<Chosen>(n);
  const auto dr = empty<float>(n);
  const device_metrics<paired_metrics> metrics;
  require_success(with_scratch([&](scratch space) {
    return gpu::evaluate(loss,
                         {.policy_chosen = c.input(),
                          .policy_rejected = r.input(),
                          .reference_chosen = rc.input(),
                          .reference_rejected = rr.input(),
                          .chosen_tokens = ct.input(),
                          .rejected_tokens = rt.input(),
                          .weight = w.input(),
                          .margin = m.input()},
                         {.loss = l.row(),
                          .d_policy_chosen = dc.row(),
                          .d_policy_rejected = dr.row(),
                          .reward_chosen = reward_of.row()},
                         normaliser::mean(), metrics.data(), space, nullptr);
  }));
  check_near(l.host(), loss_row, tolerance);
  check_near(dc.host(), d_chosen, tolerance);
  check_near(dr.host(), d_rejected, tolerance);
  check_near(reward_of.host(), reward, tolerance);
  check_metrics(metrics.host(), want, tolerance);
}

/// Pairs by index on the device, and what came out.
struct indexed_run {
  std::vector<float> loss, d_policy, d_chosen, d_rejected;
  paired_metrics metrics;
};
template <class Index>
indexed_run run_indexed(const std::vector<float>& policy, const std::vector<float>& reference,
                        const std::vector<std::int32_t>& counts, const std::vector<Index>& chosen,
                        const std::vector<Index>& rejected, bool wants_sequences = true,
                        const sequence_scheme* scheme = nullptr) {
  const auto n = static_cast<std::int64_t>(chosen.size());
  const auto sequences = static_cast<std::int64_t>(policy.size());
  const device_array<float> p{policy}, r{reference};
  const device_array<std::int32_t> t{counts};
  const device_array<Index> c{chosen}, j{rejected};
  const auto loss = empty<float>(n), dc = empty<float>(n), dr = empty<float>(n);
  const auto d = empty<float>(sequences);
  const device_metrics<paired_metrics> metrics;
  const prospect::indexed_pairs in{.policy = p.input(),
                                   .reference = r.input(),
                                   .tokens = t.input(),
                                   .chosen = c.input(),
                                   .rejected = j.input()};
  prospect::indexed_outputs out{
      .loss = loss.row(), .d_policy_chosen = dc.row(), .d_policy_rejected = dr.row()};
  if (wants_sequences) out.d_policy = d.row();
  if (scheme == nullptr) {
    require_success(with_scratch([&](scratch space) {
      return gpu::evaluate(prospect::dpo{}, in, out, normaliser::mean(), metrics.data(), space,
                           nullptr);
    }));
  } else {
    const device_array<unsigned> named(policy.size());
    named.set(std::vector<unsigned>(policy.size()));
    testing::run_scheme(
        gpu::detail::paired_job<mixed, prospect::dpo, float>{
            {},
            prospect::detail::any_rows(in),
            prospect::detail::any_rows(out),
            normaliser::mean(),
            metrics.data(),
            {.which = {in.chosen, in.rejected, out.d_policy},
             .pairs = n,
             .sequences = sequences,
             .named = named.data()}},
        *scheme);
  }
  return {loss.host(), d.host(), dc.host(), dr.host(), metrics.host()};
}

struct policy_only {
  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return p.rejected.policy - p.chosen.policy;
  }
};

}  // namespace

// ------------------------------------------------------------------------------ rows of any type

TEST_CASE("rows of one batch may differ in type on the device") {
  check_pairs<double, double, float, float, bfloat16>(prospect::dpo{}, 53, 1e-12L);
  check_pairs<float, bfloat16, float16, double, double>(prospect::dpo{}, 53, 4e-6L);
  check_pairs<float, float, float, float, float>(prospect::ipo{}, 53, 4e-6L);
  check_pairs<bfloat16, float, double, float16, float16>(prospect::ipo{}, 53, 1e-12L);
}

TEST_CASE("a kernel that asks rows for their type gives the bits of one that knows it") {
  random_source random{302};
  testing::paired_case<float> c{random, 131, true};
  testing::on_device_pairs<float> d{c};
  testing::sequences_on_cuda(prospect::dpo{}, c);
  const auto typed = testing::all_outputs<float>(c);
  for (auto* row : c.outputs()) row->block().assign(row->block().size(), testing::poison<float>());
  const device_metrics<paired_metrics> metrics;
  require_success(with_scratch([&](scratch space) {
    return gpu::evaluate(prospect::dpo{}, prospect::detail::any_rows(d.in()),
                         prospect::detail::any_rows(d.out()), normaliser::mean(), metrics.data(),
                         space, nullptr);
  }));
  d.fetch();
  CHECK(same_bits(typed, testing::all_outputs<float>(c)));
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());
}

TEST_CASE("completions of any type, weights and the other class's point on the device") {
  random_source random{303};
  const std::int64_t n = 47;
  const auto policy = log_probs<double>(random, n);
  const auto reference = log_probs<float>(random, n);
  const auto weight = weights(random, n);
  const auto counts = tokens(random, n);
  std::vector<std::uint8_t> desirable;
  for (std::int64_t i = 0; i < n; ++i) desirable.push_back(i % 3 == 0 ? 0 : 7);
  std::vector<float> loss(static_cast<std::size_t>(n));
  std::vector<double> d_policy(loss.size());
  const device_array<double> p{policy};
  const device_array<float> r{reference}, w{weight};
  const device_array<std::int32_t> t{counts};
  const device_array<std::uint8_t> thumbs{desirable};
  const auto check = [&](const auto& point) {
    const auto want = prospect::cpu::evaluate(prospect::kto{},
                                              {.policy = policy,
                                               .reference = reference,
                                               .desirable = desirable,
                                               .tokens = counts,
                                               .weight = weight},
                                              point, {.loss = loss, .d_policy = d_policy});
    const auto l = empty<float>(n);
    const auto d = empty<double>(n);
    const device_metrics<unpaired_metrics> metrics;
    require_success(with_scratch([&](scratch space) {
      return gpu::evaluate(prospect::kto{},
                           {.policy = p.input(),
                            .reference = r.input(),
                            .desirable = thumbs.input(),
                            .tokens = t.input(),
                            .weight = w.input()},
                           point, {.loss = l.row(), .d_policy = d.row()}, normaliser::mean(),
                           metrics.data(), space, nullptr);
    }));
    check_near(l.host(), loss, 1e-12L);
    check_near(d.host(), d_policy, 1e-12L);
    check_metrics(metrics.host(), want, 1e-12L);
  };
  check(prospect::reference_point{.z = 0.75, .raw = 0.75});
  check(prospect::cross_class{});
}

// --------------------------------------------------------------------------- weights and margins

TEST_CASE(
    "a weight of 0 makes a pair's results 0, and one that is no number spoils its pair alone") {
  const std::vector<float> chosen{-3, not_a_number, -3, -3}, rejected{-5, -5, -5, -5};
  const std::vector<float> zero(4), weight{2, 0, not_a_number, 1};
  const device_array<float> c{chosen}, r{rejected}, reference{zero}, w{weight};
  const auto loss = empty<float>(4), d = empty<float>(4);
  const device_metrics<paired_metrics> metrics;
  require_success(with_scratch([&](scratch space) {
    return gpu::evaluate<float>(prospect::dpo{},
                                {.policy_chosen = c.input(),
                                 .policy_rejected = r.input(),
                                 .reference_chosen = reference.input(),
                                 .reference_rejected = reference.input(),
                                 .weight = w.input()},
                                {.loss = loss.row(), .d_policy_chosen = d.row()},
                                normaliser::mean(), metrics.data(), space, nullptr);
  }));
  const auto l = loss.host();
  CHECK(near(l[0], 2 * std::log1p(std::exp(-0.2L)), 4e-7L));
  CHECK(same_bits(l[1], 0.0F));
  CHECK(same_bits(d.host()[1], 0.0F));
  CHECK(std::isnan(l[2]));
  CHECK(near(l[3], std::log1p(std::exp(-0.2L)), 4e-7L));
  CHECK(near(d.host()[0], -0.2L / (1 + std::exp(0.2L)) / 4, 4e-7L));
  const auto m = metrics.host();
  CHECK(m.loss.count == 4);
  CHECK(m.nonfinite.sum == 2);  // the pair of weight 0 holds what is no number
  CHECK(m.first_nonfinite == 1);
}

TEST_CASE("a margin moves what the loss sees and no reward; a loss that drops it is refused") {
  const std::vector<float> chosen{-3}, rejected{-5}, zero(1), lead{2};
  const device_array<float> c{chosen}, r{rejected}, reference{zero}, m{lead};
  const auto loss = empty<float>(1), reward = empty<float>(1);
  const prospect::paired_batch<float> in{.policy_chosen = c.input(),
                                         .policy_rejected = r.input(),
                                         .reference_chosen = reference.input(),
                                         .reference_rejected = reference.input(),
                                         .margin = m.input()};
  require_success(gpu::evaluate<float>(prospect::dpo{}, in,
                                       {.loss = loss.row(), .reward_chosen = reward.row()},
                                       normaliser::mean(), nullptr, {}, nullptr));
  testing::synchronise();
  CHECK(near(loss.host()[0], std::log(2.0L), 2e-7L));
  CHECK(reward.host()[0] == -0.3F);
  const char* const why = gpu::problem(policy_only{}, in, {}, normaliser::mean());
  REQUIRE(why != nullptr);
  CHECK(std::string_view{why}.find("margin") != std::string_view::npos);
}

// -------------------------------------------------------------------------------- pairs by index

TEMPLATE_TEST_CASE("pairs among sequences are the pairs they name, in every scheme", "",
                   std::int32_t, std::int64_t) {
  random_source random{304};
  // One stripe and a few rows of the next; twice as many sequences, some of them in no pair.
  const std::int64_t n = std::same_as<TestType, std::int32_t> ? 33 : gpu::detail::rows_per_tile + 7;
  const std::int64_t sequences = 2 * n + 5;
  const auto policy = log_probs<float>(random, sequences);
  const auto reference = log_probs<float>(random, sequences);
  const auto counts = tokens(random, sequences);
  std::vector<TestType> chosen, rejected;
  for (std::int64_t i = 0; i < n; ++i) {
    chosen.push_back(static_cast<TestType>(sequences - 1 - i));
    rejected.push_back(static_cast<TestType>(i));
  }
  std::vector<float> loss(chosen.size()), d_policy(policy.size()), d_chosen(chosen.size());
  const auto want = prospect::cpu::evaluate(
      prospect::dpo{},
      prospect::indexed_pairs{.policy = policy,
                              .reference = reference,
                              .tokens = counts,
                              .chosen = chosen,
                              .rejected = rejected},
      prospect::indexed_outputs{.loss = loss, .d_policy = d_policy, .d_policy_chosen = d_chosen});
  const indexed_run first = run_indexed(policy, reference, counts, chosen, rejected);
  check_near(first.loss, loss, 4e-6L);
  check_near(first.d_policy, d_policy, 4e-6L);
  check_near(first.d_chosen, d_chosen, 4e-6L);
  check_metrics(first.metrics, want, 4e-6L);
  for (std::int64_t i = n; i < n + 5; ++i) {
    CHECK(same_bits(first.d_policy[static_cast<std::size_t>(i)], 0.0F));
  }
  for (std::int64_t i = 0; i < n; ++i) {
    const auto k = static_cast<std::size_t>(i);
    REQUIRE(same_bits(first.d_policy[static_cast<std::size_t>(chosen[k])], first.d_chosen[k]));
    REQUIRE(same_bits(first.d_policy[k], first.d_rejected[k]));
  }
  for (const sequence_scheme& scheme : testing::schemes) {
    if (scheme == sequence_scheme::cluster && !testing::has_clusters()) continue;
    CAPTURE(static_cast<int>(scheme));
    const indexed_run other =
        run_indexed(policy, reference, counts, chosen, rejected, true, &scheme);
    CHECK(same_bits(first.loss, other.loss));
    CHECK(same_bits(first.d_policy, other.d_policy));
    CHECK(testing::same_metrics(first.metrics, other.metrics));
  }
}

TEST_CASE("an index that names no sequence reads nothing, and spoils its pair alone") {
  const std::vector<float> policy{-3, -5, -4, -9}, reference{-4, -4, -4, -4};
  const std::vector<std::int32_t> counts{1, 1, 1, 1};
  const indexed_run good =
      run_indexed(policy, reference, counts, std::vector{0, 2}, std::vector{1, 3});
  CHECK(good.metrics.nonfinite.sum == 0);
  for (const std::int32_t bad : {-1, 4, 1 << 30, std::numeric_limits<std::int32_t>::min()}) {
    CAPTURE(bad);
    const indexed_run run =
        run_indexed(policy, reference, counts, std::vector{0, 2}, std::vector{1, bad});
    CHECK(run.metrics.loss.count == 2);
    CHECK(run.metrics.nonfinite.sum == 1);
    CHECK(run.metrics.first_nonfinite == 1);
    CHECK(std::isnan(run.loss[1]));
    CHECK(std::isnan(run.d_policy[2]));
    CHECK(same_bits(run.d_policy[3], 0.0F));
    CHECK(same_bits(run.loss[0], good.loss[0]));
    CHECK(same_bits(run.d_policy[0], good.d_policy[0]));
  }
}

TEST_CASE("a sequence in two pairs has coefficients per pair, and NaN where there is one place") {
  const std::vector<float> policy{-3, -5, -4}, reference{-4, -4, -4};
  const std::vector<std::int32_t> counts{1, 1, 1};
  const std::vector<std::int32_t> chosen{0, 0}, rejected{1, 2};
  const indexed_run apart = run_indexed(policy, reference, counts, chosen, rejected, false);
  CHECK(apart.metrics.nonfinite.sum == 0);
  CHECK(std::isfinite(apart.d_chosen[0]));
  const indexed_run run = run_indexed(policy, reference, counts, chosen, rejected);
  CHECK(same_bits(run.loss, apart.loss));
  CHECK(same_bits(run.d_chosen, apart.d_chosen));
  CHECK(std::isnan(run.d_policy[0]));
  CHECK(same_bits(run.d_policy[1], apart.d_rejected[0]));
  CHECK(same_bits(run.d_policy[2], apart.d_rejected[1]));
  CHECK(run.metrics.nonfinite.sum == 2);
}

TEST_CASE("no pairs among sequences: no metrics, and coefficients of 0") {
  const indexed_run run = run_indexed({-3, -5}, {-4, -4}, {1, 1}, std::vector<std::int32_t>{},
                                      std::vector<std::int32_t>{});
  CHECK(testing::same_metrics(run.metrics, paired_metrics{}));
  CHECK(same_bits(run.d_policy, std::vector<float>(2)));
}
