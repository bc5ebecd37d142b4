// See step_zero.hpp.
#include "step_zero.hpp"

#include <unistd.h>

#include <chrono>
#include <cmath>

#include "memory.hpp"
#include "report/format.hpp"
#include "training/reference.hpp"

namespace align {
namespace {

constexpr double nats_per_token = 1e-3;  // that two passes over the same tokens may differ by

std::string duration(double seconds) {
  if (seconds < 100) return fixed(seconds, 1) + " s";
  return fixed(seconds / 60, 0) + " minutes";
}

finding memory_finding(const language_model& model, const job& from, const schedule& plan,
                       std::size_t longest_sample) {
  const memory_need need =
      memory_needed(model, from.train, from.held_out, plan, from.goal, longest_sample);
  const double machine =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  const bool fits = static_cast<double>(need.total()) < 0.9 * machine;
  return {fits ? severity::fact : severity::problem,
          "The run " + need.sentence() + "; the machine has " + fixed(machine / 1e6, 0) +
              (fits ? " MB." : " MB: try --micro-batch, --recompute or --lora.")};
}

}  // namespace

std::vector<finding> look_at_step_zero(const language_model& model, const job& from,
                                       const schedule& plan, std::size_t longest_sample,
                                       workers& on) {
  std::vector<finding> found{memory_finding(model, from, plan, longest_sample)};
  using clock = std::chrono::steady_clock;
  const auto started = clock::now();

  const std::vector<std::size_t> rows =
      batch_order(from.train, plan, from.goal.balanced).rows_of_step(0);
  scored_batch batch;
  std::vector<prompt_completion> own;
  std::vector<double> tokens;
  scoring_pass pass(model.storage());
  std::vector<float> gradient(model.trained().size());
  const purpose why = plan.recompute ? purpose::training_with_less_memory : purpose::training;
  for (const auto& [first, last] : parts_of(rows.size(), plan)) {
    packed_batch part;
    for (std::size_t i = first; i < last; ++i) {
      const row& here = from.train.rows[rows[i]];
      part.append(here.prompt, here.completion);
      own.push_back({rows[i], rows[i]});
      batch.desirable.push_back(here.desirable ? 1 : 0);
      batch.tokens.push_back(static_cast<std::int32_t>(here.completion.size()));
    }
    const auto scored = pass.score(model, part, why, on);
    batch.policy.insert(batch.policy.end(), scored.begin(), scored.end());
    pass.add_gradient(model, part, std::vector<double>(part.sequences(), 1.0), gradient, on);
  }
  const std::chrono::duration<double> took = clock::now() - started;
  const auto reference = score_completions(
      model, from.train.rows, own, on, [](std::size_t, std::size_t) { return true; }, false);
  double apart = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    batch.reference.push_back(reference->sum(i));
    apart = std::max(apart, std::abs(batch.policy[i] - batch.reference[i]) / batch.tokens[i]);
  }
  const bool same = apart <= nats_per_token;
  found.push_back({same ? severity::fact : severity::problem,
                   "Policy and reference differ by at most " + fixed(apart, 6) +
                       " nats per token before the first step" +
                       (same ? "." : ": they should not.")});

  if (from.goal.mismatched) {  // of a policy that is the reference
    batch.mismatched_policy = batch.mismatched_reference = batch.reference;
  }
  const auto loss_of = [&](const scored_batch& of) {
    point_memory memory;
    std::vector<double> coefficients(rows.size());
    return from.goal.evaluate(of, memory, coefficients).loss;
  };
  scored_batch ideal = batch;
  ideal.policy = ideal.reference;
  const double loss = loss_of(batch), expected = loss_of(ideal);
  const bool as_expected = std::abs(loss - expected) <= 0.01 * (1 + std::abs(expected));
  found.push_back({as_expected ? severity::fact : severity::problem,
                   "The loss is " + fixed(loss, 4) + " before the first step, and " +
                       fixed(expected, 4) + " where policy and reference are exactly the same."});

  // A backward pass is about two forward ones; mismatched rows are scored alone, as is all of a
  // batch that goes through in parts.
  const bool in_parts = parts_of(rows.size(), plan).size() > 1;
  const double passes = 1 + (from.goal.mismatched ? 1.0 / 3 : 0) + (in_parts ? 1.0 / 3 : 0);
  found.push_back({severity::fact, "A step takes about " + duration(took.count() * passes) +
                                       ", all " + std::to_string(plan.steps) + " about " +
                                       duration(took.count() * passes * plan.steps) +
                                       ", without evaluation and reference."});
  return found;
}

}  // namespace align
