// See train.hpp.
#include "training/train.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

namespace align {
namespace {

// Fixed, so that sums are rounded alike on every machine.
constexpr std::size_t chunk = std::size_t{1} << 20;

// Calls use(index, first, last) for chunks of `size` elements.
template <class Use>
void on_chunks(std::size_t size, workers& on, const Use& use) {
  on((size + chunk - 1) / chunk,
     [&](std::size_t i) { use(i, i * chunk, std::min(size, (i + 1) * chunk)); });
}

}  // namespace

trainer::trainer(language_model& model, const feedback& data, const objective& goal,
                 const schedule& plan, const reference_scores* reference, workers& on)
    : model_(model),
      data_(data),
      goal_(goal),
      plan_(plan),
      reference_(reference),
      on_(on),
      order_(data, plan, goal.balanced),
      pass_(model.storage()),
      mismatched_pass_(model.storage()),
      gradient_(model.trained().size()) {}

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
  const std::vector<std::size_t> rows = order_.rows_of_step(state.step);
  lay_out(rows);
  const scored_batch batch = score_all(rows);
  std::vector<double> coefficients(rows.size());
  step_record record = goal_.evaluate(batch, state.memory, coefficients);
  const double norm = add_gradients(coefficients);
  if (!std::isfinite(record.loss) || !std::isfinite(norm)) {
    throw std::runtime_error("the loss or its gradient is not finite at step " +
                             std::to_string(state.step + 1) + ": try a smaller learning rate");
  }
  ++state.step;
  update(state, norm);

  double tokens = 0;
  for (const part& p : parts_) tokens += static_cast<double>(p.batch.inputs.size());
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
  record.step = state.step;
  record.tokens_per_second = tokens / took.count();
  return record;
}

void trainer::lay_out(std::span<const std::size_t> rows) {
  const auto parts = parts_of(rows.size(), plan_);
  parts_.resize(parts.size());
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    part& p = parts_[i];
    p.first = parts[i].first;
    p.batch.clear();
    p.mismatched.clear();
    for (std::size_t j = p.first; j < parts[i].second; ++j) {
      const row& here = data_.rows[rows[j]];
      p.batch.append(here.prompt, here.completion);
      const auto other = goal_.mismatched ? mismatched_row(j, rows.size()) : std::nullopt;
      if (other) p.mismatched.append(here.prompt, data_.rows[rows[*other]].completion);
    }
  }
}

purpose trainer::training_purpose() const {
  return plan_.recompute ? purpose::training_with_less_memory : purpose::training;
}

// The policy's log-probabilities of the whole batch, and what the reference made of it. Where the
// batch has parts, they go through the model a second time for their gradients: a coefficient may
// depend on every other sequence.
scored_batch trainer::score_all(std::span<const std::size_t> rows) {
  scored_batch all;
  for (std::size_t j = 0; j < rows.size(); ++j) {
    const row& here = data_.rows[rows[j]];
    all.desirable.push_back(here.desirable ? 1 : 0);
    all.tokens.push_back(static_cast<std::int32_t>(here.completion.size()));
    if (reference_ == nullptr) continue;
    all.reference.push_back(reference_->log_prob({rows[j], rows[j]}));
    const auto other = goal_.mismatched ? mismatched_row(j, rows.size()) : std::nullopt;
    if (other) all.mismatched_reference.push_back(reference_->log_prob({rows[j], rows[*other]}));
  }
  const auto score = [&](scoring_pass& pass, const packed_batch& batch, purpose why,
                         std::vector<double>& to) {
    if (batch.sequences() == 0) return;
    const std::span<const double> sums = pass.score(model_, batch, why, on_);
    to.insert(to.end(), sums.begin(), sums.end());
  };
  for (const part& p : parts_) {
    score(mismatched_pass_, p.mismatched, purpose::evaluation, all.mismatched_policy);
  }
  const purpose why = parts_.size() == 1 ? training_purpose() : purpose::evaluation;
  for (const part& p : parts_) score(pass_, p.batch, why, all.policy);
  return all;
}

// Leaves the gradient of the batch in gradient_ and returns its norm.
double trainer::add_gradients(std::span<const double> coefficients) {
  on_chunks(gradient_.size(), on_, [&](std::size_t, std::size_t first, std::size_t last) {
    std::fill_n(gradient_.begin() + static_cast<std::ptrdiff_t>(first), last - first, 0.0F);
  });
  for (const part& p : parts_) {
    if (parts_.size() > 1) pass_.score(model_, p.batch, training_purpose(), on_);
    pass_.add_gradient(model_, p.batch, coefficients.subspan(p.first, p.batch.sequences()),
                       gradient_, on_);
  }
  std::vector<double> squares((gradient_.size() + chunk - 1) / chunk);
  on_chunks(gradient_.size(), on_, [&](std::size_t i, std::size_t first, std::size_t last) {
    squares[i] = array_of(gradient_.data() + first, static_cast<std::int64_t>(last - first))
                     .cast<double>()
                     .square()
                     .sum();
  });
  return std::sqrt(std::accumulate(squares.begin(), squares.end(), 0.0));
}

void trainer::update(training_state& state, double norm) {
  const auto scale = static_cast<float>(std::min(1.0, plan_.longest_gradient / (norm + 1e-12)));
  const double rate =
      scheduled(plan_.learning_rate, state.step, plan_.steps, plan_.warm_up, plan_.shape);
  const std::span<float> trained = model_.trained();
  on_chunks(trained.size(), on_, [&](std::size_t, std::size_t first, std::size_t last) {
    state.optimiser.update(first, last, trained, gradient_, scale, rate, plan_.weight_decay,
                           state.step);
    model_.renew(first, last);
  });
}

}  // namespace align
