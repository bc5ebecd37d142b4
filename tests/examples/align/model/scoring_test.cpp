// The way from hidden states to log-probabilities of sequences and back.
#include "model/scoring.hpp"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "catch.hpp"
#include "random_source.hpp"

using namespace align;

namespace {

// What a model would hand over: hidden states, a head, and sequences whose targets roam the
// vocabulary.
struct head_problem {
  packed_batch batch;
  tensor<float> hidden, head;
  std::vector<double> coefficients;
};

std::span<float> numbers_of(tensor<float>& of) {
  const matrix<float> m = of.view();
  return {m.data, static_cast<std::size_t>(m.rows * m.columns)};
}

head_problem make_problem(std::int64_t vocabulary, std::size_t sequences, std::size_t length) {
  constexpr std::int64_t width = 8;
  head_problem made;
  random_source random{5};
  for (std::size_t s = 0; s < sequences; ++s) {
    std::vector<token> completion(length - s % 2);
    for (token& word : completion) {
      word = static_cast<token>(random.below(static_cast<std::size_t>(vocabulary)));
    }
    made.batch.append(std::vector<token>{4}, completion);
    made.coefficients.push_back(random.uniform() - 0.5);
  }
  made.hidden.reshape(static_cast<std::int64_t>(made.batch.targets.size()), width);
  made.head.reshape(vocabulary, width);
  for (float& x : numbers_of(made.hidden)) x = static_cast<float>(4 * random.uniform() - 2);
  for (float& x : numbers_of(made.head)) x = static_cast<float>(2 * random.uniform() - 1);
  return made;
}

// log p of each target, by the definition of the softmax.
std::vector<double> plain_log_probs(const head_problem& p) {
  const matrix<const float> hidden = p.hidden.view(), head = p.head.view();
  std::vector<double> log_probs;
  for (std::int64_t t = 0; t < hidden.rows; ++t) {
    double sum = 0, own = 0;
    for (std::int64_t v = 0; v < head.rows; ++v) {
      double logit = 0;
      for (std::int64_t j = 0; j < head.columns; ++j) {
        logit += double{hidden.row(t)[j]} * double{head.row(v)[j]};
      }
      sum += std::exp(logit);
      if (v == p.batch.targets[static_cast<std::size_t>(t)]) own = logit;
    }
    log_probs.push_back(own - std::log(sum));
  }
  return log_probs;
}

// The sum of coefficient times log-probability, of which `backpropagate` gives the gradient.
double weighted_score(const head_problem& p) {
  const std::vector<double> log_probs = plain_log_probs(p);
  double sum = 0;
  for (std::size_t s = 0; s < p.batch.sequences(); ++s) {
    for (std::int32_t t = p.batch.scored_offsets[s]; t < p.batch.scored_offsets[s + 1]; ++t) {
      sum += p.coefficients[s] * log_probs[static_cast<std::size_t>(t)];
    }
  }
  return sum;
}

struct head_slopes {
  std::vector<float> hidden, head;
};

// Starts from 1: the one is to be overwritten, the other added to.
head_slopes slopes_from_one(head_problem p, head_use use, int threads = 2) {
  workers on{threads};
  token_scores<float> scores;
  tensor<float> d_hidden, d_head;
  d_hidden.reshape(p.hidden.view().rows, p.hidden.view().columns);
  d_head.reshape(p.head.view().rows, p.head.view().columns);
  for (tensor<float>* d : {&d_hidden, &d_head}) std::ranges::fill(numbers_of(*d), 1.0F);
  const matrix<const float> hidden = p.hidden.view();
  const head_weights<const float> head{.weight = p.head.view()};
  const bool frozen = use == head_use::frozen;
  score<float>(hidden, head, p.batch, use, scores, frozen ? d_hidden.view() : matrix<float>{}, on);
  backpropagate<float>(hidden, head, p.batch, use, scores, p.coefficients, d_hidden.view(),
                       {.weight = frozen ? matrix<float>{} : d_head.view()}, on);
  const auto copied = [](std::span<const float> x) { return std::vector(x.begin(), x.end()); };
  return {copied(numbers_of(d_hidden)), copied(numbers_of(d_head))};
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(a[i] - b[i]));
  return largest;
}

// Of the weighted score by `x`, a part of `p`.
double slope_by(const head_problem& p, float& x) {
  constexpr float h = 0x1p-10F;  // exact, and so is adding it to what has a few bits to spare
  const float here = x;
  x = here + h;
  const double above = weighted_score(p), right = x;
  x = here - h;
  const double below = weighted_score(p), left = x;
  x = here;
  return (above - below) / (right - left);
}

}  // namespace

TEST_CASE("log-probabilities are those of the softmax, summed by sequence") {
  const head_problem p = make_problem(700, 5, 20);
  const std::vector<double> expected = plain_log_probs(p);
  workers on{2};
  token_scores<float> scores;
  for (const head_use use : {head_use::evaluation, head_use::trained, head_use::frozen}) {
    tensor<float> d_hidden;
    score<float>(p.hidden.view(), {.weight = p.head.view()}, p.batch, use, scores,
                 d_hidden.reshape(p.hidden.view().rows, p.hidden.view().columns), on);
    REQUIRE(scores.log_prob.size() == expected.size());
    REQUIRE(scores.sequence.size() == 5);
    for (std::size_t s = 0; s < 5; ++s) {
      double sum = 0;
      for (std::int32_t i = p.batch.scored_offsets[s]; i < p.batch.scored_offsets[s + 1]; ++i) {
        const auto t = static_cast<std::size_t>(i);
        sum += expected[t];
        REQUIRE_THAT(scores.log_prob[t], WithinRel(expected[t], 1e-5));
      }
      CHECK_THAT(scores.sequence[s], WithinRel(sum, 1e-6));
    }
  }
}

