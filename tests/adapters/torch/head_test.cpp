// The head path against a linear layer, log_softmax and gather under autograd: each schedule, two
// nodes at once, and a workspace that does not hold all gradients.
#include "adapters/torch/tensors.hpp"

#include <prospect/adapters/torch/cpu_head.hpp>

#include <limits>

using namespace testing::torch_tensors;
using testing::refusal;
using testing::refuses;

namespace {

struct problem {
  Tensor hidden, weight, bias, targets, d;

  Tensor ours(const on_torch::torch_head_options& options = {}) const {
    return on_torch::head_log_probs(hidden, weight, bias, targets, options);
  }
  /// The same in double by torch, of leaves of its own.
  std::vector<Tensor> autograd() const {
    const auto wide = [](const Tensor& t) { return leaf(t.to(at::kDouble)); };
    const Tensor h = wide(hidden), w = wide(weight), b = wide(bias);
    const Tensor want = log_probs(at::linear(h, w, b), targets);
    auto all = gradients(want, {h, w, b}, d);
    all.insert(all.begin(), want);
    return all;
  }
};

problem random_problem(at::ScalarType type, std::int64_t width = 8, std::int64_t vocabulary = 41) {
  const auto tensor = [&](at::IntArrayRef shape) { return at::randn(shape, f64).to(type); };
  return {leaf(tensor({2, 9, width})), leaf(tensor({vocabulary, width})),
          leaf(tensor({vocabulary})), random_targets({2, 9}, vocabulary), at::randn({2, 9}, f64)};
}

}  // namespace

TEST_CASE("a trained head's log-probs and gradients are autograd's, in every storage type") {
  seed(41);
  const struct {
    at::ScalarType type;
    double log_prob, gradient;
  } cases[] = {{at::kDouble, 1e-13, 1e-12},
               {at::kFloat, 3e-6, 1e-5},
               {at::kHalf, 1e-5, 2e-3},
               {at::kBFloat16, 1e-5, 8e-3}};
  for (const auto& [type, tolerance, gradient_tolerance] : cases) {
    CAPTURE(at::toString(type));
    const problem p = random_problem(type);
    const auto want = p.autograd();
    const Tensor log_prob = p.ours();
    CHECK(log_prob.sizes() == p.targets.sizes());
    CHECK(distance(log_prob, want[0]) < tolerance);
    const auto got =
        gradients(log_prob, {p.hidden, p.weight, p.bias}, p.d.to(log_prob.scalar_type()));
    for (std::size_t i = 0; i < 3; ++i) {
      CHECK(got[i].scalar_type() == type);
      CHECK(distance(got[i], want[i + 1]) < gradient_tolerance);
    }
  }
}

TEST_CASE("a frozen head gives the hidden states their gradient, and nothing else one") {
  seed(42);
  problem p = random_problem(at::kDouble);
  const auto want = p.autograd();
  p.weight = p.weight.detach();
  p.bias = p.bias.detach();
  const Tensor log_prob = p.ours();
  CHECK(distance(log_prob, want[0]) < 1e-13);
  CHECK(distance(gradients(log_prob, {p.hidden}, p.d, true)[0], want[1]) < 1e-12);
  // What is kept is not what was handed out.
  CHECK(distance(gradients(log_prob, {p.hidden}, 2 * p.d)[0], 2 * want[1]) < 1e-12);

  const Tensor no_bias = on_torch::head_log_probs(p.hidden, p.weight, {}, p.targets);
  const Tensor oracle = log_probs(at::linear(p.hidden, p.weight), p.targets);
  CHECK(distance(gradients(no_bias, {p.hidden}, p.d)[0], gradients(oracle, {p.hidden}, p.d)[0]) <
        1e-12);
}

TEST_CASE("a head whose weight alone is trained, and one without any gradient") {
  seed(43);
  problem p = random_problem(at::kDouble);
  const auto want = p.autograd();
  p.hidden = p.hidden.detach();
  const auto got = gradients(p.ours(), {p.weight, p.bias}, p.d);
  CHECK(distance(got[0], want[2]) < 1e-12);
  CHECK(distance(got[1], want[3]) < 1e-12);

  const at::NoGradGuard no_gradients;
  const Tensor log_prob = p.ours();
  CHECK(!log_prob.requires_grad());
  CHECK(distance(log_prob, want[0]) < 1e-13);
}

TEST_CASE("two nodes alive at once, each with a workspace of its own, in either order") {
  seed(44);
  const problem a = random_problem(at::kDouble), b = random_problem(at::kDouble, 5, 300);
  const auto want_a = a.autograd(), want_b = b.autograd();
  const Tensor first = a.ours(), second = b.ours(), third = a.ours({.temperature = 2});
  const auto check = [](const problem& p, const Tensor& log_prob, const std::vector<Tensor>& want) {
    const auto got = gradients(log_prob, {p.hidden, p.weight, p.bias}, p.d, true);
    for (std::size_t i = 0; i < 3; ++i) CHECK(distance(got[i], want[i + 1]) < 1e-12);
  };
  check(b, second, want_b);
  check(a, first, want_a);
  check(a, first, want_a);  // retained: everything is computed again
  check(b, second, want_b);
  CHECK(distance(third, log_probs(at::linear(a.hidden, a.weight, a.bias) / 2, a.targets)) < 1e-13);
}

