// Phase 2 on CUDA: every loss, storage type, point and launch scheme, against the textbook where it
// has a word to say and against the CPU otherwise.
#include <prospect/cpu/sequences.hpp>
#include <prospect/cuda/sequences.cuh>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string_view>
#include <vector>

#include "catch.hpp"
#include "cpu/cases.hpp"
#include "cpu/sequence_checks.hpp"
#include "cuda/device.hpp"
#include "oracle/simple_kto.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using gpu::scratch;
using gpu::detail::sequence_scheme;
using prospect::bfloat16;
using prospect::float16;
using prospect::normaliser;
using prospect::reference_point;
using testing::device_array;
using testing::device_row;
using testing::paired_case;
using testing::random_source;
using testing::require_success;
using testing::same_bits;
using testing::unpaired_case;
using testing::with_scratch;

constexpr sequence_scheme schemes[] = {sequence_scheme::block, sequence_scheme::cluster,
                                       sequence_scheme::grid};

bool has_clusters() {
  gpu::detail::device_limits device;
  require_success(gpu::detail::device_limits::of_current(device));
  return device.major >= 9;
}

/// Metrics on the device, poisoned.
template <class Metrics>
struct device_metrics {
  device_array<Metrics> memory{1};
  Metrics* data() const { return memory.data(); }
  Metrics host() const { return memory.host()[0]; }
};

template <class S>
struct on_device_pairs {
  device_row<S> policy_chosen, policy_rejected, reference_chosen, reference_rejected;
  device_row<std::int32_t> chosen_tokens, rejected_tokens;
  device_row<S> loss, d_chosen, d_rejected, reward_chosen, reward_rejected;

  explicit on_device_pairs(paired_case<S>& c)
      : policy_chosen{c.policy_chosen},
        policy_rejected{c.policy_rejected},
        reference_chosen{c.reference_chosen},
        reference_rejected{c.reference_rejected},
        chosen_tokens{c.chosen_tokens},
        rejected_tokens{c.rejected_tokens},
        loss{c.loss},
        d_chosen{c.d_chosen},
        d_rejected{c.d_rejected},
        reward_chosen{c.reward_chosen},
        reward_rejected{c.reward_rejected} {}
  prospect::paired_batch<S> in() const {
    return {.policy_chosen = policy_chosen.view(),
            .policy_rejected = policy_rejected.view(),
            .reference_chosen = reference_chosen.view(),
            .reference_rejected = reference_rejected.view(),
            .chosen_tokens = chosen_tokens.view(),
            .rejected_tokens = rejected_tokens.view()};
  }
  prospect::paired_outputs<S> out() const {
    return {.loss = loss.view(),
            .d_policy_chosen = d_chosen.view(),
            .d_policy_rejected = d_rejected.view(),
            .reward_chosen = reward_chosen.view(),
            .reward_rejected = reward_rejected.view()};
  }
  void fetch() {
    for (auto* row : {&loss, &d_chosen, &d_rejected, &reward_chosen, &reward_rejected}) {
      row->fetch();
    }
  }
};

template <class S>
struct on_device_completions {
  device_row<S> policy, reference;
  device_row<std::uint8_t> desirable;
  device_row<std::int32_t> tokens;
  device_row<S> loss, d_policy, reward;

  explicit on_device_completions(unpaired_case<S>& c)
      : policy{c.policy},
        reference{c.reference},
        desirable{c.desirable},
        tokens{c.tokens},
        loss{c.loss},
        d_policy{c.d_policy},
        reward{c.reward} {}
  prospect::unpaired_batch<S> in() const {
    return {.policy = policy.view(),
            .reference = reference.view(),
            .desirable = desirable.view(),
            .tokens = tokens.view()};
  }
  prospect::unpaired_outputs<S> out() const {
    return {.loss = loss.view(), .d_policy = d_policy.view(), .reward = reward.view()};
  }
  void fetch() {
    for (auto* row : {&loss, &d_policy, &reward}) row->fetch();
  }
};

/// The back end under test, by its own choice of a scheme.
struct cuda_back_end {
  template <class S, class L>
  prospect::paired_metrics operator()(const L& loss, paired_case<S>& c) const {
    on_device_pairs<S> d{c};
    const device_metrics<prospect::paired_metrics> metrics;
    require_success(with_scratch([&](scratch space) {
      return gpu::evaluate(loss, d.in(), d.out(), normaliser::mean(), metrics.data(), space,
                           nullptr);
    }));
    d.fetch();
    return metrics.host();
  }
  template <class S, class L, class Point>
  prospect::unpaired_metrics operator()(const L& loss, unpaired_case<S>& c,
                                        const Point& point) const {
    on_device_completions<S> d{c};
    const device_metrics<prospect::unpaired_metrics> metrics;
    require_success(with_scratch([&](scratch space) {
      return gpu::evaluate(loss, d.in(), point, d.out(), normaliser::mean(), metrics.data(), space,
                           nullptr);
    }));
    d.fetch();
    return metrics.host();
  }
};
constexpr cuda_back_end on_cuda;