TEST_CASE("gradients of hidden states and head agree with finite differences") {
  const head_use use = GENERATE(head_use::trained, head_use::frozen);
  head_problem p = make_problem(11, 3, 4);
  const head_slopes d = slopes_from_one(p, use);
  double worst = 0, largest = 0;
  const auto compare = [&](std::span<float> numbers, const std::vector<float>& slopes,
                           float start) {
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      const double slope = slope_by(p, numbers[i]);
      worst = std::max(worst, std::abs(slopes[i] - start - slope));
      largest = std::max(largest, std::abs(slope));
    }
  };
  compare(numbers_of(p.hidden), d.hidden, 0);
  if (use == head_use::trained) compare(numbers_of(p.head), d.head, 1);
  CHECK(largest > 0.3);
  CHECK(worst < 1e-5);
}

TEST_CASE("a frozen head has no gradient, and that of hidden states is what it was") {
  const head_problem p = make_problem(300, 6, 20);
  const head_slopes trained = slopes_from_one(p, head_use::trained);
  const head_slopes frozen = slopes_from_one(p, head_use::frozen);
  CHECK(largest_difference(trained.hidden, frozen.hidden) < 1e-6F);
  CHECK(std::ranges::all_of(frozen.head, [](float x) { return x == 1; }));
  CHECK(std::ranges::any_of(frozen.hidden, [](float x) { return std::abs(x) > 0.1F; }));
}

TEST_CASE("gradients are the same whether all, some or none are kept from the forward pass") {
  // The larger one's logits would take 75 MB, more than the workspace has.
  const head_problem p = GENERATE(make_problem(1500, 6, 20), make_problem(24000, 40, 20));
  const head_slopes kept = slopes_from_one(p, head_use::trained);
  const head_slopes again = slopes_from_one(p, head_use::evaluation);
  const std::vector<float> none(kept.hidden.size()), ones(kept.head.size(), 1.0F);
  CHECK(largest_difference(kept.hidden, again.hidden) <
        1e-5F * largest_difference(kept.hidden, none));
  CHECK(largest_difference(kept.head, again.head) < 1e-5F);
  CHECK(largest_difference(kept.head, ones) > 0.1F);
}

TEST_CASE("the number of threads changes no bit of the head's gradients") {
  const head_problem p = make_problem(1500, 6, 20);
  for (const head_use use : {head_use::trained, head_use::frozen}) {
    const head_slopes one = slopes_from_one(p, use, 1), three = slopes_from_one(p, use, 3);
    CHECK(one.hidden == three.hidden);
    CHECK(one.head == three.head);
  }
}

TEST_CASE("an adapted head is the head that it would be merged into, and has its chain of slopes") {
  using dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const auto map = [](tensor<float>& t) {
    return Eigen::Map<dense>{t.view().data, t.view().rows, t.view().columns};
  };
  head_problem merged = make_problem(300, 6, 20);
  tensor<float> down, up, own;
  down.reshape(3, 8);
  up.reshape(300, 3);
  own.reshape(300, 8);
  random_source random{6};
  for (tensor<float>* t : {&down, &up}) {
    for (float& x : numbers_of(*t)) x = static_cast<float>(2 * random.uniform() - 1);
  }
  constexpr float scale = 0.75F;
  map(own) = map(merged.head) - scale * map(up) * map(down);
  const head_weights<const float> head{
      .weight = own.view(), .down = down.view(), .up = up.view(), .scale = double{scale}};

  workers on{2};
  token_scores<float> scores;
  tensor<float> d_hidden, d_down, d_up;
  d_hidden.reshape(merged.hidden.view().rows, 8);
  d_down.reshape(3, 8);
  d_up.reshape(300, 3);
  for (tensor<float>* d : {&d_hidden, &d_down, &d_up}) std::ranges::fill(numbers_of(*d), 1.0F);
  score<float>(merged.hidden.view(), head, merged.batch, head_use::trained, scores, {}, on);
  const std::vector<double> expected = plain_log_probs(merged);
  for (std::size_t t = 0; t < expected.size(); ++t) {
    REQUIRE_THAT(scores.log_prob[t], WithinRel(expected[t], 1e-5));
  }
  backpropagate<float>(merged.hidden.view(), head, merged.batch, head_use::trained, scores,
                       merged.coefficients, d_hidden.view(),
                       {.weight = {}, .down = d_down.view(), .up = d_up.view()}, on);

  head_slopes whole = slopes_from_one(merged, head_use::trained);
  const dense d_head = Eigen::Map<dense>(whole.head.data(), 300, 8).array() - 1;
  const dense by_down = scale * map(up).transpose() * d_head;
  const dense by_up = scale * d_head * map(down).transpose();
  CHECK(by_down.norm() > 1);
  CHECK(by_up.norm() > 1);
  CHECK((map(d_down).array() - 1 - by_down.array()).abs().maxCoeff() < 1e-4F);
  CHECK((map(d_up).array() - 1 - by_up.array()).abs().maxCoeff() < 1e-4F);
  const std::span<const float> slopes = numbers_of(d_hidden);
  CHECK(largest_difference({slopes.begin(), slopes.end()}, whole.hidden) < 1e-5F);
}
