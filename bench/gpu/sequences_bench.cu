// The sequence kernel: every loss, forward and backward with all outputs and metrics, from batches
// that one block holds (bound by the launch) to ten million rows (bound by memory). KTO forms its
// reference point from the batch's own mismatched rows.
#include "device.hpp"

#include <prospect/cuda/sequences.cuh>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstdint>

namespace {

namespace gpu = prospect::cuda;

struct batch {
  std::size_t n;
  bench::device_array<float> policy, other, reference, other_reference;
  bench::device_array<std::uint8_t> desirable;
  bench::device_array<std::int32_t> tokens;
  bench::device_array<float> loss, d, other_d, reward, other_reward;
  bench::device_array<prospect::paired_metrics> paired;
  bench::device_array<prospect::unpaired_metrics> unpaired;

  explicit batch(std::size_t size)
      : n{size},
        policy(n),
        other(n),
        reference(n),
        other_reference(n),
        desirable(n),
        tokens(n),
        loss(n),
        d(n),
        other_d(n),
        reward(n),
        other_reward(n),
        paired(1),
        unpaired(1) {
    std::vector<float> p, o, r, s;
    std::vector<std::uint8_t> up;
    for (std::size_t i = 0; i < n; ++i) {
      const double x = std::sin(static_cast<double>(i));
      p.push_back(static_cast<float>(-50 + 10 * x));
      o.push_back(static_cast<float>(-60 - 5 * x));
      r.push_back(static_cast<float>(-52 + 9 * x));
      s.push_back(static_cast<float>(-61 + 3 * x));
      up.push_back(i % 2);
    }
    policy.set(p), other.set(o), reference.set(r), other_reference.set(s), desirable.set(up);
    tokens.set(std::vector<std::int32_t>(n, 12));
  }
  template <class T>
  prospect::strided_span<T> row(const bench::device_array<T>& a) const {
    return {a.data(), static_cast<std::int64_t>(n)};
  }

