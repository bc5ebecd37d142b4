// Twenty optimiser steps of the example against the same twenty with everything between hidden
// states and their gradient written again, in double precision, from the formulas of the papers and
// without Prospect. The two objectives take each other's place at the seam of objective.hpp.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "catch.hpp"
#include "small_job.hpp"

using namespace align;

namespace {

// ---- hidden states to log-probabilities and back, by the definition of the softmax --------------

using row_vector = Eigen::RowVectorXd;

row_vector softmax(const row_vector& logits) {
  const row_vector p = (logits.array() - logits.maxCoeff()).exp();
  return p / p.sum();
}

template <class Visit>  // visit(sequence, row of hidden states, target, probabilities)
void for_each_token(const_matrix<float> hidden, const_matrix<float> head, const packed_batch& batch,
                    const Visit& visit) {
  const row_major<double> wide_head = head.cast<double>();
  for (std::size_t s = 0; s < batch.sequences(); ++s) {
    for (std::int32_t t = batch.scored_offsets[s]; t < batch.scored_offsets[s + 1]; ++t) {
      visit(s, static_cast<Eigen::Index>(t),
            static_cast<Eigen::Index>(batch.targets[static_cast<std::size_t>(t)]),
            softmax(hidden.row(t).cast<double>() * wide_head.transpose()));
    }
  }
}

void plain_score(const_matrix<float> hidden, const_matrix<float> head, const packed_batch& batch,
                 keep, token_scores& scores) {
  scores.sequence.assign(batch.sequences(), 0.0);
  for_each_token(hidden, head, batch,
                 [&](std::size_t s, Eigen::Index, Eigen::Index target, const row_vector& p) {
                   scores.sequence[s] += std::log(p(target));
                 });
}

void plain_backpropagate(const_matrix<float> hidden, const_matrix<float> head,
                         const packed_batch& batch, token_scores&,
                         std::span<const double> coefficients, matrix<float> d_hidden,
                         matrix<float> d_head) {
  const row_major<double> wide_head = head.cast<double>();
  row_major<double> sum = row_major<double>::Zero(head.rows(), head.cols());
  for_each_token(hidden, head, batch,
                 [&](std::size_t s, Eigen::Index t, Eigen::Index target, const row_vector& p) {
                   row_vector d_logits = -coefficients[s] * p;
                   d_logits(target) += coefficients[s];
                   d_hidden.row(t) = (d_logits * wide_head).cast<float>();
                   sum += d_logits.transpose() * hidden.row(t).cast<double>();
                 });
  d_head += sum.cast<float>();
}

// ---- the losses, with beta = tau = 0.1 and each gradient by hand --------------------------------

constexpr double beta = 0.1, tau = 0.1;

double sigma(double x) { return 1 / (1 + std::exp(-x)); }
double slope(double x) { return sigma(x) * (1 - sigma(x)); }

std::vector<double> log_ratios(const scored_batch& batch) {
  std::vector<double> r(batch.policy.size());
  for (std::size_t i = 0; i < r.size(); ++i) r[i] = batch.policy[i] - batch.reference[i];
  return r;
}

// Ethayarajh et al. 2024, eq. 7 and 8: lambda_y - v(x, y), z0 from mismatched pairs.
double kto(const scored_batch& batch, double weight_desirable, double weight_undesirable,
           std::span<double> d) {
  const std::vector<double> r = log_ratios(batch);
  const auto n = static_cast<double>(r.size());
  double z0 = 0;
  for (std::size_t i = 0; i < batch.mismatched_policy.size(); ++i) {
    z0 += (batch.mismatched_policy[i] - batch.mismatched_reference[i]) / n;
  }
  z0 = std::max(0.0, z0);
  double loss = 0;
  for (std::size_t i = 0; i < r.size(); ++i) {
    if (batch.desirable[i] != 0) {
      loss += (weight_desirable - weight_desirable * sigma(beta * (r[i] - z0))) / n;
      d[i] = -weight_desirable * beta * slope(beta * (r[i] - z0)) / n;
    } else {
      loss += (weight_undesirable - weight_undesirable * sigma(beta * (z0 - r[i]))) / n;
      d[i] = weight_undesirable * beta * slope(beta * (z0 - r[i])) / n;
    }
  }
  return loss;
}

// HALOs' SimpleKTO: each class against the other's mean log-ratio, which carries gradient.
double simple_kto(const scored_batch& batch, std::span<double> d) {
  const std::vector<double> r = log_ratios(batch);
  const auto n = static_cast<double>(r.size());
  double n_up = 0, mean_up = 0, mean_down = 0;
  for (std::size_t i = 0; i < r.size(); ++i) {
    n_up += batch.desirable[i] != 0 ? 1 : 0;
    (batch.desirable[i] != 0 ? mean_up : mean_down) += r[i];
  }
  const double n_down = n - n_up;
  mean_up /= n_up;
  mean_down /= n_down;
  const double z_up = std::max(0.0, mean_up), z_down = std::max(0.0, mean_down);
  double loss = 0, slopes_up = 0, slopes_down = 0;
  for (std::size_t i = 0; i < r.size(); ++i) {
    const bool up = batch.desirable[i] != 0;
    const double u = up ? beta * (r[i] - z_down) : beta * (z_up - r[i]);
    loss += sigma(-u) / n;
    (up ? slopes_up : slopes_down) += slope(u);
    d[i] = (up ? -1 : 1) * beta * slope(u) / n;
  }
  for (std::size_t i = 0; i < r.size(); ++i) {
    if (batch.desirable[i] != 0 && mean_up >= 0) d[i] -= beta * slopes_down / n_up / n;
    if (batch.desirable[i] == 0 && mean_down >= 0) d[i] += beta * slopes_up / n_down / n;
  }
  return loss;
}

// Rafailov et al. 2023, eq. 7.
double dpo(const scored_batch& batch, std::span<double> d) {
  const std::vector<double> r = log_ratios(batch);
  const std::size_t n = r.size() / 2;
  double loss = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double margin = beta * (r[i] - r[n + i]);
    loss -= std::log(sigma(margin)) / static_cast<double>(n);
    d[i] = -beta * sigma(-margin) / static_cast<double>(n);
    d[n + i] = -d[i];
  }
  return loss;
}

