// The engine on the CPU. Its classifier learns from thumbs in place of the next token.
#include "views.hpp"

#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>

#include <algorithm>

namespace {

// glue begin
/// Logits become the gradient of the loss over `sequences`, which are those of all micro-batches.
double classify(const views<engine::array>& v, const preference& loss, double sequences) {
  namespace cpu = prospect::cpu;
  cpu::token_log_probs_and_gradient<float>(v.logits, v.targets, {.log_prob = v.log_prob},
                                           {.zero_padding = true});
  cpu::sequence_sums<float>(v.log_prob, v.targets, v.layout, {.log_prob = v.policy});
  const auto metrics =
      cpu::evaluate<double>(loss, v.batch, prospect::zero_point(), {.d_policy = v.d_policy},
                            prospect::normaliser::over(sequences));
  cpu::spread<float>(v.d_policy, v.targets, v.layout, v.d_token);
  cpu::scale_rows<float>(v.logits, v.d_token);
  for (int i = 0; i < v.log_prob.size(); ++i) v.log_prob[i] = -v.log_prob[i];
  return metrics.total;
}
// glue end

/// The arena, and a model of one table: logits[i] = table[ids[i]], over the whole pitch.
struct trainer {
  engine::data batch;
  engine::array<float> logits, losses, table;
  // glue begin
  room<engine::array> more{batch.s};
  // glue end

  explicit trainer(const engine::shape& s)
      : batch{s}, logits(s.cells()), losses(s.rows()), table(s.V * s.Vp) {}

  /// Of `count` sequences from `first` on: a micro-batch.
  views<engine::array> at(int first, int count) {
    const auto& [B, T, V, Vp] = batch.s;
    const int row = first * T;
    return {{{count, T, V, Vp},
             first,
             logits.data() + row * Vp,
             losses.data() + row,
             batch.targets.data() + row,
             batch.liked.data() + first},
            more};
  }
  views<engine::array> all() { return at(0, batch.s.B); }

  void forward() {
    const int Vp = batch.s.Vp;
    for (int i = 0; i < batch.s.cells(); ++i) logits[i] = table[batch.ids[i / Vp] * Vp + i % Vp];
  }
  void update(float rate) {
    const int Vp = batch.s.Vp;
    for (int i = 0; i < batch.s.cells(); ++i) {
      table[batch.ids[i / Vp] * Vp + i % Vp] -= rate * logits[i];
    }
  }
};

bool is_right() {
  const preference loss{.beta = 0.3};
  trainer t{{.B = 5, .T = 6, .V = 21, .Vp = 32}};
  const engine::array<float> logits = engine::hostile_logits(t.batch);
  for (int b = 0; b < t.batch.s.B; ++b) t.more.reference[b] = -7 - b;
  const auto exact = engine::textbook(t.batch, logits, t.more.reference, loss.beta, t.batch.s.B);
  t.logits = logits;
  const double whole = classify(t.all(), loss, t.batch.s.B);
  bool right = engine::agrees(t.batch.s, exact, t.logits, t.losses);
  const engine::array<float> at_once = t.logits;
  t.logits = logits;
  const double parts =
      classify(t.at(0, 2), loss, t.batch.s.B) + classify(t.at(2, 3), loss, t.batch.s.B);
  right = right && t.logits.values == at_once.values && std::fabs(whole - parts) < 1e-12;
  std::printf("two micro-batches: %s\n", right ? "the same bits" : "WRONG");
  return right;
}

bool learns() {
  trainer t{{.B = 16, .T = 8, .V = 21, .Vp = 32}};
  const auto is_padding = [&t](int i) { return i % t.batch.s.Vp >= t.batch.s.V; };
  for (int i = 0; i < t.table.size(); ++i) t.table[i] = is_padding(i) ? 1 : 0;
  t.forward();
  classify(t.all(), {}, t.batch.s.B);
  t.more.reference = t.more.policy;  // once, by the weights that training starts from
  double first = 0, last = 0;
  for (int step = 0; step <= 40; ++step) {
    t.forward();
    last = classify(t.all(), {.beta = 0.3}, t.batch.s.B);
    if (step == 0) first = last;
    t.update(8);
    if (step % 10 == 0) std::printf("step %2d  loss %.4f\n", step, last);
  }
  bool padding = true;
  for (int i = 0; i < t.table.size(); ++i) {
    padding = padding && (!is_padding(i) || t.table[i] == 1);
  }
  const bool right = std::fabs(first - 0.5) < 1e-6 && last < 0.5 * first && padding;
  std::printf("from %.4f to %.4f, padded weights %s: %s\n", first, last,
              padding ? "untouched" : "touched", right ? "right" : "WRONG");
  return right;
}

}  // namespace

int main() {
  const bool right = is_right();
  return learns() && right ? 0 : 1;
}
