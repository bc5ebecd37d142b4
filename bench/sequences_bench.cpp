// Phase 2 on the CPU: every loss of losses.def on a batch of sums, with loss, coefficients, rewards
// and metrics. Batches that no cache holds are timed in turn with a copy of as many bytes, the
// limit of anything that reads and writes memory; the others in turn with DPO and, where they cost
// more, with their primitives alone. peers/sequences.py does KTO and DPO in PyTorch,
// on the same inputs: these two losses have no use for token counts, so they are given none.
#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"
#include "primitives.hpp"

#include <prospect/prospect.hpp>

#include <memory>

namespace {

using namespace bench;

template <class Loss>
constexpr bool has_peer = Loss::name == "kto" || Loss::name == "dpo";

array<float> random_sums(std::size_t n, std::uint64_t seed) {
  random_numbers random{seed};
  array<float> sums(n);
  for (float& sum : sums) sum = static_cast<float>(-60 + 10 * random.normal());
  return sums;
}

/// A batch of n examples for losses of either kind; thumbs alternate.
struct batch {
  explicit batch(std::size_t n)
      : policy{random_sums(n, 1)},
        other_policy{random_sums(n, 2)},
        reference{random_sums(n, 3)},
        other_reference{random_sums(n, 4)},
        tokens(n),
        desirable(n),
        loss(n),
        d_policy(n),
        d_other_policy(n),
        reward(n),
        other_reward(n) {
    std::fill(tokens.begin(), tokens.end(), 40);
    for (std::size_t i = 0; i < n; ++i) desirable[i] = i % 2 == 0;
  }

  template <class Loss>
  double evaluate(const Loss& f, prospect::thread_pool& on) {
    const std::span<const std::int32_t> counts =
        has_peer<Loss> ? std::span<const std::int32_t>{} : tokens;
    if constexpr (prospect::paired_loss<Loss>) {
      return prospect::cpu::evaluate<float>(f,
                                            {.policy_chosen = policy,
                                             .policy_rejected = other_policy,
                                             .reference_chosen = reference,
                                             .reference_rejected = other_reference,
                                             .chosen_tokens = counts,
                                             .rejected_tokens = counts},
                                            {.loss = loss,
                                             .d_policy_chosen = d_policy,
                                             .d_policy_rejected = d_other_policy,
                                             .reward_chosen = reward,
                                             .reward_rejected = other_reward},
                                            prospect::normaliser::sum(), on)
          .total;
    } else {
      return prospect::cpu::evaluate<float>(f,
                                            {.policy = policy,
                                             .reference = reference,
                                             .desirable = desirable,
                                             .tokens = counts,
                                             .target = targets_of(f)},
                                            {.z = 1.0, .raw = 1.0},
                                            {.loss = loss, .d_policy = d_policy, .reward = reward},
                                            prospect::normaliser::sum(), on)
          .total;
    }
  }

  /// For a loss that regresses on some.
  template <class Loss>
  prospect::strided_span<const float> targets_of(const Loss& f) const {
    if (!prospect::reads_target<float>(f)) return {};
    return other_reference;
  }

  /// Bytes that one evaluation has to read and write, each once.
  template <class Loss>
  std::size_t bytes(const Loss&) const {
    constexpr bool pairs = prospect::paired_loss<Loss>;
    constexpr std::size_t counts = has_peer<Loss> ? 0 : sizeof(std::int32_t);
    constexpr std::size_t example =
        pairs ? 9 * sizeof(float) + 2 * counts : 5 * sizeof(float) + counts + 1;
    return example * policy.size();
  }