TEST_CASE("a small workspace changes no log-prob, and one that is too small says what it needs") {
  seed(45);
  const problem p = random_problem(at::kDouble, 16, 3000);
  const Tensor roomy = p.ours();
  const Tensor tight = p.ours({.workspace_bytes = 1 << 18});
  CHECK(at::equal(roomy.detach(), tight.detach()));
  const auto want = p.autograd();
  const auto got = gradients(tight, {p.hidden, p.weight, p.bias}, p.d);
  for (std::size_t i = 0; i < 3; ++i) CHECK(distance(got[i], want[i + 1]) < 1e-12);
  CHECK(refuses("workspace of 64 bytes is too small", [&] { p.ours({.workspace_bytes = 64}); }));
}

TEST_CASE("hidden states and weights that are strided") {
  seed(46);
  const Tensor hidden = leaf(at::randn({9, 2, 12}, f64)), weight = leaf(at::randn({8, 41}, f64));
  const Tensor targets = random_targets({2, 9}, 41);
  const Tensor d = at::randn({2, 9}, f64);
  const Tensor h = hidden.transpose(0, 1).narrow(2, 2, 8), w = weight.t();
  const auto got =
      gradients(on_torch::head_log_probs(h, w, {}, targets), {hidden, weight}, d, true);
  const auto want = gradients(log_probs(at::linear(h, w), targets), {hidden, weight}, d);
  CHECK(distance(got[0], want[0]) < 1e-12);
  CHECK(distance(got[1], want[1]) < 1e-12);
}

TEST_CASE("tokens that are not scored take no part, whatever their hidden states hold") {
  seed(47);
  problem p = random_problem(at::kDouble);
  Tensor hidden = p.hidden.detach().clone();
  p.targets[1][3] = -100;
  hidden[1][3].fill_(NAN);
  p.hidden = leaf(hidden);
  const Tensor log_prob = p.ours();
  CHECK(log_prob[1][3].item<double>() == 0);
  const auto got = gradients(log_prob, {p.hidden, p.weight, p.bias}, p.d);
  for (const Tensor& g : got) CHECK(at::isfinite(g).all().item<bool>());
  CHECK(got[0][1][3].abs().max().item<double>() == 0);

  // Nor does what comes back to them.
  Tensor infinite = p.d.clone();
  infinite[1][3].fill_(std::numeric_limits<double>::infinity());
  CHECK(at::equal(gradients(p.ours(), {p.hidden, p.weight, p.bias}, infinite)[0], got[0]));
  p.weight = p.weight.detach();
  p.bias = p.bias.detach();
  const Tensor frozen = gradients(p.ours(), {p.hidden}, infinite)[0];
  CHECK(at::isfinite(frozen).all().item<bool>());
  CHECK(frozen[1][3].abs().max().item<double>() == 0);
}

TEST_CASE("a host writes to what it was given: micro-batches, auxiliary losses") {
  seed(49);
  for (const bool trained : {true, false}) {
    problem p = random_problem(at::kDouble);
    if (!trained) {
      p.weight = p.weight.detach();
      p.bias = p.bias.detach();
    }
    const Tensor expected = gradients(p.ours(), {p.hidden}, p.d)[0];
    Tensor log_prob = p.ours();
    log_prob.div_(4).add_(1);
    CHECK(distance(gradients(log_prob, {p.hidden}, p.d)[0], expected / 4) < 1e-13);
  }
}

TEST_CASE("a head is differentiated once, and refuses by name what does not fit") {
  seed(48);
  const problem p = random_problem(at::kDouble);
  const Tensor g = gradients(p.ours(), {p.hidden}, p.d, true, true)[0];
  CHECK(refusal([&] { gradients(g.sum(), {p.hidden}); }) ==
        "prospect: head_log_probs is differentiated once, not twice");

  const auto refused = [&](const std::string& why, const auto& change) {
    problem q = p;
    change(q);
    const std::string message = refusal([&] { q.ours(); });
    CAPTURE(message);
    CHECK(message.find("prospect: " + why) == 0);
  };
  refused("hidden is not defined", [](problem& q) { q.hidden = Tensor{}; });
  refused("hidden is of type Long", [](problem& q) { q.hidden = q.hidden.detach().to(at::kLong); });
  refused("head.weight has 7 columns, hidden has 8",
          [](problem& q) { q.weight = q.weight.narrow(1, 0, 7); });
  refused("weight is of type Float, Double is needed",
          [](problem& q) { q.weight = q.weight.to(at::kFloat); });
  refused("weight is on meta, cpu is needed", [](problem& q) {
    q.weight = at::empty({41, 8}, f64.device(at::kMeta));
  });
  refused("bias has 2 dimensions", [](problem& q) { q.bias = q.bias.view({1, 41}); });
  refused("head.bias has 40 elements", [](problem& q) { q.bias = q.bias.narrow(0, 0, 40); });
  refused("targets has not the shape of hidden", [](problem& q) { q.targets = q.targets[0]; });
  refused("targets[1] = 41 is neither", [](problem& q) {
    q.targets = q.targets.clone();
    q.targets[0][1] = 41;
  });
}
