// Rows of a batch on CUDA that differ in type, or bring weights and margins: the same inputs on the
// CPU give the same results.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cpu/rows.hpp"
#include "cuda/sequence_rows.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::bfloat16;
using prospect::float16;
using prospect::normaliser;
using prospect::paired_metrics;
using prospect::unpaired_metrics;
using testing::check_metrics;
using testing::check_near;
using testing::device_array;
using testing::device_metrics;
using testing::empty;
using testing::log_probs;
using testing::near;
using testing::not_a_number;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::stored;
using testing::tokens;
using testing::weights;
using testing::with_scratch;

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
  // In more rows than a cluster has threads, one of them four at a time.
  const std::int64_t n = GENERATE(131, 4099);
  testing::paired_case<float> c{random, n, true, n < 4096};
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
