// Twenty optimiser steps of the example against the same twenty with everything but the transformer
// and the order of the rows written again, in double precision, from the formulas of the papers and
// without Prospect: softmax, losses, reference points, clipping, Adam and its rate.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <string>
#include <vector>

#include "../small_job.hpp"
#include "catch.hpp"
#include "model/transformer.hpp"

using namespace align;

namespace {

// ---- hidden states to log-probabilities and back, by the definition of the softmax --------------

using wide_matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using wide_row = Eigen::RowVectorXd;

wide_matrix widened_copy(matrix<const float> m) {
  wide_matrix wide(m.rows, m.columns);
  for (std::int64_t i = 0; i < m.rows; ++i) {
    for (std::int64_t j = 0; j < m.columns; ++j) wide(i, j) = m.row(i)[j];
  }
  return wide;
}

wide_row softmax_of(const wide_row& logits) {
  const wide_row p = (logits.array() - logits.maxCoeff()).exp();
  return p / p.sum();
}

// A model's pass over a batch.
struct plain_pass {
  const model_shape& shape;
  std::span<const float> parameters;
  const packed_batch& batch;
  workers& on;
  activations<float> memory = {};

  template <class Visit>  // visit(sequence, scored position, target, probabilities)
  void for_each_token(const Visit& visit) {
    const wide_matrix hidden = widened_copy(std::as_const(memory.hidden).view());
    const wide_matrix head = widened_copy(carve(shape, parameters).head.weight);
    for (std::size_t s = 0; s < batch.sequences(); ++s) {
      for (std::int32_t t = batch.scored_offsets[s]; t < batch.scored_offsets[s + 1]; ++t) {
        visit(s, t, batch.targets[static_cast<std::size_t>(t)],
              softmax_of(hidden.row(t) * head.transpose()));
      }
    }
  }

  std::vector<double> score() {
    forward<float>({shape, parameters}, batch, leave::everything, memory, on);
    std::vector<double> sums(batch.sequences());
    for_each_token([&](std::size_t s, Eigen::Index, token target, const wide_row& p) {
      sums[s] += std::log(p(target));
    });
    return sums;
  }

  std::vector<double> gradient(std::span<const double> coefficients) {
    const wide_matrix hidden = widened_copy(std::as_const(memory.hidden).view());
    const wide_matrix head = widened_copy(carve(shape, parameters).head.weight);
    wide_matrix d_head = wide_matrix::Zero(head.rows(), head.cols());
    const matrix<float> d_hidden = memory.d_hidden.reshape(hidden.rows(), hidden.cols());
    for_each_token([&](std::size_t s, Eigen::Index t, token target, const wide_row& p) {
      wide_row d_logits = -coefficients[s] * p;
      d_logits(target) += coefficients[s];
      const wide_row d = d_logits * head;
      for (Eigen::Index j = 0; j < d.size(); ++j) d_hidden.row(t)[j] = static_cast<float>(d(j));
      d_head += d_logits.transpose() * hidden.row(t);
    });
    std::vector<float> narrow(parameters.size());
    backward<float>({shape, parameters}, batch, memory, {narrow, {}}, on);
    std::vector<double> sum(narrow.begin(), narrow.end());
    const matrix<double> here = carve(shape, std::span{sum}).head.weight;
    Eigen::Map<wide_matrix>(here.data, here.rows, here.columns) += d_head;
    return sum;
  }
};

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

const schedule twenty_steps{.steps = 20, .batch = 16, .learning_rate = 2e-3, .seed = 3};

// The coefficients of every step are kept: Adam and the clipped norm would hide a gradient that is
// wrong by a factor.
struct trace {
  std::vector<step_record> records = {};
  std::vector<std::vector<double>> coefficients = {};
  aligned_vector<float> trained = {};
};

trace trace_of(const small_job& job, objective goal) {
  trace made;
  goal.evaluate = [&made, evaluate = goal.evaluate](const scored_batch& batch, point_memory& memory,
                                                    std::span<double> d) {
    const step_record record = evaluate(batch, memory, d);
    made.coefficients.emplace_back(d.begin(), d.end());
    return record;
  };
  trained_model run = train_on(job, goal, twenty_steps);
  made.records = std::move(run.state.records);
  made.trained = std::move(run.trained);
  return made;
}

// A tenth of the steps up, then half a cosine down to a tenth.
double plain_rate(int step) {
  if (step <= 2) return 2e-3 * step / 2;
  return 2e-3 * (0.1 + 0.9 * (1 + std::cos(std::numbers::pi * (step - 2) / 18)) / 2);
}

// Kingma and Ba 2015, algorithm 1, of a gradient that is cut to length 1.
struct plain_adam {
  std::vector<double> m, v;

