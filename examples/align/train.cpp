// See train.hpp.
#include "train.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "random.hpp"
#include "threads.hpp"

namespace align {
namespace {

// Fixed, so that sums are rounded alike on every machine. More than the two cores the example is
// meant for, so that a core that is late does not idle the other.
constexpr std::size_t shard_count = 4;

constexpr std::size_t parameter_chunks = 16;

constexpr double longest_gradient = 1.0;  // clipped by its global norm

// Calls use(first, last) for chunk `i` of `size` elements.
template <class Use>
void on_chunks(std::size_t size, int threads, const Use& use) {
  parallel(parameter_chunks, threads, [&](std::size_t i) {
    use(i, size * i / parameter_chunks, size * (i + 1) / parameter_chunks);
  });
}

void shuffle_for(std::vector<std::size_t>& units, std::uint64_t seed, int epoch, int stream) {
  // The generator mixes its seed, so neighbouring seeds give unrelated orders.
  random_source mixed{random_source{seed}.next() + static_cast<std::uint64_t>(2 * epoch + stream)};
  shuffle(std::span{units}, mixed);
}

}  // namespace

std::vector<std::vector<std::size_t>> batches_of_epoch(const feedback& data, int batch,
                                                       bool balanced, std::uint64_t seed,
                                                       int epoch) {
  // One queue of units, or one for each thumb; every batch takes its share from each.
  std::vector<std::vector<std::size_t>> queues(balanced ? 2 : 1);
  for (std::size_t i = 0; i < data.units(); ++i) {
    queues[balanced && !data.rows[i].desirable ? 1 : 0].push_back(i);
  }
  std::size_t share = static_cast<std::size_t>(batch) / queues.size();
  std::size_t count = data.units();
  for (std::size_t q = 0; q < queues.size(); ++q) {
    shuffle_for(queues[q], seed, epoch, static_cast<int>(q));
    share = std::min(share, queues[q].size());
  }
  if (share == 0) throw std::invalid_argument("there is too little feedback to fill one batch");
  for (const auto& queue : queues) count = std::min(count, queue.size() / share);

  std::vector<std::vector<std::size_t>> batches(count);
  for (std::size_t b = 0; b < count; ++b) {
    for (const auto& queue : queues) {
      const auto first = queue.begin() + static_cast<std::ptrdiff_t>(b * share);
      batches[b].insert(batches[b].end(), first, first + static_cast<std::ptrdiff_t>(share));
    }
  }
  return batches;
}

trainer::trainer(const model_shape& shape, const feedback& data, const objective& goal,
                 const schedule& plan, const reference_model& reference, int threads)
    : shape_(shape),
      data_(data),
      goal_(goal),
      plan_(plan),
      reference_(reference),
      threads_(threads),
      shards_(shard_count) {
  for (shard& s : shards_) s.gradient.resize(parameter_count(shape));
}

bool trainer::run(training_state& state, const std::function<bool()>& stop,
                  const std::function<void(const training_state&)>& after_step) {
  while (state.step < plan_.steps) {
    if (stop()) return false;
    state.records.push_back(step(state));
    after_step(state);
  }
  return true;
}

step_record trainer::step(training_state& state) {
  const auto started = std::chrono::steady_clock::now();
  const std::vector<std::size_t> rows = rows_of_step(state.step);
  lay_out(rows);
  const scored_batch batch = forward_all(rows, state.parameters);
  std::vector<double> coefficients(rows.size());
  step_record record = goal_.evaluate(batch, state.memory, coefficients);
  backward_all(state.parameters, coefficients);
  const double norm = sum_gradients();
  if (!std::isfinite(record.loss) || !std::isfinite(norm)) {
    throw std::runtime_error("the loss or its gradient is not finite at step " +
                             std::to_string(state.step + 1) + ": try a smaller learning rate");
  }

  ++state.step;
  const auto clip = static_cast<float>(std::min(1.0, longest_gradient / (norm + 1e-12)));
  const double rate = scheduled(plan_.learning_rate, state.step, plan_.steps);
  aligned_vector<float>& gradient = shards_[0].gradient;
  on_chunks(gradient.size(), threads_, [&](std::size_t, std::size_t first, std::size_t last) {
    for (std::size_t j = first; j < last; ++j) gradient[j] *= clip;
    state.optimiser.update(first, last, state.parameters, gradient, rate, state.step);
  });

  double tokens = 0;
  for (const shard& s : shards_) tokens += static_cast<double>(s.batch.inputs.size());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  record.step = state.step;
  record.tokens_per_second = tokens / took.count();
  return record;
}

// The order depends on nothing but the seed and the step, so an interrupted run finds its place.
std::vector<std::size_t> trainer::rows_of_step(int step) {
  const auto epoch_of = [this](int epoch) {
    return batches_of_epoch(data_, plan_.batch, goal_.balanced, plan_.seed, epoch);
  };
  if (epoch_batches_.empty()) epoch_batches_ = epoch_of(0);
  const auto length = static_cast<int>(epoch_batches_.size());
  if (step / length != epoch_) {
    epoch_ = step / length;
    epoch_batches_ = epoch_of(epoch_);
  }
  std::vector<std::size_t> rows = epoch_batches_[static_cast<std::size_t>(step % length)];
  if (data_.paired) {
    const std::size_t pairs = rows.size();
    for (std::size_t i = 0; i < pairs; ++i) rows.push_back(rows[i] + data_.units());
  }
  return rows;
}

void trainer::lay_out(std::span<const std::size_t> rows) {
  std::vector<std::size_t> lengths;
  for (const std::size_t i : rows) {
    lengths.push_back(
        sequence_length(data_.rows[i].prompt.size(), data_.rows[i].completion.size()));
  }
  const auto cuts = balanced_cuts(lengths, shards_.size());
  for (std::size_t i = 0; i < shards_.size(); ++i) {
    shard& s = shards_[i];
    s.first = cuts[i];
    s.batch.clear();
    s.mismatched.clear();
    for (std::size_t j = cuts[i]; j < cuts[i + 1]; ++j) {
      const row& here = data_.rows[rows[j]];
      s.batch.append(here.prompt, here.completion);
      const auto other = goal_.mismatched ? mismatched_row(j, rows.size()) : std::nullopt;
      if (other) s.mismatched.append(here.prompt, data_.rows[rows[*other]].completion);
    }
  }
}

scored_batch trainer::forward_all(std::span<const std::size_t> rows,
                                  std::span<const float> parameters) {
  scored_batch all;
  all.policy.resize(rows.size());
  if (goal_.mismatched && mismatched_row(0, rows.size())) {
    all.mismatched_policy.resize(rows.size());
    all.mismatched_reference.resize(rows.size());
  }
  for (const std::size_t i : rows) {
    all.desirable.push_back(data_.rows[i].desirable ? 1 : 0);
    all.tokens.push_back(static_cast<std::int32_t>(data_.rows[i].completion.size()));
    if (!reference_.log_probs.empty()) all.reference.push_back(reference_.log_probs[i]);
  }
  parallel(shards_.size(), threads_, [&](std::size_t i) {
    shard& s = shards_[i];
    const auto log_probs = [&](std::span<const float> model, const packed_batch& batch,
                               activations<float>& memory, keep left_behind, token_scores& scores,
                               std::vector<double>& to) {
      if (batch.inputs.empty()) return;
      forward<float>(shape_, model, batch, memory);
      goal_.score(std::as_const(memory.normed_scored).view(), head_of(shape_, model), batch,
                  left_behind, scores);
      std::ranges::copy(scores.sequence, to.begin() + static_cast<std::ptrdiff_t>(s.first));
    };
    log_probs(parameters, s.batch, s.memory, keep::gradients, s.scores, all.policy);
    log_probs(parameters, s.mismatched, s.mismatched_memory, keep::nothing, s.mismatched_scores,
              all.mismatched_policy);
    log_probs(reference_.parameters, s.mismatched, s.mismatched_memory, keep::nothing,
              s.mismatched_scores, all.mismatched_reference);
  });
  return all;
}

void trainer::backward_all(std::span<const float> parameters,
                           std::span<const double> coefficients) {
  parallel(shards_.size(), threads_, [&](std::size_t i) {
    shard& s = shards_[i];
    std::ranges::fill(s.gradient, 0.0f);
    if (s.batch.inputs.empty()) return;
    const const_matrix<float> hidden = std::as_const(s.memory.normed_scored).view();
    goal_.backpropagate(hidden, head_of(shape_, parameters), s.batch, s.scores,
                        coefficients.subspan(s.first, s.batch.sequences()),
                        s.memory.d_normed_scored.reshape(hidden.rows(), hidden.cols()),
                        head_of(shape_, std::span{s.gradient}));
    backward<float>(shape_, parameters, s.batch, s.memory, s.gradient);
  });
}

// Leaves the sum in the first shard and returns its norm.
double trainer::sum_gradients() {
  std::vector<double> squares(parameter_chunks);
  aligned_vector<float>& sum = shards_[0].gradient;
  on_chunks(sum.size(), threads_, [&](std::size_t chunk, std::size_t first, std::size_t last) {
    for (std::size_t i = 1; i < shards_.size(); ++i) {
      for (std::size_t j = first; j < last; ++j) sum[j] += shards_[i].gradient[j];
    }
    for (std::size_t j = first; j < last; ++j) squares[chunk] += double{sum[j]} * sum[j];
  });
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

}  // namespace align