/// By a scheme of the test's choice.
template <class Job>
void run_scheme(const Job& job, sequence_scheme scheme) {
  require_success(
      with_scratch([&](scratch space) { return gpu::detail::run(job, scheme, space, nullptr); }));
}

/// What a user writes: ten lines, no line for a device.
struct exponential_loss {
  double beta = 0.1;
  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return prospect::exp(-beta * p.log_ratio_margin());
  }
};

std::vector<std::int64_t> sizes() {
  return testing::full_size() ? std::vector<std::int64_t>{1, 7, 131, 2049, 9001, 200000}
                              : std::vector<std::int64_t>{1, 7, 131};
}

}  // namespace

// ----------------------------------------------------------------- every loss, dtype, and layout

TEMPLATE_TEST_CASE("paired losses agree with their oracle on the device", "", float, double,
                   bfloat16, float16) {
  random_source random{161};
  CAPTURE(random.seed());
  testing::for_each_type<testing::paired_losses>([&](const auto& loss) {
    for (const std::int64_t n : sizes()) {
      paired_case<TestType> c{random, n, n % 2 == 1};
      testing::check_paired(on_cuda, loss, c);
    }
  });
}

TEMPLATE_TEST_CASE("unpaired losses agree with their oracle on the device", "", float, double,
                   bfloat16, float16) {
  random_source random{162};
  CAPTURE(random.seed());
  testing::for_each_type<testing::unpaired_losses>([&](auto loss) {
    loss.desirable_weight = 1.5;
    loss.undesirable_weight = 0.75;
    for (const std::int64_t n : sizes()) {
      unpaired_case<TestType> c{random, n, n % 2 == 1};
      testing::check_unpaired(on_cuda, loss, c, 0.75);
    }
  });
}

TEST_CASE("a loss of the user's own runs in the same kernel") {
  random_source random{163};
  paired_case<float> c{random, 131, true};
  paired_case<float> twin = c;
  const exponential_loss loss;
  const auto on_host = prospect::cpu::evaluate(loss, twin.in(), twin.out());
  const auto metrics = on_cuda(loss, c);
  CHECK(testing::near(metrics.total, on_host.total, 1e-6L));
  for (std::int64_t i = 0; i < 131; ++i) {
    CAPTURE(i);
    // The margin is rounded at 8 e^-margin's slope, on both sides.
    CHECK(testing::near(c.loss[i], twin.loss[i], 4e-6L));
    CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 4e-6L));
    CHECK(testing::near(c.d_rejected[i], twin.d_rejected[i], 4e-6L));
  }
}

// -------------------------------------------------------------------------------- launch schemes