  void update(aligned_vector<float>& parameters, std::span<const double> gradient, int step) {
    m.resize(parameters.size());
    v.resize(parameters.size());
    double squares = 0;
    for (const double g : gradient) squares += g * g;
    const double scale = std::min(1.0, 1 / std::sqrt(squares));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const double g = scale * gradient[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      const double up = m[i] / (1 - std::pow(0.9, step));
      const double down = std::sqrt(v[i] / (1 - std::pow(0.999, step))) + 1e-8;
      parameters[i] = static_cast<float>(parameters[i] - plain_rate(step) * up / down);
    }
  }
};

// `like` says which rows and which mismatched ones a batch has.
template <class Loss>
trace independent_trace(const small_job& job, const objective& like, const Loss& loss) {
  trace made;
  made.trained = job.start;
  plain_adam optimiser;
  batch_order order(job.data, twenty_steps, like.balanced);
  workers on{2};
  for (int step = 0; step < 20; ++step) {
    const std::vector<std::size_t> rows = order.rows_of_step(step);
    packed_batch own, mismatched;
    scored_batch scored;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const row& here = job.data.rows[rows[i]];
      own.append(here.prompt, here.completion);
      mismatched.append(here.prompt, job.data.rows[rows[(i + 1) % rows.size()]].completion);
      scored.desirable.push_back(here.desirable ? 1 : 0);
      scored.tokens.push_back(static_cast<std::int32_t>(here.completion.size()));
    }
    const auto pass_of = [&](std::span<const float> parameters, const packed_batch& batch) {
      return plain_pass{job.shape, parameters, batch, on};
    };
    plain_pass policy = pass_of(made.trained, own);
    scored.policy = policy.score();
    scored.reference = pass_of(job.start, own).score();
    if (like.mismatched) {
      scored.mismatched_policy = pass_of(made.trained, mismatched).score();
      scored.mismatched_reference = pass_of(job.start, mismatched).score();
    }
    std::vector<double> d(rows.size());
    made.records.push_back({.step = step + 1, .loss = loss(scored, d)});
    made.coefficients.push_back(d);
    optimiser.update(made.trained, policy.gradient(d), step + 1);
  }
  return made;
}

// The largest relative differences; vectors are compared by their norm.
struct disagreement {
  double loss = 0, coefficients = 0, parameters = 0;
};

disagreement compare_traces(const trace& a, const trace& b) {
  disagreement worst;
  REQUIRE(a.records.size() == 20);
  REQUIRE(b.records.size() == 20);
  for (std::size_t i = 0; i < 20; ++i) {
    worst.loss = std::max(worst.loss, std::abs(a.records[i].loss / b.records[i].loss - 1));
    worst.coefficients =
        std::max(worst.coefficients, relative_difference(a.coefficients[i], b.coefficients[i]));
  }
  worst.parameters = relative_difference(a.trained, b.trained);
  return worst;
}

template <class Loss>
void check_trace(const small_job& job, const objective& ours, const Loss& loss) {
  const disagreement found =
      compare_traces(trace_of(job, ours), independent_trace(job, ours, loss));
  CAPTURE(found.loss, found.coefficients, found.parameters);
  CHECK(found.loss < 1e-5);
  CHECK(found.coefficients < 1e-5);
  CHECK(found.parameters < 1e-5);
}

}  // namespace

TEST_CASE("KTO: twenty steps agree with the paper's formula") {
  // Mostly thumbs up, so that the reference point rises above its clamp.
  small_job job = make_small_job(false);
  for (std::size_t i = 0; i < job.data.rows.size(); ++i) job.data.rows[i].desirable = i % 5 != 0;
  const objective ours = preference_objective(
      {.loss = "kto", .parameters = {{"desirable_weight", 1.5}, {"undesirable_weight", 0.75}}});
  check_trace(job, ours, [](const scored_batch& batch, std::span<double> d) {
    return kto(batch, 1.5, 0.75, d);
  });
  CHECK(std::ranges::count_if(trace_of(job, ours).records,
                              [](const step_record& r) { return r.z > 0.01; }) >= 5);
}

TEST_CASE("KTO: twenty steps agree where the reference point is clamped") {
  check_trace(make_small_job(false), preference_objective({.loss = "kto"}),
              [](const scored_batch& batch, std::span<double> d) { return kto(batch, 1, 1, d); });
}

TEST_CASE("SimpleKTO: twenty steps agree with HALOs' formula") {
  // Away from 0, where rounding would decide whether the clamp passes gradient; the undesirable
  // mean falls through 0 later on.
  const auto moved_away = [](scored_batch batch) {
    for (std::size_t i = 0; i < batch.reference.size(); ++i) {
      batch.reference[i] -= batch.desirable[i] != 0 ? 0.5 : 0.2;
    }
    return batch;
  };
  const small_job job = make_small_job(false);
  objective ours = preference_objective({.loss = "simple_kto"});
  ours.evaluate = [moved_away, evaluate = ours.evaluate](
                      const scored_batch& batch, point_memory& memory, std::span<double> d) {
    return evaluate(moved_away(batch), memory, d);
  };
  check_trace(job, ours, [&](const scored_batch& batch, std::span<double> d) {
    return simple_kto(moved_away(batch), d);
  });
  const trace found = trace_of(job, ours);
  const auto clamped = [](const step_record& r) { return r.z > r.z_raw; };
  CHECK(std::ranges::any_of(found.records, clamped));
  CHECK_FALSE(std::ranges::all_of(found.records, clamped));
}

TEST_CASE("DPO: twenty steps agree with the paper's formula") {
  check_trace(make_small_job(true), preference_objective({.loss = "dpo"}), dpo);
}

TEST_CASE("IPO: twenty steps agree with the paper's formula") {
  check_trace(make_small_job(true), preference_objective({.loss = "ipo"}), ipo);
}

TEST_CASE("the trace notices a loss that is slightly wrong") {
  const small_job job = make_small_job(false);
  const trace right = trace_of(job, preference_objective({.loss = "kto"}));
  const auto with = [&](const char* parameter, double value) {
    return compare_traces(
        trace_of(job, preference_objective({.loss = "kto", .parameters = {{parameter, value}}})),
        right);
  };
  const disagreement beta_off = with("beta", 0.1001), weight_off = with("desirable_weight", 1.01);
  CHECK(beta_off.coefficients > 1e-4);
  CHECK(weight_off.coefficients > 1e-4);
  CHECK(weight_off.loss > 1e-4);
  CHECK(weight_off.parameters > 1e-5);
}