// Azar et al. 2023, eq. 17, over mean log-probabilities per token.
double ipo(const scored_batch& batch, std::span<double> d) {
  const std::vector<double> r = log_ratios(batch);
  const std::size_t n = r.size() / 2;
  double loss = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const double up = batch.tokens[i], down = batch.tokens[n + i];
    const double distance = r[i] / up - r[n + i] / down - 1 / (2 * tau);
    loss += distance * distance / static_cast<double>(n);
    d[i] = 2 * distance / up / static_cast<double>(n);
    d[n + i] = -2 * distance / down / static_cast<double>(n);
  }
  return loss;
}

// ---- the comparison -----------------------------------------------------------------------------

// The run of an objective, with the coefficients of every step: Adam and the clipped norm would
// hide a gradient that is wrong by a factor.
struct trace {
  training_state state;
  std::vector<std::vector<double>> coefficients;
};

trace run(const small_job& job, objective goal) {
  std::vector<std::vector<double>> coefficients;
  goal.evaluate = [&coefficients, evaluate = goal.evaluate](
                      const scored_batch& batch, point_memory& memory, std::span<double> d) {
    const step_record record = evaluate(batch, memory, d);
    coefficients.emplace_back(d.begin(), d.end());
    return record;
  };
  const schedule twenty_steps{.steps = 20, .batch = 16, .learning_rate = 2e-3, .seed = 3};
  training_state state = train_on(job, goal, twenty_steps);
  return {std::move(state), std::move(coefficients)};
}

// What the trainer does around the loss (order, pairs, mismatched rows) is the same for both.
template <class Loss>
objective independent(const objective& like, const Loss& loss) {
  objective goal = like;
  goal.score = plain_score;
  goal.backpropagate = plain_backpropagate;
  goal.evaluate = [loss](const scored_batch& batch, point_memory&, std::span<double> d) {
    step_record record;
    record.loss = loss(batch, d);
    return record;
  };
  return goal;
}

// The largest relative differences; vectors are compared by their norm.
struct disagreement {
  double loss = 0, coefficients = 0, parameters = 0;
};

