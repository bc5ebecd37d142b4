// See memory.hpp.
#include "memory.hpp"

#include <algorithm>
#include <cstdint>

#include "model/decoder.hpp"
#include "report/format.hpp"
#include "training/reference.hpp"

namespace align {
namespace {

std::string megabytes(std::size_t bytes) { return fixed(static_cast<double>(bytes) / 1e6, 0); }

std::size_t longest_prompt(const feedback& data) {
  std::size_t longest = 0;
  for (const row& r : data.rows) longest = std::max(longest, r.prompt.size());
  return longest;
}

}  // namespace

std::string memory_need::sentence() const {
  return "needs " + megabytes(total()) + " MB of memory: " + megabytes(weights) + " weights, " +
         megabytes(optimiser) + " gradient and moments; beside them " + megabytes(activations) +
         " activations and " + megabytes(head) + " at the head in training, " + megabytes(scoring) +
         " for texts that are scored, " + megabytes(writing) + " for samples";
}

memory_need memory_needed(const language_model& model, const feedback& train,
                          const feedback& held_out, const schedule& plan, const objective& goal,
                          std::size_t longest_sample) {
  std::size_t most_tokens = 0, most_scored = 0, most_mismatched = 0, most_mismatched_scored = 0;
  batch_order order(train, plan, goal.balanced);
  for (int step = 0; step < plan.steps; ++step) {
    const std::vector<std::size_t> rows = order.rows_of_step(step);
    for (const auto& [first, last] : parts_of(rows.size(), plan)) {
      std::size_t tokens = 0, scored = 0, mismatched = 0, mismatched_scored = 0;
      for (std::size_t j = first; j < last; ++j) {
        const row& here = train.rows[rows[j]];
        tokens += sequence_length(here.prompt.size(), here.completion.size());
        scored += here.completion.size();
        const auto other = goal.mismatched ? mismatched_row(j, rows.size()) : std::nullopt;
        if (!other) continue;
        const std::size_t longer = train.rows[rows[*other]].completion.size();
        mismatched += sequence_length(here.prompt.size(), longer);
        mismatched_scored += longer;
      }
      most_tokens = std::max(most_tokens, tokens);
      most_scored = std::max(most_scored, scored);
      most_mismatched = std::max(most_mismatched, mismatched);
      most_mismatched_scored = std::max(most_mismatched_scored, mismatched_scored);
    }
  }
  const purpose why = plan.recompute ? purpose::training_with_less_memory : purpose::training;
  return {
      .weights = model.bytes(),
      .optimiser = 3 * sizeof(float) * model.trained().size(),
      .activations =
          scoring_pass::bytes(model, most_tokens, most_scored, why) +
          scoring_pass::bytes(model, most_mismatched, most_mismatched_scored, purpose::evaluation),
      .head = scoring_pass::head_bytes() * (most_mismatched > 0 ? 2 : 1),
      .scoring = std::max(scoring_bytes(model, train.rows), scoring_bytes(model, held_out.rows)),
      .writing = writing_bytes(model, longest_prompt(held_out), longest_sample)};
}

}  // namespace align
