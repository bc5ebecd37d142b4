// Log-probs of logits and sums of sequences against log_softmax and gather under autograd.
#include "adapters/torch/tensors.hpp"

#include <prospect/adapters/torch/tokens.hpp>

using namespace testing::torch_tensors;
using testing::refusal;
using testing::refuses;

namespace {

/// How far gradients of 16 bits may be from those of the same numbers in double.
struct precision {
  at::ScalarType type;
  double log_prob, gradient;
};
const precision precisions[] = {{at::kDouble, 1e-13, 1e-13},
                                {at::kFloat, 2e-6, 2e-6},
                                {at::kHalf, 2e-6, 1e-3},
                                {at::kBFloat16, 2e-6, 4e-3}};

}  // namespace

TEST_CASE("log-probs of logits and their gradient are autograd's, in every storage type") {
  seed(31);
  for (const auto& [type, tolerance, gradient_tolerance] : precisions) {
    CAPTURE(at::toString(type));
    for (const std::int64_t vocabulary : {1, 5, 257}) {
      const Tensor logits = leaf((3 * at::randn({3, 7, vocabulary}, f64)).to(type));
      const Tensor targets = random_targets({3, 7}, vocabulary);
      const Tensor d = at::randn({3, 7}, f64);
      const auto ours = on_torch::token_log_probs(logits, targets);
      CHECK(ours.log_prob.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
      CHECK(!ours.entropy.defined());
      const Tensor wide = leaf(logits.to(at::kDouble));
      const Tensor want = log_probs(wide, targets);
      CHECK(distance(ours.log_prob, want) < tolerance);
      const Tensor got = gradients(ours.log_prob, {logits}, d.to(ours.log_prob.scalar_type()))[0];
      CHECK(got.scalar_type() == type);
      CHECK(distance(got, gradients(want, {wide}, d)[0]) < gradient_tolerance);
    }
  }
}

TEST_CASE("temperature, soft cap and the entropy, whose gradient rides along") {
  seed(32);
  const Tensor logits = leaf(6 * at::randn({5, 4, 31}, f64));
  const Tensor targets = random_targets({5, 4}, 31, at::kInt);
  const auto ours = on_torch::token_log_probs(logits, targets,
                                              {.temperature = 0.7, .soft_cap = 5, .entropy = true});
  const Tensor z = 5 * at::tanh(logits / 5) / 0.7;
  const Tensor p = at::softmax(z, -1);
  const Tensor want = log_probs(z, targets);
  const Tensor entropy = -(p * at::log_softmax(z, -1)).sum(-1) * (targets != -100);
  CHECK(distance(ours.log_prob, want) < 1e-12);
  CHECK(distance(ours.entropy, entropy) < 1e-12);
  const Tensor d = at::randn({5, 4}, f64), e = at::randn({5, 4}, f64);
  const Tensor got = gradients((ours.log_prob * d + ours.entropy * e).sum(), {logits})[0];
  CHECK(distance(got, gradients((want * d + entropy * e).sum(), {logits})[0]) < 1e-12);
  // One of the two alone.
  const auto again = on_torch::token_log_probs(
      logits, targets, {.temperature = 0.7, .soft_cap = 5, .entropy = true});
  CHECK(distance(gradients(again.entropy, {logits}, e)[0],
                 gradients((-(at::softmax(5 * at::tanh(logits / 5) / 0.7, -1) *
                              at::log_softmax(5 * at::tanh(logits / 5) / 0.7, -1))
                                 .sum(-1) *
                            (targets != -100)),
                           {logits}, e)[0]) < 1e-12);
}

TEST_CASE("logits that are padded, sliced, transposed or repeated") {
  seed(33);
  const std::int64_t vocabulary = 11;
  const Tensor targets = random_targets({4, 6}, vocabulary);
  const auto check = [&](const Tensor& base, const Tensor& logits) {
    const Tensor d = at::randn({4, 6}, f64);
    const auto ours = on_torch::token_log_probs(logits, targets);
    const Tensor want = log_probs(logits, targets);
    CHECK(distance(ours.log_prob, want) < 1e-13);
    CHECK(distance(gradients(ours.log_prob, {base}, d, true)[0],
                   gradients(want, {base}, d, true)[0]) < 1e-13);
  };
  const Tensor padded = leaf(at::randn({4, 6, 16}, f64));
  check(padded, padded.narrow(2, 0, vocabulary));
  const Tensor longer = leaf(at::randn({4, 7, vocabulary}, f64));
  check(longer, longer.narrow(1, 0, 6));
  const Tensor transposed = leaf(at::randn({vocabulary, 6, 4}, f64));
  check(transposed, transposed.permute({2, 1, 0}));
  const Tensor one = leaf(at::randn({1, 1, vocabulary}, f64));
  check(one, one.expand({4, 6, vocabulary}));
}

TEST_CASE("a masked row is not read, whatever it holds, and gets no gradient") {
  seed(34);
  const Tensor values = at::randn({3, 9}, f64);
  values[1].fill_(NAN);
  const Tensor logits = leaf(values);
  const Tensor targets = at::tensor({2, -100, 8});
  const auto ours = on_torch::token_log_probs(logits, targets.to(at::kLong));
  CHECK(ours.log_prob[1].item<double>() == 0);
  const Tensor g = gradients(ours.log_prob.sum(), {logits})[0];
  CHECK(at::equal(g[1], at::zeros({9}, f64)));
  CHECK(at::isfinite(g).all().item<bool>());
}

TEST_CASE("sums of sequences, padded and packed, hand their gradient to scored tokens") {
  seed(35);
  for (const auto type : {at::kDouble, at::kFloat}) {
    const Tensor log_prob = leaf((-at::rand({3, 5}, f64)).to(type));
    Tensor targets = random_targets({3, 5}, 7);
    targets[1].fill_(-100);
    const Tensor scored = targets != -100;
    const auto ours = on_torch::sequence_sums(log_prob, targets);
    CHECK(ours.log_prob.scalar_type() == at::kDouble);
    CHECK(distance(ours.log_prob, (log_prob.to(at::kDouble) * scored).sum(1)) < 1e-14);
    CHECK(at::equal(ours.tokens, scored.sum(1).to(at::kInt)));
    CHECK(!ours.tokens.requires_grad());
    const Tensor d = at::randn({3}, f64);
    const Tensor want = (d.unsqueeze(1) * scored).to(type);
    CHECK(at::equal(gradients(ours.log_prob, {log_prob}, d)[0], want));

    const Tensor flat = log_prob.reshape(-1);
    const Tensor offsets = at::tensor({0, 5, 10, 15}).to(at::kInt);
    const auto packed = on_torch::sequence_sums(flat, targets.reshape(-1), offsets);
    CHECK(at::equal(packed.log_prob, ours.log_prob));
    CHECK(at::equal(gradients(packed.log_prob, {log_prob}, d)[0], want));
  }
}

TEST_CASE("labels become targets of logits that are left whole") {
  const Tensor labels = at::tensor({-100, 4, 5, 6, 7, 8}).view({2, 3}).to(at::kLong);
  CHECK(at::equal(on_torch::shift_targets(labels),
                  at::tensor({4, 5, -100, 7, 8, -100}).view({2, 3}).to(at::kInt)));
  CHECK(at::equal(on_torch::shift_targets(labels.reshape(-1), at::tensor({0, 2, 6}).to(at::kLong)),
                  at::tensor({4, -100, 6, 7, 8, -100}).to(at::kInt)));
}

TEST_CASE("a graph of tokens: retained, without gradients, written to in between, once deep") {
  seed(36);
  const Tensor logits = leaf(at::randn({6, 13}, f64));
  const Tensor targets = random_targets({6}, 13);
  const Tensor d = at::randn({6}, f64);
  const auto ours = on_torch::token_log_probs(logits, targets);
  const Tensor first = gradients(ours.log_prob, {logits}, d, true)[0];
  CHECK(at::equal(gradients(ours.log_prob, {logits}, d, true)[0], first));
  const Tensor g = gradients(ours.log_prob, {logits}, d, true, true)[0];
  CHECK(refusal([&] { gradients(g.sum(), {logits}); }) ==
        "prospect: token_log_probs is differentiated once, not twice");
  const auto sums = on_torch::sequence_sums(ours.log_prob.view({2, 3}), targets.view({2, 3}));
  const Tensor s = gradients(sums.log_prob.sum(), {ours.log_prob}, {}, true, true)[0];
  CHECK(refusal([&] { gradients(s.sum(), {ours.log_prob}); }) ==
        "prospect: sequence_sums is differentiated once, not twice");
  {
    const at::NoGradGuard no_gradients;
    CHECK(!on_torch::token_log_probs(logits, targets).log_prob.requires_grad());
    logits.add_(1);  // torch keeps count
  }
  CHECK_THROWS(gradients(ours.log_prob, {logits}, d));
  CHECK(!on_torch::token_log_probs(logits.detach(), targets).log_prob.requires_grad());
}

TEST_CASE("log-probs and entropies may be written to") {
  seed(39);
  const Tensor logits = leaf(at::randn({6, 13}, f64));
  const Tensor targets = random_targets({6}, 13);
  const auto total = [&](bool written) {
    auto out = on_torch::token_log_probs(logits, targets, {.entropy = true});
    if (written) {
      out.log_prob.mul_(3);
      out.entropy.add_(1);
      return out.log_prob.sum() / 3 + out.entropy.sum();
    }
    return out.log_prob.sum() + out.entropy.sum();
  };
  CHECK(distance(gradients(total(true), {logits})[0], gradients(total(false), {logits})[0]) <
        1e-13);
}

TEST_CASE("gradients of logits agree with finite differences") {
  seed(37);
  const Tensor logits = leaf(at::randn({2, 6}, f64));
  const Tensor targets = at::tensor({1, 5}).to(at::kLong);
  const Tensor g =
      gradients(on_torch::token_log_probs(logits, targets).log_prob.sum(), {logits})[0];
  const double h = 1e-5;
  for (std::int64_t i = 0; i < 12; ++i) {
    const at::NoGradGuard no_gradients;
    const auto shifted = [&](double by) {
      Tensor x = logits.detach().clone();
      x.view(-1)[i] += by;
      return on_torch::token_log_probs(x, targets).log_prob.sum().item<double>();
    };
    CHECK_THAT(g.view(-1)[i].item<double>(), WithinAbs((shifted(h) - shifted(-h)) / (2 * h), 1e-9));
  }
}

TEST_CASE("tokens that do not fit are refused by name") {
  const Tensor logits = at::randn({2, 3, 5}), targets = at::zeros({2, 3}, at::kLong);
  CHECK(refuses("targets has not the shape of logits", [&] {
    on_torch::token_log_probs(logits, at::zeros({3, 2}, at::kLong));
  }));
  CHECK(refuses("targets is of type Float", [&] {
    on_torch::token_log_probs(logits, at::zeros({2, 3}));
  }));
  CHECK(refuses("targets[5] = 5 is neither -100 nor inside [0, 5)", [&] {
    const Tensor wrong = targets.clone();
    wrong[1][2] = 5;
    on_torch::token_log_probs(logits, wrong);
  }));
  CHECK(refuses("logits is of type Int",
                [&] { on_torch::token_log_probs(logits.to(at::kInt), targets); }));
  CHECK(refuses("logits is on meta", [&] {
    on_torch::token_log_probs(at::empty({2, 3, 5}, f64.device(at::kMeta)), targets);
  }));
  CHECK(refuses("targets is on meta, cpu is needed", [&] {
    on_torch::token_log_probs(logits, at::empty({2, 3}, f64.device(at::kMeta).dtype(at::kLong)));
  }));
  CHECK(refuses("temperature",
                [&] { on_torch::token_log_probs(logits, targets, {.temperature = 0}); }));
  CHECK(refuses("targets is not defined", [&] {
    on_torch::sequence_sums(at::zeros({2, 3}), Tensor{});
  }));
  CHECK(refuses("offsets is not defined",
                [&] { on_torch::sequence_sums(at::zeros({6}), at::zeros({6}, at::kLong)); }));
  CHECK(refuses("log_prob", [&] {
    on_torch::sequence_sums(at::zeros({2, 3}, at::kHalf), targets);
  }));
}
