// Pairs among sequences on CUDA: every scheme gives the pairs that the indices name, and indices
// that name nothing, or one sequence twice, spoil no more than they must.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "cuda/sequence_rows.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::mixed;
using prospect::normaliser;
using prospect::paired_metrics;
using testing::check_metrics;
using testing::check_near;
using testing::device_array;
using testing::device_metrics;
using testing::empty;
using testing::log_probs;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::sequence_scheme;
using testing::tokens;
using testing::with_scratch;

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

}  // namespace

TEMPLATE_TEST_CASE("pairs among sequences are the pairs they name, in every scheme", "",
                   std::int32_t, std::int64_t) {
  random_source random{304};
  // A few rows behind the last whole tile; twice as many sequences, some of them in no pair.
  const std::int64_t n = std::same_as<TestType, std::int32_t> ? 33 : 2055;
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

TEST_CASE("each row of pairs among sequences is refused by its own name") {
  // Four sequences and three pairs; a row of two fits neither.
  const device_array<float> four(4), three(3), two(2);
  const device_array<std::int32_t> pairs{std::vector{0, 1, 2}}, counts(4), two_counts(2);
  const prospect::indexed_pairs whole{.policy = four.input(),
                                      .reference = four.input(),
                                      .tokens = counts.input(),
                                      .chosen = pairs.input(),
                                      .rejected = pairs.input(),
                                      .weight = three.input(),
                                      .margin = three.input()};
  const prospect::indexed_outputs results{.loss = three.row(), .d_policy = four.row()};
  const auto problem = [](const prospect::indexed_pairs& in, const prospect::indexed_outputs& out) {
    const char* const why = gpu::problem(prospect::dpo{}, in, out, normaliser::mean());
    return std::string{why == nullptr ? "nothing" : why};
  };
  CHECK(problem(whole, results) == "nothing");
  const auto with = [&](const auto& change) {
    prospect::indexed_pairs in = whole;
    prospect::indexed_outputs out = results;
    change(in, out);
    const std::string why = problem(in, out);
    return why.substr(0, why.find(' '));
  };
  CHECK(with([](auto& in, auto&) { in.policy = {}; }) == "policy");
  CHECK(with([&](auto& in, auto&) { in.reference = two.input(); }) == "reference");
  CHECK(with([&](auto& in, auto&) { in.tokens = two_counts.input(); }) == "tokens");
  CHECK(with([&](auto& in, auto&) { in.rejected = two_counts.input(); }) == "rejected");
  CHECK(with([&](auto& in, auto&) { in.weight = two.input(); }) == "weight");
  CHECK(with([&](auto& in, auto&) { in.margin = two.input(); }) == "margin");
  CHECK(with([&](auto&, auto& out) { out.loss = two.row(); }) == "loss");
  CHECK(with([&](auto&, auto& out) { out.d_policy = two.row(); }) == "d_policy");
  CHECK(with([&](auto&, auto& out) { out.d_policy_chosen = two.row(); }) == "d_policy_chosen");
  CHECK(with([&](auto&, auto& out) { out.d_policy_rejected = two.row(); }) == "d_policy_rejected");
}
