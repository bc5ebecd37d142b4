// The whole way from logits to a loss and back: every loss by finite differences, one of them
// against the oracle alone.

#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/logits.hpp"
#include "losses/some.hpp"
#include "oracle/losses.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace {

using oracle::real;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::strided_span;
using prospect::cpu::sequence_sums;
using prospect::cpu::shift_targets;
using prospect::cpu::spread;
using testing::logits_matrix;
using testing::near;
using testing::random_source;

/// Sequences of uneven length in one packed batch: prompt rows are masked, one completion is empty.
struct chain {
  std::int64_t vocabulary = 11;
  std::vector<std::int32_t> offsets{0, 4, 9, 10, 16, 18, 22, 27, 30};
  std::vector<std::int32_t> targets;
  std::vector<double> logits, reference;  // [30, 11], and one sum per sequence

  explicit chain(random_source& random) {
    logits = random.normals(30 * vocabulary, 1.5);
    for (int t = 0; t < 30; ++t) {
      targets.push_back(t % 5 == 0 ? ignored_target
                                   : static_cast<std::int32_t>(random.integer(0, vocabulary - 1)));
    }
    targets[9] = ignored_target;  // the third sequence has no scored token
    std::vector<double> sums(8);
    auto copy = logits;
    run<double>(copy, [&](const auto& sum, const auto&, const auto&) { sums = sum; });
    for (const double sum : sums) reference.push_back(sum + random.normal(2));
  }

  sequence_layout layout() const { return sequence_layout::packed(offsets); }

  /// The forward pass, `loss(sums, tokens, d_sums)`, and the backward pass into `values`.
  template <class S, class Loss>
  void run(std::vector<S>& values, const Loss& loss) const {
    using R = prospect::compute_t<S>;
    const prospect::matrix_view<S> matrix{values.data(), 30, vocabulary};
    std::vector<R> log_prob(30), d_token(30);
    std::vector<double> lse(30), sums(8), d_sums(8);
    std::vector<std::int32_t> tokens(8);
    prospect::cpu::token_log_probs<S>(matrix, targets, {.log_prob = log_prob, .lse = lse});
    sequence_sums<R>(log_prob, targets, layout(), {.log_prob = sums, .tokens = tokens});
    loss(sums, tokens, strided_span<double>{d_sums});
    spread<R>(d_sums, targets, layout(), d_token);
    prospect::cpu::logits_gradient<S>(matrix, targets, log_prob, lse, d_token);
  }
};

/// Four pairs: the first four sequences are chosen, the others rejected.
template <class Loss>
auto as_pairs(const chain& c, const Loss& loss, double& total) {
  return [&](const std::vector<double>& sums, const std::vector<std::int32_t>& tokens,
             strided_span<double> d) {
    const strided_span<const double> p{sums}, r{c.reference};
    const strided_span<const std::int32_t> n{tokens};
    total = prospect::cpu::evaluate(
                loss,
                prospect::paired_batch<double>{.policy_chosen = p.slice(0, 4),
                                               .policy_rejected = p.slice(4, 4),
                                               .reference_chosen = r.slice(0, 4),
                                               .reference_rejected = r.slice(4, 4),
                                               .chosen_tokens = n.slice(0, 4),
                                               .rejected_tokens = n.slice(4, 4)},
                {.d_policy_chosen = d.slice(0, 4), .d_policy_rejected = d.slice(4, 4)})
                .total;
  };
}

/// Eight completions, thumbs alternating.
template <class Point>
auto as_answers(const chain& c, const prospect::kto& loss, const Point& point, double& total) {
  return [&](const std::vector<double>& sums, const std::vector<std::int32_t>& tokens,
             strided_span<double> d) {
    const std::vector<std::uint8_t> up{1, 0, 1, 1, 0, 0, 1, 0};
    total = prospect::cpu::evaluate(
                loss,
                prospect::unpaired_batch<double>{
                    .policy = sums, .reference = c.reference, .desirable = up, .tokens = tokens},
                point, {.d_policy = d})
                .total;
  };
}

void check_chain(const chain& c, const auto& loss, const double& total) {
  auto gradient = c.logits;
  c.run<double>(gradient, loss);
  const double h = 1e-5;
  int moved = 0;
  for (std::size_t k = 0; k < c.logits.size(); ++k) {
    auto x = c.logits;
    x[k] = c.logits[k] + h;
    c.run<double>(x, loss);
    const double high = total;
    x = c.logits;
    x[k] = c.logits[k] - h;
    c.run<double>(x, loss);
    const double difference = (high - total) / (2 * h);
    CAPTURE(k, gradient[k], difference);
    CHECK(near(gradient[k], difference, 1e-5L, 1e-9L * (1 + std::abs(total))));
    moved += difference != 0 ? 1 : 0;
  }
  CHECK(moved > 100);

  // fp32 gives the same gradient, to its own precision.
  std::vector<float> narrow(c.logits.begin(), c.logits.end());
  std::vector<double> rounded(narrow.begin(), narrow.end());
  c.run<float>(narrow, loss);
  c.run<double>(rounded, loss);
  for (std::size_t k = 0; k < narrow.size(); ++k) {
    CHECK(near(narrow[k], rounded[k], 2e-5L, 1e-8L * (1 + std::abs(total))));
  }
}

}  // namespace

