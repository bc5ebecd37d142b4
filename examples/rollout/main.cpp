// An engine of reinforcement learning in small: it samples completions, rewards them, and hands
// over what such engines have, log-probabilities per token, those at the time of sampling, a mask
// and a reward each. What comes back is dL/dlogp per token, which it takes back through its own
// softmax. Looks at its own gradient in the first update that clips. usage: rollout [LOSS]    grpo
// by default
#include "engine.hpp"

#include <prospect/cpu/rewards.hpp>
#include <prospect/cpu/token_losses.hpp>
#include <prospect/losses/any.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <stdexcept>
#include <string>

namespace {

using engine::array;
using engine::rollouts;
using engine::shape;

// glue begin
using surrogate =
    prospect::any_loss<prospect::grpo, prospect::dapo, prospect::cispo, prospect::dr_grpo>;

surrogate surrogate_of(const std::string& name) {
  for (const surrogate& loss :
       {surrogate{prospect::grpo{}}, surrogate{prospect::dapo{.epsilon_high = 0.28}},
        surrogate{prospect::cispo{.epsilon_high = 5}},
        surrogate{prospect::dr_grpo{.max_completion_length = shape::T}}}) {
    if (loss.name() == name) return loss;
  }
  throw std::invalid_argument("no loss " + name + ": grpo, dapo, cispo or dr_grpo");
}
/// One for each completion, from the rewards of its group.
array<float> advantages_of(const surrogate& loss, const rollouts& r) {
  array<float> advantages(r.reward.size());
  using scaling = prospect::cpu::grpo_scaling;
  prospect::cpu::grpo_advantages(
      r.reward.values, prospect::sequence_layout::padded(shape::prompts, shape::group),
      advantages.values, loss.is<prospect::dr_grpo>() ? scaling::unscaled() : scaling{});
  return advantages;
}
/// What the loss of a whole step is averaged over.
double count_of(const surrogate& loss, const rollouts& r) {
  if (loss.average != prospect::averaging::tokens) return shape::sequences;
  return static_cast<double>(std::count(r.mask.values.begin(), r.mask.values.end(), 1));
}
/// dL/dlogp of sequences [first, first + n).
prospect::token_metrics dL_dlogp(const surrogate& loss, const rollouts& r,
                                 const array<float>& log_prob, const array<float>& advantages,
                                 array<float>& d, int first, int n, double count) {
  const auto rows = [&](auto& row) {
    return prospect::strided_span{row.data() + first * shape::T, n * shape::T};
  };
  return prospect::cpu::evaluate(loss,
                                 {.policy = rows(log_prob),
                                  .old = rows(r.old_log_prob),
                                  .advantage = prospect::strided_span{advantages.data() + first, n},
                                  .mask = rows(r.mask),
                                  .layout = prospect::sequence_layout::padded(n, shape::T)},
                                 {.d_policy = rows(d)}, prospect::normaliser::over(count));
}
// glue end

/// The largest distance of a gradient from differences of the textbook.
double off_from_textbook(const std::string& name, const engine::policy& policy, const rollouts& r,
                         const array<float>& gradient) {
  array<double> at(shape::weights);
  for (int i = 0; i < at.size(); ++i) at[i] = policy.table[i];
  array<double> moved = at;
  double off = 0;
  for (int i = 0; i < at.size(); ++i) {
    moved[i] = at[i] + 1e-5;
    const double up = engine::textbook(name, moved, at, r);
    moved[i] = at[i] - 1e-5;
    const double down = engine::textbook(name, moved, at, r);
    moved[i] = at[i];
    off = std::fmax(off, std::fabs((up - down) / 2e-5 - double{gradient[i]}));
  }
  return off;
}

bool learns(const std::string& name) {
  const surrogate loss = surrogate_of(name);
  engine::policy policy;
  double first = 0, last = 0, off = 0;
  bool checked = false, split_alike = true;
  for (int step = 0; step <= 60; ++step) {
    const rollouts r = policy.sample();
    const array<float> advantages = advantages_of(loss, r);
    const double count = count_of(loss, r);
    last = 0;
    for (const float reward : r.reward.values) last += double{reward} / shape::sequences;
    if (step == 0) first = last;
    for (int update = 0; update < 3; ++update) {  // of the same rollouts: ratios leave 1
      const array<float> log_prob = policy.log_probs(r);
      array<float> d(shape::tokens), parts(shape::tokens);
      const auto metrics = dL_dlogp(loss, r, log_prob, advantages, d, 0, shape::sequences, count);
      dL_dlogp(loss, r, log_prob, advantages, parts, 0, 7, count);
      dL_dlogp(loss, r, log_prob, advantages, parts, 7, shape::sequences - 7, count);
      split_alike = split_alike && parts.values == d.values;
      const array<float> gradient = policy.backward(r, d);
      if (!checked && update > 0 && (metrics.clip_ratio.mean() > 0.05 || name == "cispo")) {
        off = off_from_textbook(name, policy, r, gradient);
        checked = true;
      }
      float largest = 0;
      for (const float g : gradient.values) largest = std::max(largest, std::fabs(g));
      for (int i = 0; i < gradient.size() && largest > 0; ++i) {
        policy.table[i] -= 0.4F * gradient[i] / largest;
      }
      if (step % 20 == 0 && update == 2) {
        std::printf("step %2d  %s  reward %.3f  ratio %.3f  clipped %.2f\n", step, name.c_str(),
                    last, metrics.ratio.mean(), metrics.clip_ratio.mean());
      }
    }
  }
  const bool right = checked && off < 1e-6 && split_alike && last > 0.8 && last > 2 * first;
  std::printf(
      "reward from %.3f to %.3f, gradient within %.1e of differences, micro-batches %s: %s\n",
      first, last, off, split_alike ? "alike" : "not alike", right ? "right" : "WRONG");
  return right;
}

}  // namespace

int main(int count, char** arguments) {
  try {
    return learns(count > 1 ? arguments[1] : "grpo") ? 0 : 1;
  } catch (const std::exception& e) {
    std::printf("%s\n", e.what());
    return 2;
  }
}
