// How phase 2 is launched on CUDA: schemes, denominators and graphs, scratch, and what is refused
// before any work.
#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstdint>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cuda/sequence_cases.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using prospect::normaliser;
using testing::device_array;
using testing::device_metrics;
using testing::has_clusters;
using testing::on_device_completions;
using testing::on_device_pairs;
using testing::paired_case;
using testing::random_source;
using testing::require_success;
using testing::run_scheme;
using testing::same_bits;
using testing::schemes;
using testing::sequence_scheme;
using testing::unpaired_case;
using testing::with_scratch;

}  // namespace

TEST_CASE("every scheme gives the same bits") {
  random_source random{164};
  // Two stripes, and a few rows of a third: of a row a thread, and of four.
  const std::int64_t n = GENERATE(2 * 512 + 77, 2 * 2048 + 77);
  paired_case<float> c{random, n, true, false};
  std::vector<float> first;
  prospect::paired_metrics first_metrics;
  for (const sequence_scheme scheme : schemes) {
    if (scheme == sequence_scheme::cluster && !has_clusters()) continue;
    CAPTURE(static_cast<int>(scheme));
    on_device_pairs<float> d{c};
    const device_metrics<prospect::paired_metrics> metrics;
    run_scheme(
        gpu::detail::paired_job<float, prospect::dpo>{
            {}, d.in(), d.out(), normaliser::mean(), metrics.data()},
        scheme);
    d.fetch();
    const auto results = testing::all_outputs<float>(c);
    if (scheme == sequence_scheme::block) {
      first = results;
      first_metrics = metrics.host();
    }
    CHECK(same_bits(first, results));
    CHECK(testing::same_metrics(first_metrics, metrics.host()));
    for (auto* row : c.outputs()) CHECK(row->only_elements_written());
  }
  CHECK(first_metrics.loss.count > 0);
}

TEST_CASE("SimpleKTO and batch means in every scheme: the same bits") {
  random_source random{165};
  const std::int64_t n = 2 * 512 + 501;
  const std::int64_t mismatched = 2 * 2048 + 1;
  unpaired_case<float> c{random, n, true, false};
  unpaired_case<float> other{random, mismatched, true, false};
  on_device_completions<float> o{other};
  const device_array<prospect::observation> observed(1);
  const gpu::mismatched_batch<float> batch{.policy = o.policy.view(),
                                           .reference = o.reference.view(),
                                           .tokens = o.tokens.view(),
                                           .observed = observed.data()};
  const auto check = [&](const auto& point) {
    std::vector<float> first;
    prospect::unpaired_metrics first_metrics;
    for (const sequence_scheme scheme : schemes) {
      if (scheme == sequence_scheme::cluster && !has_clusters()) continue;
      CAPTURE(static_cast<int>(scheme));
      on_device_completions<float> d{c};
      const device_metrics<prospect::unpaired_metrics> metrics;
      run_scheme(
          gpu::detail::unpaired_job<float, prospect::kto>{
              {}, d.in(), point, d.out(), normaliser::mean(), metrics.data()},
          scheme);
      d.fetch();
      const auto results = testing::all_outputs<float>(c);
      if (scheme == sequence_scheme::block) {
        first = results;
        first_metrics = metrics.host();
      }
      CHECK(same_bits(first, results));
      CHECK(testing::same_metrics(first_metrics, metrics.host()));
    }
    CHECK(first_metrics.loss.count > 0);
  };
  check(prospect::cross_class{});
  check(batch);
  const auto want = prospect::cpu::mismatched_kl<float>(other.in().policy, other.in().reference,
                                                        other.in().tokens);
  CHECK(observed.host()[0].count == want.count);
  CHECK(testing::near(observed.host()[0].sum, want.sum, 1e-12L));
}