TEST_CASE("every scheme gives the same bits") {
  random_source random{164};
  // Two stripes, and a few rows of a third.
  const std::int64_t n = 2 * gpu::detail::rows_per_tile + 77;
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
  const std::int64_t n = gpu::detail::rows_per_tile + 501;
  const std::int64_t mismatched = 2 * gpu::detail::rows_per_tile + 1;
  unpaired_case<float> c{random, n, true, false};
  unpaired_case<float> other{random, mismatched, true, false};
  on_device_completions<float> o{other};
  const device_array<prospect::sum_count> observed(1);
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

TEST_CASE("one launch as far as one reaches, then one for each pass") {
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
  const auto middle = has_clusters() ? sequence_scheme::cluster : sequence_scheme::grid;
  CHECK(scheme(0, false) == sequence_scheme::block);
  CHECK(scheme(8192, true) == sequence_scheme::block);
  CHECK(scheme(8193, true) == middle);
  CHECK(scheme(131072, false) == middle);
  CHECK(scheme(131073, false) == sequence_scheme::grid);
}

// -------------------------------------------------------------------------------- reference points

TEMPLATE_TEST_CASE("SimpleKTO on the device agrees with its oracle", "", float, double) {
  using S = TestType;
  random_source random{166};
  for (const double level : {-3.0, 0.0, 4.0}) {
    for (const std::int64_t n : {std::int64_t{2}, std::int64_t{24}, std::int64_t{131}}) {
      CAPTURE(level, n);
      unpaired_case<S> c{random, n, false};
      oracle::simple_kto_batch classes;
      for (std::int64_t i = 0; i < n; ++i) {
        c.desirable[i] = i == 0 || (i != 1 && random.chance(0.4)) ? 1 : 0;
        c.policy[i] = static_cast<S>(level + random.normal(4));
        c.reference[i] = 0;
        (c.desirable[i] != 0 ? classes.desirable : classes.undesirable).push_back(c.policy[i]);
      }
      const prospect::kto loss{.desirable_weight = 1.5};
      const auto metrics = on_cuda(loss, c, prospect::cross_class{});
      const auto want = oracle::simple_kto(classes, loss.beta, loss.desirable_weight);
      const oracle::real tolerance = 24 * std::numeric_limits<S>::epsilon();
      std::size_t up = 0;
      std::size_t down = 0;
      for (std::int64_t i = 0; i < n; ++i) {
        CAPTURE(i);
        const bool desirable = c.desirable[i] != 0;
        const auto l = desirable ? want.desirable[up] : want.undesirable[down];
        const auto d = desirable ? want.d_desirable[up] : want.d_undesirable[down];
        (desirable ? up : down) += 1;
        CHECK(testing::near(c.loss[i], l, 0, tolerance));
        CHECK(testing::near(c.d_policy[i], d, 0, tolerance * loss.beta / static_cast<double>(n)));
      }
      CHECK(testing::near(metrics.total, want.loss, 0, tolerance));
      CHECK(metrics.kl.count == 2);
    }
  }
}

TEST_CASE("every provider of the same point gives the same bits") {
  random_source random{167};
  const std::int64_t n = 131;
  unpaired_case<float> c{random, n, true};
  for (const double shift : {-20.0, 2.0}) {  // clamped, and not
    CAPTURE(shift);
    unpaired_case<float> other{random, 57, true};
    for (std::int64_t i = 0; i < 57; ++i) {
      other.reference[i] = other.policy[i] - static_cast<float>(shift);
    }
    on_device_completions<float> o{other};
    const device_array<prospect::sum_count> observed(1);
    const gpu::mismatched_batch<float> batch{.policy = o.policy.view(),
                                             .reference = o.reference.view(),
                                             .tokens = o.tokens.view(),
                                             .observed = observed.data()};
    require_success(
        with_scratch([&](scratch space) { return gpu::mismatched_kl(batch, space, nullptr); }));
    const prospect::sum_count seen = observed.host()[0];
    const auto want = prospect::cpu::mismatched_kl<float>(other.in().policy, other.in().reference,
                                                          other.in().tokens);
    CHECK(seen.count == want.count);
    CHECK(testing::near(seen.sum, want.sum, 1e-12L));

    const prospect::kto loss;
    const reference_point point = reference_point::from(seen);
    CHECK((point.z > 0) == (shift > 0));
    const auto by_value = on_cuda(loss, c, point);
    const auto first = testing::all_outputs<float>(c);
    const auto by_observation = on_cuda(loss, c, gpu::observed_point{observed.data()});
    CHECK(same_bits(first, testing::all_outputs<float>(c)));
    const auto by_batch = on_cuda(loss, c, batch);
    CHECK(same_bits(first, testing::all_outputs<float>(c)));
    CHECK(testing::same_metrics(by_value, by_observation));
    CHECK(testing::same_metrics(by_value, by_batch));
    CHECK(by_batch.kl.mean() == point.z);
    CHECK(by_batch.kl_unclamped.mean() == point.raw);
  }
}

TEST_CASE("a mismatched batch may be empty, and a class absent") {
  random_source random{168};
  unpaired_case<float> c{random, 9, false};
  for (std::int64_t i = 0; i < 9; ++i) c.desirable[i] = 1;
  const auto none = on_cuda(prospect::kto{}, c, gpu::mismatched_batch<float>{});
  CHECK(none.kl.mean() == 0);
  CHECK(none.rewards_chosen.count == 9);
  CHECK(!none.rewards_rejected.present());
  const auto cross = on_cuda(prospect::kto{}, c, prospect::cross_class{});
  CHECK(cross.kl.count == 1);  // the absent class offers no baseline
  CHECK(std::isfinite(cross.total));
  unpaired_case<float> twin = c;
  const auto want =
      prospect::cpu::evaluate(prospect::kto{}, twin.in(), prospect::cross_class{}, twin.out());
  for (std::int64_t i = 0; i < 9; ++i) {
    CHECK(testing::near(c.d_policy[i], twin.d_policy[i], 1e-6L, 1e-9L));
  }
  CHECK(testing::near(cross.total, want.total, 1e-6L));
}

// ----------------------------------------------------------------------------------- hostile rows

TEST_CASE("an empty batch writes metrics that count nothing") {
  random_source random{169};
  paired_case<float> c{random, 0, false};
  const auto pairs = on_cuda(prospect::dpo{}, c);
  CHECK(testing::same_metrics(pairs, prospect::paired_metrics{}));
  unpaired_case<float> u{random, 0, false};
  const auto completions = on_cuda(prospect::kto{}, u, prospect::cross_class{});
  CHECK(testing::same_metrics(completions, prospect::unpaired_metrics{}));
}

TEST_CASE("a row without tokens is not read, and one that is not finite stays alone") {
  random_source random{170};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  const std::int64_t n = 40;
  paired_case<float> c{random, n, false};
  const auto clean_metrics = on_cuda(prospect::dpo{}, c);
  paired_case<float> clean = c;
  for (auto* row : c.outputs()) row->block().assign(row->block().size(), testing::poison<float>());

  c.chosen_tokens[5] = 0;  // not counted, whatever is in it
  c.policy_chosen[5] = nan;
  c.reference_rejected[5] = infinity;
  c.policy_rejected[17] = nan;
  c.policy_chosen[30] = -infinity;
  const auto m = on_cuda(prospect::dpo{}, c);
  CHECK(m.loss.count == n - 1);
  CHECK(m.nonfinite.sum == 2);
  CHECK(m.nonfinite.count == n - 1);
  CHECK(m.first_nonfinite == 17);
  CHECK(std::isnan(m.total));
  CHECK(clean_metrics.first_nonfinite == -1);
  CHECK(same_bits(c.loss[5], 0.0F));
  CHECK(same_bits(c.d_chosen[5], 0.0F));
  CHECK(std::isnan(c.loss[17]));
  for (std::int64_t i = 0; i < n; ++i) {
    if (i == 5 || i == 17 || i == 30) continue;
    CAPTURE(i);
    CHECK(same_bits(c.loss[i], clean.loss[i]));
    // One row less in the mean.
    CHECK(testing::near(c.d_chosen[i], clean.d_chosen[i] * (40.0L / 39), 3e-7L));
  }
  for (auto* row : c.outputs()) CHECK(row->only_elements_written());

  // SimpleKTO: a broken row of one class leaves the other class's point alone.
  unpaired_case<float> u{random, n, false};
  unpaired_case<float> v = u;
  v.policy[3] = nan;
  const auto whole = on_cuda(prospect::kto{}, v, prospect::cross_class{});
  CHECK(whole.nonfinite.sum == 1);
  CHECK(whole.first_nonfinite == 3);
  unpaired_case<float> twin = v;
  prospect::cpu::evaluate(prospect::kto{}, twin.in(), prospect::cross_class{}, twin.out());
  for (std::int64_t i = 0; i < n; ++i) {
    CAPTURE(i);
    if (i == 3) continue;
    CHECK(std::isfinite(v.d_policy[i]));
    CHECK(testing::near(v.d_policy[i], twin.d_policy[i], 4e-6L, 1e-9L));
  }
}

TEST_CASE("margins up to 1e30 are finite where the mathematics is") {
  testing::for_each_type<testing::paired_losses>([&](const auto& loss) {
    using L = std::remove_cvref_t<decltype(loss)>;
    CAPTURE(std::string{L::name});
    random_source random{171};
    const std::vector<double> ratios{0, -0.5, 3, 20, -40, 250, -800, 1e10, -1e10, 1e30, -1e30};
    const auto count = static_cast<std::int64_t>(ratios.size());
    paired_case<float> c{random, count * count, false};
    for (std::int64_t i = 0; i < c.loss.size(); ++i) {
      c.policy_chosen[i] = static_cast<float>(ratios[static_cast<std::size_t>(i / count)]);
      c.policy_rejected[i] = static_cast<float>(ratios[static_cast<std::size_t>(i % count)]);
      c.reference_chosen[i] = c.reference_rejected[i] = 0;
    }
    on_cuda(loss, c);
    paired_case<float> twin = c;
    prospect::cpu::evaluate(loss, twin.in(), twin.out());
    for (std::int64_t i = 0; i < c.loss.size(); ++i) {
      CAPTURE(c.policy_chosen[i], c.policy_rejected[i]);
      CHECK(std::isfinite(c.loss[i]) == std::isfinite(twin.loss[i]));
      CHECK(testing::near(c.loss[i], twin.loss[i], 2e-6L, 1e-30L));
      CHECK(testing::near(c.d_chosen[i], twin.d_chosen[i], 2e-6L, 1e-30L));
      CHECK(testing::near(c.d_rejected[i], twin.d_rejected[i], 2e-6L, 1e-30L));
    }
  });
}

// ------------------------------------------------------------------------- denominators and graphs

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
  const std::int64_t n = gpu::detail::rows_per_tile + 3;
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

// ----------------------------------------------------------------------------------------- errors

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
