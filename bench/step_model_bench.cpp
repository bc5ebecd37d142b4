// A whole training step of examples/align: a model of the size of SmolLM2-135M, four pairs under
// DPO, forward, backward, clipping and AdamW. PyTorch's side is peers/step_model.py.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#include "memory.hpp"
#include "model/language_model.hpp"
#include "objective.hpp"
#include "random_source.hpp"
#include "training/plan.hpp"
#include "training/reference.hpp"
#include "training/train.hpp"

namespace {

using namespace align;

constexpr std::size_t sequences = 8, length = 128, prompt = 32;

model_shape shape_of(bool small) {
  model_shape shape{.vocabulary = 49152,
                    .context = 2048,
                    .width = 576,
                    .layers = 30,
                    .heads = 9,
                    .key_value_heads = 3,
                    .head_width = 64,
                    .feed_forward = 1536,
                    .rope_base = 1e5};
  if (small) {
    shape.vocabulary = 512;
    shape.layers = 2;
  }
  return shape;
}

feedback some_pairs(const model_shape& shape) {
  random_source random{1};
  feedback data{.rows = {}, .paired = true};
  const auto tokens = [&](std::size_t count) {
    std::vector<token> drawn;
    while (drawn.size() < count) {
      drawn.push_back(static_cast<token>(random.uniform() * shape.vocabulary));
    }
    return drawn;
  };
  for (std::size_t i = 0; i < sequences; ++i) {
    // The last token is a target only, so that `length` are read.
    data.rows.push_back({.prompt = tokens(prompt),
                         .completion = tokens(length - prompt + 1),
                         .desirable = i < sequences / 2});
  }
  return data;
}

struct row_options {
  storage_type storage;
  lora_settings lora;
  bool recompute;
  bool small;
};

// Steps of a trainer that does nothing else; `timed` is told the seconds of each.
template <class Timed>
void run_steps(const row_options& row, int threads, int steps, const Timed& timed) {
  const model_shape shape = shape_of(row.small);
  const feedback data = some_pairs(shape);
  language_model model(shape, row.storage, row.lora);
  initialise(model, 1);
  if (row.lora.rank > 0) initialise_adapters(model, 1);
  workers on(threads);
  const objective goal = preference_objective({.loss = "dpo"});
  const schedule plan{.steps = steps,
                      .batch = sequences / 2,
                      .learning_rate = 1e-5,
                      .weight_decay = 0.01,
                      .recompute = row.recompute};
  reference_scores reference(model, data.rows, measured_by(data, plan, goal));
  reference.compute(on, [](std::size_t, std::size_t) { return true; });
  training_state state(model.trained().size());
  trainer train(model, data, goal, plan, &reference, on);
  auto before = std::chrono::steady_clock::now();
  train.run(
      state, [] { return false; },
      [&](const training_state& now) {
        const auto after = std::chrono::steady_clock::now();
        timed(std::chrono::duration<double>(after - before).count());
        before = after;
        if (now.step == 1 && std::abs(now.records[0].loss - std::log(2.0)) > 1e-3) {
          throw std::runtime_error("the loss of the first step is not log 2");
        }
      });
}

void step_model(benchmark::State& state, row_options row, int threads) {
  constexpr int steps = 4;
  double peak = 0;
  try {
    peak =
        static_cast<double>(bench::peak_memory([&] { run_steps(row, threads, 2, [](double) {}); }));
  } catch (const std::exception& failed) {
    return state.SkipWithError(failed.what());
  }
  std::vector<double> times;
  for (auto _ : state) {
    std::vector<double> seconds;
    run_steps(row, threads, steps, [&](double s) { seconds.push_back(s); });
    seconds.erase(seconds.begin());  // it makes what the others find
    std::ranges::sort(seconds);
    state.SetIterationTime(seconds[seconds.size() / 2]);
    times.insert(times.end(), seconds.begin(), seconds.end());
  }
  std::ranges::sort(times);
  const double median = times[times.size() / 2];
  state.counters["median_s"] = median;
  state.counters["fastest_s"] = times.front();
  state.counters["tokens_per_second"] = sequences * length / median;
  state.counters["peak_extra"] = peak;
}

}  // namespace

int main(int argc, char** argv) {
  const bool small = argc > 1 && std::string_view{argv[1]} == "--small";
  if (small) --argc, ++argv;
  benchmark::Initialize(&argc, argv);
  const int threads = workers(0).count();
  const auto add = [&](const std::string& name, row_options row) {
    row.small = small;
    benchmark::RegisterBenchmark(
        ("step_model/" + name + "/8x128/threads:" + std::to_string(threads)).c_str(),
        [=](benchmark::State& state) { step_model(state, row, threads); })
        ->UseManualTime()
        ->Iterations(1)
        ->Unit(benchmark::kMillisecond);
  };
  using enum storage_type;
  const lora_settings rank_16{.rank = 16, .alpha = 32};
  add("align/fp32", {f32, {}, false, false});
  add("align/bf16", {bf16, {}, false, false});
  add("align_recompute/fp32", {f32, {}, true, false});
  add("align_recompute/bf16", {bf16, {}, true, false});
  add("align_lora/fp32", {f32, rank_16, false, false});
  add("align_lora/bf16", {bf16, rank_16, false, false});
  benchmark::RunSpecifiedBenchmarks();
}