template <class T>
double relative_difference(const T& a, const T& b) {
  double difference = 0, norm = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(double{a[i]} - b[i], 2);
    norm += std::pow(double{b[i]}, 2);
  }
  return std::sqrt(difference / norm);
}

disagreement compare(const trace& a, const trace& b) {
  disagreement worst;
  REQUIRE(a.state.records.size() == 20);
  REQUIRE(b.state.records.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) {
    const double loss = a.state.records[i].loss / b.state.records[i].loss - 1;
    worst.loss = std::max(worst.loss, std::abs(loss));
    worst.coefficients =
        std::max(worst.coefficients, relative_difference(a.coefficients[i], b.coefficients[i]));
  }
  worst.parameters = relative_difference(a.state.parameters, b.state.parameters);
  return worst;
}

template <class Loss>
void check_trace(const small_job& job, const loss_choice& choice, const Loss& loss) {
  const objective ours = preference_objective(choice);
  const disagreement found = compare(run(job, ours), run(job, independent(ours, loss)));
  CAPTURE(choice.loss, found.loss, found.coefficients, found.parameters);
  CHECK(found.loss < 1e-5);
  CHECK(found.coefficients < 1e-5);
  CHECK(found.parameters < 1e-5);
}

}  // namespace

TEST_CASE("KTO: twenty steps agree with the paper's formula") {
  // Mostly thumbs up, so that the reference point rises above its clamp.
  small_job job = make_small_job(false);
  for (std::size_t i = 0; i < job.data.rows.size(); ++i) job.data.rows[i].desirable = i % 5 != 0;
  const loss_choice choice{.loss = "kto",
                           .parameters = {{"desirable_weight", 1.5}, {"undesirable_weight", 0.75}}};
  check_trace(job, choice, [](const scored_batch& batch, std::span<double> d) {
    return kto(batch, 1.5, 0.75, d);
  });
  const trace ours = run(job, preference_objective(choice));
  CHECK(std::ranges::count_if(ours.state.records,
                              [](const step_record& r) { return r.z > 0.01; }) >= 5);
}

TEST_CASE("KTO: twenty steps agree where the reference point is clamped") {
  check_trace(make_small_job(false), {.loss = "kto"},
              [](const scored_batch& batch, std::span<double> d) { return kto(batch, 1, 1, d); });
}

TEST_CASE("SimpleKTO: twenty steps agree with HALOs' formula") {
  // Away from 0, where rounding would decide whether the clamp passes gradient; the undesirable
  // mean falls through 0 later on.
  small_job job = make_small_job(false);
  for (std::size_t i = 0; i < job.data.rows.size(); ++i) {
    job.reference_log_probs[i] -= job.data.rows[i].desirable ? 0.5 : 0.2;
  }
  const loss_choice choice{.loss = "simple_kto"};
  check_trace(job, choice, simple_kto);
  const trace ours = run(job, preference_objective(choice));
  const auto clamped = [](const step_record& r) { return r.z > r.z_raw; };
  CHECK(std::ranges::any_of(ours.state.records, clamped));
  CHECK_FALSE(std::ranges::all_of(ours.state.records, clamped));
}

TEST_CASE("DPO: twenty steps agree with the paper's formula") {
  check_trace(make_small_job(true), {.loss = "dpo"}, dpo);
}

TEST_CASE("IPO: twenty steps agree with the paper's formula") {
  check_trace(make_small_job(true), {.loss = "ipo"}, ipo);
}

TEST_CASE("the trace notices a loss that is slightly wrong") {
  const small_job job = make_small_job(false);
  const trace right = run(job, preference_objective({.loss = "kto"}));
  const auto with = [&](const char* parameter, double value) {
    return compare(
        run(job, preference_objective({.loss = "kto", .parameters = {{parameter, value}}})), right);
  };
  const disagreement beta_off = with("beta", 0.1001), weight_off = with("desirable_weight", 1.01);
  CHECK(beta_off.coefficients > 1e-4);
  CHECK(weight_off.coefficients > 1e-4);
  CHECK(weight_off.loss > 1e-4);
  CHECK(weight_off.parameters > 1e-5);
}