  template <class Loss>
  cudaError_t evaluate(const Loss& f, gpu::scratch space, cudaStream_t stream) const {
    if constexpr (prospect::paired_loss<Loss>) {
      return gpu::evaluate<float>(f,
                                  {.policy_chosen = row(policy),
                                   .policy_rejected = row(other),
                                   .reference_chosen = row(reference),
                                   .reference_rejected = row(other_reference),
                                   .chosen_tokens = row(tokens),
                                   .rejected_tokens = row(tokens)},
                                  {.loss = row(loss),
                                   .d_policy_chosen = row(d),
                                   .d_policy_rejected = row(other_d),
                                   .reward_chosen = row(reward),
                                   .reward_rejected = row(other_reward)},
                                  prospect::normaliser::mean(), paired.data(), space, stream);
    } else {
      return gpu::evaluate<float>(
          f,
          {.policy = row(policy),
           .reference = row(reference),
           .desirable = row(desirable),
           .tokens = row(tokens),
           .target = prospect::reads_target<float>(f) ? row(other_reference)
                                                      : prospect::strided_span<float>{}},
          gpu::mismatched_batch<float>{.policy = row(other), .reference = row(other_reference)},
          {.loss = row(loss), .d_policy = row(d), .reward = row(reward)},
          prospect::normaliser::mean(), unpaired.data(), space, stream);
    }
  }
  /// Each row once: what the results take, and what the pass in front of them does.
  template <class Loss>
  double bytes(const Loss&) const {
    constexpr bool pairs = prospect::paired_loss<Loss>;
    const double row_bytes = pairs ? 9 * 4 + 2 * 4 + 2 * 4 : 5 * 4 + 1 + 4 + 2 * 4 + 4;
    return row_bytes * static_cast<double>(n);
  }
};

/// The mean loss against fp64.
template <class Loss>
void require_right_answer(const Loss& f, const batch& b, gpu::scratch space) {
  bench::require(b.evaluate(f, space, nullptr));
  bench::require(cudaDeviceSynchronize());
  const auto losses = b.loss.host(0, b.n);
  double sum = 0;
  for (const float x : losses) sum += static_cast<double>(x);
  double total = 0;
  if constexpr (prospect::paired_loss<Loss>) {
    total = b.paired.host(0, 1)[0].total;
  } else {
    total = b.unpaired.host(0, 1)[0].total;
  }
  const double mean = sum / static_cast<double>(b.n);
  bench::require(std::abs(total - mean) <= 1e-5 * (1e-3 + std::abs(mean)),
                 std::string{Loss::name} + ": the mean loss is wrong");
  // One example by itself, in fp64.
  const double x = std::sin(1.0);
  const double up = (-50 + 10 * x) - (-52 + 9 * x);
  const double down = (-60 - 5 * x) - (-61 + 3 * x);
  double want = 0;
  if constexpr (prospect::paired_loss<Loss>) {
    want = prospect::differentiate(
               f, prospect::pair<double>{{-50 + 10 * x, up, 12}, {-60 - 5 * x, down, 12}})
               .loss;
    // All completions are of one length, so that a mean over tokens is one over pairs.
    want -= next_token_of(f).weight * (-50 + 10 * x) / 12;
  } else {
    const double z = b.unpaired.host(0, 1)[0].kl.sum;
    want = prospect::differentiate(
               f, prospect::unpaired<double>{{-50 + 10 * x, up, 12}, z, true, -61 + 3 * x})
               .loss;
  }
  bench::require(std::abs(static_cast<double>(losses[1]) - want) <= 1e-4 * (1e-3 + std::abs(want)),
                 std::string{Loss::name} + ": a loss is wrong");
}

template <class Loss>
void run_row(benchmark::State& state, const Loss& f, std::size_t n) {
  bench::stopwatch watch;
  const batch b{n};
  std::size_t bytes = 0;
  bench::require(b.evaluate(f, gpu::scratch::size_into(bytes), nullptr));
  const bench::device_array<std::byte> memory(bytes);
  const gpu::scratch space{memory.data(), bytes};
  require_right_answer(f, b, space);
  const bool large = n >= 1000000;
  const int calls = large || bench::tiny() ? 1 : 50;
  const double seconds =
      watch.median([&](cudaStream_t stream) { return b.evaluate(f, space, stream); }, calls);
  const double rate =
      large ? bench::limit(watch, bench::traffic::copy, static_cast<std::size_t>(b.bytes(f))) : 0;
  // As counted for MODEL.md with all results; KTO's mismatched pairs are another pass of bytes
  // alone.
  const double instructions = Loss::name == std::string_view{"dpo"}   ? 112
                              : Loss::name == std::string_view{"kto"} ? 85
                                                                      : 0;
  const double model =
      large ? bench::model(b.bytes(f), rate, instructions * static_cast<double>(n) / 32) : 0;
  bench::report(state, seconds, large ? b.bytes(f) : 0, rate, bytes > 0 ? 2 : 1, model);
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return 77;
  const std::vector<std::size_t> sizes = bench::tiny()
                                             ? std::vector<std::size_t>{64, 9000}
                                             : std::vector<std::size_t>{64, 4096, 65536, 10000000};
  const auto add_rows = [&](const auto& loss) {
    for (const std::size_t n : sizes) {
      const std::string name =
          "gpu/sequences/" + std::string{loss.name} + "/n:" + std::to_string(n);
      benchmark::RegisterBenchmark(name.c_str(),
                                   [loss, n](benchmark::State& state) { run_row(state, loss, n); })
          ->UseManualTime()
          ->Iterations(1);
    }
  };
  prospect::for_each_loss([&]<class Loss>(const Loss& loss) {
    if constexpr (!prospect::token_loss<Loss>) {
      // A gold completion of each pair is not among the rows here.
      const prospect::next_token_term term = next_token_of(loss);
      if (!term.third || term.chosen) add_rows(loss);
    }
  });
  benchmark::RunSpecifiedBenchmarks();
}
