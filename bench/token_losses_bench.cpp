// Losses of tokens on the CPU: every one of losses.def on a batch of sequences, with coefficients
// and metrics, timed in turn with a pass that only reads as many bytes. Rows are fp32, as phase 1
// writes them, with a mask, and with an old policy and a reference where the loss reads them. They
// come from memory, as after logits have gone through the caches: one batch after the other of more
// than a cache holds. peers/token_losses.py does SFT and GRPO in PyTorch, on as many.
#include "limits.hpp"
#include "logits.hpp"
#include "memory.hpp"

#include <prospect/losses/any.hpp>
#include <prospect/prospect.hpp>

#include <string>
#include <vector>

namespace {

using namespace bench;

constexpr std::size_t length = 1024;
constexpr std::size_t batches = 16;

/// Of ratios near 1 and far from it: a loss may be even, or bounded, about 1.
bool reads_old(const prospect::any_token& loss) {
  const auto at = [&](double ratio, double advantage) {
    const double sum = 0.5 * ratio;
    return loss(prospect::token<double>{
        .policy = -2, .ratio = ratio, .advantage = advantage, .sum = sum, .tokens = 2});
  };
  for (const double ratio : {-3.0, -0.1, 0.1, 3.0}) {
    if (at(ratio, 1) != at(0, 1) || at(ratio, -1) != at(0, -1)) return true;
  }
  return false;
}

template <class S>
struct batch {
  explicit batch(std::size_t n)
      : policy(n), old(n), reference(n), d_policy(n), advantage(n / length), mask(n) {
    random_numbers random{1};
    for (std::size_t i = 0; i < n; ++i) {
      policy[i] = static_cast<S>(-1 - std::abs(random.normal()));
      old[i] = policy[i] + static_cast<S>(0.1 * random.normal());
      reference[i] = policy[i] + static_cast<S>(0.1 * random.normal());
      mask[i] = i % length >= length / 8;  // a prompt
    }
    for (S& a : advantage) a = static_cast<S>(random.normal());
  }

  double evaluate(const prospect::any_token& f, prospect::thread_pool& on) {
    const auto given_if = [](bool read, const array<S>& row) {
      return read ? prospect::const_any_row{row} : prospect::const_any_row{};
    };
    return prospect::cpu::evaluate(
               f,
               {.policy = policy,
                .old = given_if(reads_old(f), old),
                .reference = given_if(prospect::reads_reference<float>(f), reference),
                .advantage = advantage,
                .mask = mask,
                .layout = prospect::sequence_layout::padded(
                    static_cast<std::int64_t>(advantage.size()), std::int64_t{length})},
               {.d_policy = d_policy}, prospect::normaliser::mean(), on)
        .total;
  }

  /// Bytes that one evaluation has to read and write, each once.
  std::size_t bytes(const prospect::any_token& f) const {
    const int rows = 2 + (reads_old(f) ? 1 : 0) + (prospect::reads_reference<float>(f) ? 1 : 0);
    return static_cast<std::size_t>(rows) * policy.size() * sizeof(S) + mask.size();
  }

  array<S> policy, old, reference, d_policy, advantage;
  array<std::uint8_t> mask;
};

/// Coefficients in fp32 against those in fp64, on the numbers of the former.
void require_right_answer(const prospect::any_token& loss) {
  batch<float> narrow{4 * length};
  batch<double> wide{4 * length};
  std::copy(narrow.policy.begin(), narrow.policy.end(), wide.policy.begin());
  std::copy(narrow.old.begin(), narrow.old.end(), wide.old.begin());
  std::copy(narrow.reference.begin(), narrow.reference.end(), wide.reference.begin());
  std::copy(narrow.advantage.begin(), narrow.advantage.end(), wide.advantage.begin());
  narrow.evaluate(loss, all_cores());
  wide.evaluate(loss, all_cores());
  for (std::size_t i = 0; i < wide.d_policy.size(); ++i) {
    require_close(std::string{loss.name()} + " coefficient", narrow.d_policy[i], wide.d_policy[i],
                  1e-4 * std::max(1e-5, std::abs(wide.d_policy[i])));
  }
}

void evaluate_against_read(benchmark::State& state, const prospect::any_token& loss,
                           std::vector<batch<float>>& data, prospect::thread_pool& on) {
  require_right_answer(loss);
  const std::size_t bytes = data.front().bytes(loss);
  const array<std::byte> memory{batches * bytes};
  std::fill(memory.begin(), memory.end(), std::byte{1});
  const memory_limit& limit = limit_of(traffic::read, on, memory.bytes());
  std::size_t reads = 0;
  std::size_t evaluations = 0;
  time_against(
      state, [&] { return limit.rate(memory.bytes().subspan(reads++ % batches * bytes, bytes)); },
      [] {},
      [&] {
        benchmark::DoNotOptimize(data[evaluations++ % batches].evaluate(loss, on));
        return static_cast<double>(bytes);
      });
}

}  // namespace

int main(int argc, char* argv[]) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  const std::size_t n = std::size_t{1} << 20;
  std::vector<batch<float>> data;
  for (prospect::thread_pool* const on : pools()) {
    prospect::for_each_loss([&]<class Loss>(const Loss& loss) {
      if constexpr (prospect::token_loss<Loss>) {
        const std::string row = "token_losses/" + std::string{loss.name} +
                                "/n:" + std::to_string(n) +
                                "/threads:" + std::to_string(on->threads());
        benchmark::RegisterBenchmark(row.c_str(), [loss, n, on, &data](benchmark::State& state) {
          while (data.size() < batches) data.emplace_back(n);
          evaluate_against_read(state, loss, data, *on);
        })->UseManualTime();
      }
    });
  }
  benchmark::RunSpecifiedBenchmarks();
}
