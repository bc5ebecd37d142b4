// Phase 2 on the CPU: every loss of losses.def on a batch of sums, with loss, coefficients, rewards
// and metrics; beside them a plain copy, the limit of anything that reads and writes memory.
#include <prospect/prospect.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace {

template <class S>
std::vector<S> random_sums(std::size_t n, unsigned seed) {
  std::mt19937 random{seed};
  std::normal_distribution<S> sum{-60, 10};
  std::vector<S> sums(n);
  std::generate(sums.begin(), sums.end(), [&] { return sum(random); });
  return sums;
}

/// A batch of n examples for losses of either kind; thumbs alternate.
template <class S>
struct batch {
  explicit batch(std::size_t n)
      : policy{random_sums<S>(n, 1)},
        other_policy{random_sums<S>(n, 2)},
        reference{random_sums<S>(n, 3)},
        other_reference{random_sums<S>(n, 4)},
        tokens(n, 40),
        desirable(n),
        loss(n),
        d_policy(n),
        d_other_policy(n),
        reward(n),
        other_reward(n) {
    for (std::size_t i = 0; i < n; i += 2) desirable[i] = 1;
  }

  template <class Loss>
  double evaluate(const Loss& f) {
    if constexpr (prospect::paired_loss<Loss>) {
      return prospect::cpu::evaluate<S>(f,
                                        {.policy_chosen = policy,
                                         .policy_rejected = other_policy,
                                         .reference_chosen = reference,
                                         .reference_rejected = other_reference,
                                         .chosen_tokens = tokens,
                                         .rejected_tokens = tokens},
                                        {.loss = loss,
                                         .d_policy_chosen = d_policy,
                                         .d_policy_rejected = d_other_policy,
                                         .reward_chosen = reward,
                                         .reward_rejected = other_reward},
                                        prospect::normaliser::sum())
          .total;
    } else {
      return prospect::cpu::evaluate<S>(f,
                                        {.policy = policy,
                                         .reference = reference,
                                         .desirable = desirable,
                                         .tokens = tokens},
                                        {.z = 1.0, .raw = 1.0},
                                        {.loss = loss, .d_policy = d_policy, .reward = reward},
                                        prospect::normaliser::sum())
          .total;
    }
  }

  /// Bytes that one evaluation has to read and write.
  template <class Loss>
  std::size_t bytes(const Loss&) const {
    constexpr bool pairs = prospect::paired_loss<Loss>;
    const std::size_t example =
        pairs ? 9 * sizeof(S) + 2 * sizeof(std::int32_t) : 5 * sizeof(S) + sizeof(std::int32_t) + 1;
    return example * policy.size();
  }

  std::vector<S> policy, other_policy, reference, other_reference;
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> desirable;
  std::vector<S> loss, d_policy, d_other_policy, reward, other_reward;
};

/// The coefficient of every example against a central difference of its own loss.
template <class Loss>
void require_right_answer(const Loss& loss) {
  constexpr double step = 1e-4;
  batch<double> at{64};
  batch<double> above = at;
  batch<double> below = at;
  for (double& p : above.policy) p += step;
  for (double& p : below.policy) p -= step;
  at.evaluate(loss);
  above.evaluate(loss);
  below.evaluate(loss);
  for (std::size_t i = 0; i < at.loss.size(); ++i) {
    const double slope = (above.loss[i] - below.loss[i]) / (2 * step);
    if (!(std::abs(slope - at.d_policy[i]) <= 1e-6 * std::max(1e-2, std::abs(slope)))) {
      std::fprintf(stderr, "%s: coefficient %g, difference quotient %g\n",
                   std::string{Loss::name}.c_str(), at.d_policy[i], slope);
      std::exit(1);
    }
  }
}

void report(benchmark::State& state, std::size_t bytes) {
  state.SetItemsProcessed(state.iterations() * state.range(0));
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(bytes));
}

template <class Loss>
void evaluate(benchmark::State& state, const Loss& loss) {
  batch<float> data{static_cast<std::size_t>(state.range(0))};
  for (auto _ : state) benchmark::DoNotOptimize(data.evaluate(loss));
  report(state, data.bytes(loss));
}

void copy(benchmark::State& state) {
  const auto from = random_sums<float>(static_cast<std::size_t>(state.range(0)), 1);
  std::vector<float> to(from.size());
  for (auto _ : state) {
    std::copy(from.begin(), from.end(), to.begin());
    benchmark::DoNotOptimize(to.data());
    benchmark::ClobberMemory();
  }
  report(state, 2 * sizeof(float) * from.size());
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const auto sizes = [](benchmark::internal::Benchmark* b) { b->Arg(64)->Arg(4096)->Arg(1 << 20); };
  prospect::for_each_loss([&](const auto& loss) {
    require_right_answer(loss);
    const std::string name{loss.name};
    sizes(benchmark::RegisterBenchmark(name.c_str(),
                                       [loss](benchmark::State& state) { evaluate(state, loss); }));
  });
  sizes(benchmark::RegisterBenchmark("copy", copy));
  benchmark::RunSpecifiedBenchmarks();
}