  array<float> policy, other_policy, reference, other_reference;
  array<std::int32_t> tokens;
  array<std::uint8_t> desirable;
  array<float> loss, d_policy, d_other_policy, reward, other_reward;
};

/// The loss of example i of a batch, its policies moved by `step`: the formula itself, in fp64.
template <class Loss>
double loss_of(const Loss& loss, const batch& at, std::size_t i, double step) {
  const auto side = [&](float policy, float reference) {
    const double p = policy + step;
    return prospect::completion<double>{.policy = p, .ratio = p - reference, .tokens = 40};
  };
  if constexpr (prospect::paired_loss<Loss>) {
    return loss(prospect::pair<double>{
        .chosen = side(at.policy[i], at.reference[i]),
        .rejected = {.policy = at.other_policy[i],
                     .ratio = double{at.other_policy[i]} - at.other_reference[i],
                     .tokens = 40}});
  } else {
    return loss(prospect::unpaired<double>{.answer = side(at.policy[i], at.reference[i]),
                                           .z = 1,
                                           .desirable = at.desirable[i] != 0,
                                           .target = at.other_reference[i]});
  }
}

/// The coefficient of every example against a central difference of its loss, to which a next-token
/// term adds its weight.
template <class Loss>
void require_right_answer(const Loss& loss) {
  constexpr double step = 1e-4;
  batch at{64};
  at.evaluate(loss, all_cores());
  const prospect::next_token_term term = next_token_of(loss);
  const double weight = term.chosen ? term.weight : 0;
  for (std::size_t i = 0; i < at.loss.size(); ++i) {
    const double slope = (loss_of(loss, at, i, step) - loss_of(loss, at, i, -step)) / (2 * step);
    require_close(std::string{Loss::name} + " coefficient", at.d_policy[i], slope - weight,
                  1e-5 * std::max(1e-2, std::abs(slope)));
  }
}

template <class Loss>
void evaluate(benchmark::State& state, const Loss& loss, std::size_t n, prospect::thread_pool& on) {
  require_right_answer(loss);
  batch data{n};
  time_each(
      state, [] {}, [&] { benchmark::DoNotOptimize(data.evaluate(loss, on)); });
}

/// In turn with DPO on the same rows, and with the primitives of the loss where they are known: the
/// counters are the medians of the factors.
template <class Loss>
void evaluate_beside_dpo(benchmark::State& state, const Loss& loss, std::size_t n,
                         prospect::thread_pool& on) {
  require_right_answer(loss);
  batch data{n};
  const auto seconds = [&](const auto& other) {
    return seconds_of([&] { benchmark::DoNotOptimize(data.evaluate(other, on)); });
  };
  stopwatch watch;
  std::vector<double> of_dpo, of_primitives;
  seconds(loss);
  for (auto _ : state) {
    const double dpo = seconds(prospect::dpo{});
    const double took = watch.time([&] { benchmark::DoNotOptimize(data.evaluate(loss, on)); });
    state.SetIterationTime(took);
    of_dpo.push_back(took / dpo);
    if constexpr (has_primitives<Loss>) {
      of_primitives.push_back(took / seconds(only_primitives<Loss>{}));
    }
  }
  watch.report(state);
  state.counters["of_dpo"] = median(of_dpo);
  if constexpr (has_primitives<Loss>) state.counters["of_primitives"] = median(of_primitives);
}

template <class Loss>
void evaluate_against_copy(benchmark::State& state, const Loss& loss, std::size_t n,
                           prospect::thread_pool& on) {
  require_right_answer(loss);
  batch data{n};
  const array<std::byte> memory{data.bytes(loss)};
  std::fill(memory.begin(), memory.end(), std::byte{1});
  const memory_limit& limit = limit_of(traffic::copy, on, memory.bytes());
  time_against(
      state, [&] { return limit.rate(memory.bytes()); }, [] {},
      [&] {
        benchmark::DoNotOptimize(data.evaluate(loss, on));
        return static_cast<double>(data.bytes(loss));
      });
}

template <class Loss>
void register_rows(const Loss& loss, prospect::thread_pool& on) {
  const std::string name{loss.name};
  const auto add = [&](std::size_t n, auto body) {
    const std::string row = "sequences/" + name + "/n:" + std::to_string(n) +
                            "/threads:" + std::to_string(on.threads());
    return benchmark::RegisterBenchmark(
               row.c_str(), [=, &on](benchmark::State& state) { body(state, loss, n, on); })
        ->UseManualTime();
  };
  if constexpr (!has_peer<Loss>) {
    for (const std::size_t n : {1024U, 262144U}) add(n, evaluate_beside_dpo<Loss>);
  } else {
    for (const std::size_t n : {64U, 1024U, 16384U, 262144U, 1U << 20}) add(n, evaluate<Loss>);
    add(10000000, evaluate_against_copy<Loss>)->Iterations(7);
  }
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  for (prospect::thread_pool* const on : pools()) {
    prospect::for_each_loss([&]<class Loss>(const Loss& loss) {
      if constexpr (!prospect::token_loss<Loss>) {
        // A gold completion of each pair is not among the rows here.
        const prospect::next_token_term term = next_token_of(loss);
        if (!term.third || term.chosen) register_rows(loss, *on);
      }
    });
  }
  benchmark::RunSpecifiedBenchmarks();
}