TEST_CASE("one launch as far as one is done first, then one for each pass") {
  const auto scheme = [](std::int64_t n, bool tokens) {
    prospect::paired_batch<float> in{.policy_chosen = {nullptr, n},
                                     .policy_rejected = {nullptr, n}};
    if (tokens) in.chosen_tokens = {nullptr, n};
    const gpu::detail::paired_job<float, prospect::dpo> job{
        {}, in, {}, normaliser::mean(), nullptr};
    sequence_scheme answer{};
    require_success(gpu::detail::scheme_for(job, answer));
    CHECK(job.wants(gpu::detail::observe) == tokens);
    return answer;
  };
  const auto cluster_or = [](sequence_scheme otherwise) {
    return has_clusters() ? sequence_scheme::cluster : otherwise;
  };
  CHECK(scheme(0, false) == sequence_scheme::block);
  CHECK(scheme(512, true) == sequence_scheme::block);
  CHECK(scheme(513, true) == cluster_or(sequence_scheme::block));
  CHECK(scheme(2048, false) == cluster_or(sequence_scheme::block));
  CHECK(scheme(2049, false) == cluster_or(sequence_scheme::grid));
  CHECK(scheme(4097, true) == cluster_or(sequence_scheme::grid));
  CHECK(scheme(32767, true) == cluster_or(sequence_scheme::grid));
  CHECK(scheme(32768, false) == sequence_scheme::grid);
}

TEST_CASE("what the sum is divided by: a normaliser, or a count on the device") {
  random_source random{172};
  paired_case<double> c{random, 21, true};
  on_device_pairs<double> d{c};
  const auto coefficients = [&](const gpu::denominator& by) {
    const device_metrics<prospect::paired_metrics> metrics;
    require_success(with_scratch([&](scratch space) {
      return gpu::evaluate(prospect::dpo{}, d.in(), d.out(), by, metrics.data(), space, nullptr);
    }));
    d.fetch();
    auto all = c.d_chosen.elements();
    all.push_back(metrics.host().total);
    return all;
  };
  const auto summed = coefficients(normaliser::sum());
  const auto over = coefficients(normaliser::over(8));
  const device_array<double> count{std::vector<double>{8.0}};
  CHECK(same_bits(over, coefficients(gpu::denominator::over(count.data()))));
  for (std::size_t i = 0; i < summed.size(); ++i) CHECK(over[i] == summed[i] / 8);
  count.set({0.0});
  CHECK(std::isnan(coefficients(gpu::denominator::over(count.data())).back()));
}

TEST_CASE("a graph replays with what the device holds by then") {
  random_source random{173};
  const std::int64_t n = 37;
  unpaired_case<float> c{random, n, true};
  on_device_completions<float> d{c};
  const device_array<prospect::sum_count> observed(1);
  const device_array<double> count(1);
  const device_metrics<prospect::unpaired_metrics> metrics;
  const auto launch = [&](cudaStream_t stream) {
    return gpu::evaluate(prospect::kto{}, d.in(), gpu::observed_point{observed.data()}, d.out(),
                         gpu::denominator::over(count.data()), metrics.data(), {}, stream);
  };
  const testing::recorded_graph graph{launch};
  const int replays = testing::full_size() ? 1000 : 3;
  for (int i = 0; i < replays; ++i) {
    observed.set({{.sum = 3.0 * i - 2, .count = 2}});
    count.set({1.0 + i});
    graph.replay();
    d.fetch();
    const auto replayed = testing::all_outputs<float>(c);
    const auto replayed_metrics = metrics.host();
    require_success(launch(nullptr));
    require_success(cudaDeviceSynchronize());
    d.fetch();
    REQUIRE(same_bits(replayed, testing::all_outputs<float>(c)));
    REQUIRE(testing::same_metrics(replayed_metrics, metrics.host()));
    REQUIRE(replayed_metrics.kl.mean() == std::max(0.0, (3.0 * i - 2) / 2));
  }
}

TEST_CASE("several launches are captured too, tickets included") {
  random_source random{174};
  const std::int64_t n = 512 + 3;
  unpaired_case<float> c{random, n, true, false};
  on_device_completions<float> d{c};
  const device_metrics<prospect::unpaired_metrics> metrics;
  const gpu::detail::unpaired_job<float, prospect::kto> job{
      {}, d.in(), prospect::cross_class{}, d.out(), normaliser::mean(), metrics.data()};
  std::size_t bytes = 0;
  require_success(gpu::detail::run(job, sequence_scheme::grid, scratch::size_into(bytes), nullptr));
  const device_array<std::byte> memory(bytes);
  const testing::recorded_graph graph{[&](cudaStream_t stream) {
    return gpu::detail::run(job, sequence_scheme::grid, {memory.data(), bytes}, stream);
  }};
  prospect::unpaired_metrics first;
  for (int i = 0; i < 3; ++i) {
    graph.replay();
    if (i == 0) first = metrics.host();
    CHECK(testing::same_metrics(first, metrics.host()));
  }
  CHECK(first.loss.count > 0);
}