TEST_CASE("logits to a loss and back, by finite differences", "[tokens][chain]") {
  random_source random{102};
  CAPTURE(random.seed());
  const chain c{random};
  double total = 0;
  testing::for_some_losses([&](const auto& loss) {
    CAPTURE(loss.name);
    if constexpr (prospect::paired_loss<std::remove_cvref_t<decltype(loss)>, double>) {
      check_chain(c, as_pairs(c, loss, total), total);
    }
  });
  const prospect::kto kto{.beta = 0.3, .desirable_weight = 1.5};
  const prospect::reference_point point{.z = 0.4, .raw = 0.4};
  check_chain(c, as_answers(c, kto, point, total), total);
  const prospect::cross_class both;
  check_chain(c, as_answers(c, kto, both, total), total);
}

TEST_CASE("logits to DPO and back, against the oracle alone", "[tokens][chain]") {
  // No library code on the other side: softmax, sums, loss and chain rule by hand.
  random_source random{103};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 19, length = 6;
  const real beta = 0.25L;
  logits_matrix<float> logits{2 * length, vocabulary};
  std::vector<std::int32_t> labels, targets(2 * length);
  for (std::int64_t t = 0; t < 2 * length; ++t) {
    fill(logits, t, testing::row_kind::ordinary, 0, random);
    // The first two labels of each sequence are its prompt.
    labels.push_back(t % length < 2 ? ignored_target
                                    : static_cast<std::int32_t>(random.integer(0, vocabulary - 1)));
  }
  // By hand: position t predicts label t + 1.
  std::vector<std::vector<real>> want(2 * length, std::vector<real>(vocabulary, 0));
  real sums[2] = {0, 0};
  std::vector<oracle::softmax_row> rows(2 * length);
  for (std::int64_t s = 0; s < 2; ++s) {
    for (std::int64_t t = s * length; t + 1 < (s + 1) * length; ++t) {
      const auto i = static_cast<std::size_t>(t);
      if (labels[i + 1] == ignored_target) continue;
      rows[i] = oracle::softmax(logits.row(t), labels[i + 1]);
      sums[s] += rows[i].log_prob;
    }
  }
  const double reference[2] = {static_cast<double>(sums[0]) - 1.5,
                               static_cast<double>(sums[1]) + 0.5};
  const auto value =
      oracle::dpo<oracle::real>(sums[0] - reference[0], sums[1] - reference[1], beta, 0);
  for (std::int64_t t = 0; t < 2 * length; ++t) {
    const auto i = static_cast<std::size_t>(t);
    for (std::size_t j = 0; j < rows[i].gradient.size(); ++j) {
      want[i][j] = (t < length ? value.d_chosen : value.d_rejected) * rows[i].gradient[j];
    }
  }

  const auto layout = sequence_layout::padded(2, length);
  std::vector<float> log_prob(2 * length), d_token(2 * length);
  std::vector<double> lse(2 * length), p(2), d(2);
  shift_targets(labels, layout, targets);
  prospect::cpu::token_log_probs<float>(logits.view(), targets, {.log_prob = log_prob, .lse = lse});
  sequence_sums<float>(log_prob, targets, layout, {.log_prob = p});
  const strided_span<const double> both{p}, ref{reference};
  const strided_span<double> d_both{d};
  const auto m = prospect::cpu::evaluate(
      prospect::dpo{.beta = 0.25},
      prospect::paired_batch<double>{.policy_chosen = both.slice(0, 1),
                                     .policy_rejected = both.slice(1, 1),
                                     .reference_chosen = ref.slice(0, 1),
                                     .reference_rejected = ref.slice(1, 1)},
      {.d_policy_chosen = d_both.slice(0, 1), .d_policy_rejected = d_both.slice(1, 1)});
  spread<float>(d, targets, layout, d_token);
  prospect::cpu::logits_gradient<float>(logits.view(), targets, log_prob, lse, d_token);

  CHECK(near(m.total, value.loss, 1e-6L));
  for (std::int64_t t = 0; t < 2 * length; ++t) {
    for (std::int64_t j = 0; j < vocabulary; ++j) {
      const real expected = want[static_cast<std::size_t>(t)][static_cast<std::size_t>(j)];
      CHECK(near(logits.at(t, j), expected, 2e-6L));
    }
  }
}
