// What is told of a run's memory against what its passes hold afterwards.
#include "memory.hpp"

#include <string>
#include <vector>

#include "catch.hpp"
#include "scratch.hpp"
#include "small_job.hpp"

using namespace align;

namespace {

// What the passes of a trainer hold after all steps of a plan.
std::size_t held_after(const small_job& job, language_model& model, const schedule& plan,
                       const objective& goal) {
  workers on{2};
  scoring_pass own(model.storage()), mismatched(model.storage());
  std::vector<float> gradient(model.trained().size());
  const purpose why = plan.recompute ? purpose::training_with_less_memory : purpose::training;
  batch_order order(job.data, plan, goal.balanced);
  for (int step = 0; step < plan.steps; ++step) {
    const std::vector<std::size_t> rows = order.rows_of_step(step);
    for (const auto& [first, last] : parts_of(rows.size(), plan)) {
      packed_batch batch, others;
      for (std::size_t i = first; i < last; ++i) {
        const row& here = job.data.rows[rows[i]];
        batch.append(here.prompt, here.completion);
        others.append(here.prompt, job.data.rows[rows[(i + 1) % rows.size()]].completion);
      }
      if (goal.mismatched) mismatched.score(model, others, purpose::evaluation, on);
      own.score(model, batch, why, on);
      own.add_gradient(model, batch, std::vector<double>(last - first, 0.1), gradient, on);
    }
  }
  return own.bytes() + mismatched.bytes();
}

}  // namespace

TEST_CASE("the activations told are those that training holds") {
  const model_kind kind = GENERATE(full_f32, full_bf16, lora_f32, lora_bf16);
  const bool recompute = GENERATE(false, true);
  const int together = GENERATE(0, 5);
  const std::string loss = GENERATE("kto", "dpo");
  CAPTURE(kind.lora.rank, recompute, together, loss);
  const small_job job = make_small_job(loss == "dpo");
  language_model model = job.model(kind);
  const schedule plan{
      .steps = 5, .batch = 9, .seed = 1, .together = together, .recompute = recompute};
  const objective goal = preference_objective({.loss = loss});
  const memory_need need = memory_needed(model, job.data, job.data, plan, goal, 30);
  CHECK(need.activations == held_after(job, model, plan, goal));
  CHECK(need.weights == model.bytes());
  CHECK(need.optimiser == 12 * model.trained().size());
  CHECK(need.head == scoring_pass::head_bytes() * (goal.mismatched ? 2 : 1));
}

TEST_CASE("mismatched rows, whole batches and what is kept take memory") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  const auto activations = [&](const char* loss, int together, bool recompute) {
    const schedule plan{
        .steps = 5, .batch = 16, .seed = 1, .together = together, .recompute = recompute};
    return memory_needed(model, job.data, job.data, plan, preference_objective({.loss = loss}), 30)
        .activations;
  };
  CHECK(activations("kto", 0, false) > activations("bco", 0, false));
  CHECK(activations("bco", 0, false) > activations("bco", 4, false));
  CHECK(activations("bco", 0, false) > activations("bco", 0, true));
}

TEST_CASE("the sentence adds up what it lists") {
  const memory_need need{.weights = 700'000'000,
                         .optimiser = 1'200'000'000,
                         .activations = 54'400'000,
                         .head = 67'100'000,
                         .scoring = 0,
                         .writing = 120'000'000};
  CHECK(need.total() == 2'021'500'000);
  CHECK(need.sentence() ==
        "needs 2022 MB of memory: 700 weights, 1200 gradient and moments; beside them 54 "
        "activations and 67 at the head in training, 0 for texts that are scored, 120 for samples");
}

TEST_CASE("what comes one after the other is not added") {
  const memory_need need{.weights = 1,
                         .optimiser = 20,
                         .activations = 300,
                         .head = 4000,
                         .scoring = 4400,
                         .writing = 50};
  CHECK(need.total() == 4421);
}