TEST_CASE("what the host can see is checked before any work") {
  random_source random{175};
  paired_case<float> c{random, 9, false};
  on_device_pairs<float> d{c};
  const auto refused = [&](const auto& loss, const prospect::paired_batch<float>& in,
                           const prospect::paired_outputs<float>& out, gpu::denominator by,
                           std::string_view argument) {
    const char* why = gpu::problem(loss, in, out, by);
    REQUIRE(why != nullptr);
    CAPTURE(why);
    CHECK(std::string_view{why}.find(argument) != std::string_view::npos);
    CHECK(gpu::evaluate(loss, in, out, by, nullptr, {}, nullptr) == cudaErrorInvalidValue);
  };
  const auto by = normaliser::mean();
  refused(prospect::dpo{.beta = 0}, d.in(), d.out(), by, "beta");
  refused(prospect::dpo{}, d.in(), d.out(), normaliser::over(-1), "normaliser");
  auto in = d.in();
  in.reference_chosen = {};
  refused(prospect::dpo{}, in, d.out(), by, "reference");
  in = d.in();
  in.policy_rejected = in.policy_rejected.slice(0, 8);
  refused(prospect::dpo{}, in, d.out(), by, "policy_rejected");
  in = d.in();
  in.chosen_tokens = {};
  refused(prospect::ipo{}, in, d.out(), by, "tokens");
  auto out = d.out();
  out.reward_chosen = {out.reward_chosen.data(), 9, 0};
  refused(prospect::dpo{}, d.in(), out, by, "reward_chosen");
  // Rows that are no memory, with the sizes of those that are.
  const auto* const data = d.in().policy_chosen.data();
  const auto* const crooked =
      reinterpret_cast<const float*>(reinterpret_cast<std::uintptr_t>(data) + 1);
  const std::int64_t wide = std::int64_t{1} << 62;
  in = d.in();
  for (const prospect::strided_span<const float> row :
       {prospect::strided_span<const float>{nullptr, 9}, {crooked, 9}, {data, 9, wide}}) {
    in.reference_rejected = row;
    refused(prospect::dpo{}, in, d.out(), by, "reference_rejected");
  }
  for (const std::int64_t size : {std::int64_t{-9}, wide}) {
    in = {.policy_chosen = {data, size, 0},
          .policy_rejected = {data, size, 0},
          .reference_chosen = {data, size, 0},
          .reference_rejected = {data, size, 0}};
    refused(prospect::dpo{}, in, {}, by, "policy_chosen");
  }
  refused(prospect::dpo{}, d.in(), d.out(), gpu::denominator::over(nullptr), "normaliser");
  require_success(cudaDeviceSynchronize());
  d.fetch();
  for (auto* row : c.outputs()) {
    CHECK(
        same_bits(row->block(), std::vector<float>(row->block().size(), testing::poison<float>())));
  }

  CHECK(gpu::problem(gpu::observed_point{nullptr}) != nullptr);
  CHECK(gpu::problem(gpu::mismatched_batch<float>{.policy = d.in().policy_chosen}) != nullptr);
  CHECK(gpu::mismatched_kl(gpu::mismatched_batch<float>{}, {}, nullptr) == cudaErrorInvalidValue);
}

TEST_CASE("scratch that is too small is an error, and asking for its size does nothing") {
  random_source random{176};
  paired_case<float> c{random, 9, true};
  on_device_pairs<float> d{c};
  const device_metrics<prospect::paired_metrics> metrics;
  const gpu::detail::paired_job<float, prospect::dpo> job{
      {}, d.in(), d.out(), normaliser::mean(), metrics.data()};
  std::size_t bytes = 0;
  require_success(gpu::detail::run(job, sequence_scheme::grid, scratch::size_into(bytes), nullptr));
  CHECK(bytes > 0);
  const device_array<std::byte> memory(bytes);
  CHECK(gpu::detail::run(job, sequence_scheme::grid, {memory.data(), bytes - 1}, nullptr) ==
        cudaErrorInvalidValue);
  CHECK(gpu::detail::run(job, sequence_scheme::grid, {memory.data() + 1, bytes}, nullptr) ==
        cudaErrorInvalidValue);
  require_success(cudaDeviceSynchronize());
  d.fetch();
  for (auto* row : c.outputs()) {
    CHECK(
        same_bits(row->block(), std::vector<float>(row->block().size(), testing::poison<float>())));
  }
}
