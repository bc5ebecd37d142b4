// The smallest trainer that has all of it: a table of bigrams as its model, pairs of token ids as
// its data, and DPO. Between the two lines "glue" stands what Prospect adds; the rest is what every
// trainer has. It looks at its own gradient before it trains on, and fails where a number is wrong.
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/losses/paired/dpo.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

namespace minimal {

// Token ids are [sequences, length]: chosen completions in the first half, the rejected ones of the
// same prompts in the second. Row t of the logits predicts token t + 1.
constexpr std::size_t vocabulary = 12, length = 8, prompt = 3, pairs = 16;
constexpr std::size_t sequences = 2 * pairs, rows = sequences * length;

// What is liked counts upwards from the prompt; what is not jumps about, and is shorter.
struct data {
  std::vector<std::size_t> ids = std::vector<std::size_t>(rows);
  std::vector<int> targets = std::vector<int>(rows, -100);  // prompt, padding and ends: not scored

  data() {
    for (std::size_t i = 0; i < rows; ++i) {
      const std::size_t s = i / length, t = i % length,
                        end = s < pairs ? length : length - 1 - s % 3;
      ids[i] = s < pairs || t < prompt ? (s % pairs + t) % vocabulary : (7 * i + s) % vocabulary;
      if (t >= prompt && t < end) targets[i - 1] = static_cast<int>(ids[i]);
    }
  }
};

// The model: logits[i, v] = table[ids[i], v].
std::size_t cell(const std::vector<std::size_t>& ids, std::size_t i) {
  return ids[i / vocabulary] * vocabulary + i % vocabulary;
}

// glue begin
struct dpo_step {
  prospect::dpo loss{.beta = 0.5};
  std::vector<float> log_prob = std::vector<float>(rows), d_token = std::vector<float>(rows);
  std::vector<double> lse = std::vector<double>(rows), d_policy = std::vector<double>(sequences);
  prospect::sequence_layout layout = prospect::sequence_layout::padded(sequences, length);

  /// log p of each sequence: the sum over its scored tokens.
  std::vector<double> log_probs(std::vector<float>& logits, const std::vector<int>& targets) {
    std::vector<double> sums(sequences);
    prospect::cpu::token_log_probs<float>({logits.data(), rows, vocabulary}, targets,
                                          {.log_prob = log_prob, .lse = lse});
    prospect::cpu::sequence_sums<float>(log_prob, targets, layout, {.log_prob = sums});
    return sums;
  }
  /// The loss, and what else is logged; the logits become its gradient.
  prospect::paired_metrics operator()(std::vector<float>& logits, const std::vector<int>& targets,
                                      const std::vector<double>& reference) {
    const std::vector<double> policy = log_probs(logits, targets);
    const prospect::strided_span<const double> p{policy}, r{reference};
    const prospect::strided_span<double> d{d_policy};
    const auto metrics = prospect::cpu::evaluate<double>(
        loss,
        {.policy_chosen = p.slice(0, pairs),
         .policy_rejected = p.slice(pairs, pairs),
         .reference_chosen = r.slice(0, pairs),
         .reference_rejected = r.slice(pairs, pairs)},
        {.d_policy_chosen = d.slice(0, pairs), .d_policy_rejected = d.slice(pairs, pairs)});
    prospect::cpu::spread<float>(d_policy, targets, layout, d_token);
    prospect::cpu::logits_gradient<float>({logits.data(), rows, vocabulary}, targets, log_prob, lse,
                                          d_token);
    return metrics;
  }
};
// glue end

// The textbook's loss in double, whose differences the gradient is held against.
double textbook(const std::vector<double>& table, const data& batch,
                const std::vector<double>& reference, double beta) {
  std::vector<double> ratio(sequences);
  for (std::size_t i = 0; i < sequences; ++i) ratio[i] = -reference[i];
  for (std::size_t i = 0; i < rows; ++i) {
    if (batch.targets[i] < 0) continue;
    const double* row = table.data() + batch.ids[i] * vocabulary;
    double sum = 0;
    for (std::size_t v = 0; v < vocabulary; ++v) sum += std::exp(row[v]);
    ratio[i / length] += row[batch.targets[i]] - std::log(sum);
  }
  double loss = 0;
  for (std::size_t i = 0; i < pairs; ++i) {
    loss += std::log(1 + std::exp(-beta * (ratio[i] - ratio[i + pairs]))) / pairs;
  }
  return loss;
}

int run() {
  const data batch;
  dpo_step dpo;
  std::vector<float> table(vocabulary * vocabulary), logits(rows * vocabulary);
  std::vector<double> reference;
  for (std::size_t i = 0; i < table.size(); ++i) table[i] = std::sin(3.0F * static_cast<float>(i));

  bool right = true;
  for (int step = 0; step <= 40; ++step) {
    for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = table[cell(batch.ids, i)];
    if (step == 0) reference = dpo.log_probs(logits, batch.targets);  // once, of the frozen model
    const auto metrics = dpo(logits, batch.targets, reference);
    std::vector<float> d_table(table.size());
    for (std::size_t i = 0; i < logits.size(); ++i) d_table[cell(batch.ids, i)] += logits[i];

    if (step == 0) right &= std::fabs(metrics.total - std::log(2.0)) < 1e-6;
    if (step == 40) right &= metrics.total < 0.07 && metrics.rewards_accuracies.mean() == 1;
    std::vector<double> moved(table.begin(), table.end());
    for (std::size_t i = 0; step == 3 && i < table.size(); ++i) {  // margins are 0 no longer
      const auto at = [&](double by) {
        moved[i] = table[i] + by;
        return textbook(moved, batch, reference, dpo.loss.beta);
      };
      right &= std::fabs((at(1e-4) - at(-1e-4)) / 2e-4 - d_table[i]) < 1e-6;
      moved[i] = table[i];
    }
    if (step % 10 == 0) {
      std::printf("step %2d  loss %.4f  ranked right %3.0f %%\n", step, metrics.total,
                  100 * metrics.rewards_accuracies.mean());
    }
    for (std::size_t i = 0; i < table.size(); ++i) table[i] -= 2 * d_table[i];
  }
  std::puts(right ? "gradient, first and last loss: right" : "WRONG");
  return right ? 0 : 1;
}

}  // namespace minimal

int main() { return minimal::run(); }
