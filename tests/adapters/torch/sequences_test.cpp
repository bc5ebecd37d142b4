// Losses of sums and of tokens against the same formulas in torch's operations, differentiated by
// torch.
#include "adapters/torch/tensors.hpp"

#include <prospect/adapters/torch/sequences.hpp>
#include <prospect/losses/losses.hpp>

using namespace testing::torch_tensors;
using testing::refusal;
using testing::refuses;

namespace {

struct pairs {
  Tensor chosen, rejected, reference_chosen, reference_rejected;

  on_torch::paired_tensors tensors() const {
    return {.policy_chosen = chosen,
            .policy_rejected = rejected,
            .reference_chosen = reference_chosen,
            .reference_rejected = reference_rejected};
  }
  Tensor margin() const { return (chosen - reference_chosen) - (rejected - reference_rejected); }
};

pairs random_pairs(std::int64_t n, at::ScalarType type = at::kDouble) {
  const auto sums = [&] { return (at::randn({n}, f64) * 4 - 20).to(type); };
  return {leaf(sums()), leaf(sums()), sums(), sums()};
}

struct exponential {  // a loss of the caller's own
  double beta = 0.1;
  template <class T>
  PROSPECT_HD T operator()(const prospect::pair<T>& p) const {
    return prospect::exp(-beta * p.log_ratio_margin());
  }
};

}  // namespace

TEST_CASE("paired losses and their gradients are autograd's, in double to 1e-13") {
  seed(21);
  for (const std::int64_t n : {1, 7, 33}) {
    const pairs p = random_pairs(n);
    const auto check = [&](const auto& loss, const Tensor& per_pair) {
      const auto ours = on_torch::evaluate(loss, p.tensors());
      CHECK(distance(ours.total, per_pair.mean()) < 1e-13);
      CHECK(distance(ours.loss, per_pair) < 1e-13);
      CHECK(!ours.loss.requires_grad());
      const auto got = gradients(ours.total, {p.chosen, p.rejected});
      const auto want = gradients(per_pair.mean(), {p.chosen, p.rejected});
      CHECK(distance(got[0], want[0]) < 1e-13);
      CHECK(distance(got[1], want[1]) < 1e-13);
      CHECK(ours.metrics.loss.count == static_cast<double>(n));
    };
    const Tensor m = p.margin();
    check(prospect::dpo{.beta = 0.3, .label_smoothing = 0.1},
          -0.9 * at::log_sigmoid(0.3 * m) - 0.1 * at::log_sigmoid(-0.3 * m));
    check(prospect::ipo_sum{.tau = 0.2}, (m - 1 / 0.4).square());
    check(prospect::hinge{.beta = 0.2}, at::relu(1 - 0.2 * m));
    check(exponential{.beta = 0.1}, at::exp(-0.1 * m));
  }
}

TEST_CASE("rewards, weights, margins, a normaliser and the gradient of what follows") {
  seed(22);
  const pairs p = random_pairs(9);
  auto in = p.tensors();
  in.weight = at::rand({9}, f64);
  in.margin = at::rand({9}, f64);
  const auto ours =
      on_torch::evaluate(prospect::dpo{.beta = 0.5}, in, prospect::normaliser::over(16));
  const Tensor want = (-at::log_sigmoid(0.5 * (p.margin() - in.margin)) * in.weight).sum() / 16;
  CHECK(distance(ours.total, want) < 1e-13);
  CHECK(distance(ours.reward_chosen, 0.5 * (p.chosen - p.reference_chosen)) < 1e-13);
  CHECK(distance(ours.reward_rejected, 0.5 * (p.rejected - p.reference_rejected)) < 1e-13);
  const auto got = gradients((3 * ours.total).square(), {p.chosen, p.rejected});
  const auto autograd = gradients((3 * want).square(), {p.chosen, p.rejected});
  CHECK(distance(got[0], autograd[0]) < 1e-13);
  CHECK(distance(got[1], autograd[1]) < 1e-13);
}

TEST_CASE("halves of one strided tensor are chosen and rejected, and its gradient is whole") {
  seed(23);
  const Tensor columns = leaf(at::randn({12, 3}, f64) * 4);
  const Tensor policy = columns.select(1, 1);  // stride 3
  const Tensor reference = at::randn({12}, f64);
  const auto ours = on_torch::evaluate(prospect::dpo{.beta = 0.2},
                                       {.policy_chosen = policy.narrow(0, 0, 6),
                                        .policy_rejected = policy.narrow(0, 6, 6),
                                        .reference_chosen = reference.narrow(0, 0, 6),
                                        .reference_rejected = reference.narrow(0, 6, 6)});
  const Tensor ratio = policy - reference;
  const Tensor want =
      -at::log_sigmoid(0.2 * (ratio.narrow(0, 0, 6) - ratio.narrow(0, 6, 6))).mean();
  CHECK(distance(gradients(ours.total, {columns})[0], gradients(want, {columns})[0]) < 1e-13);
}

TEST_CASE("sums of float, half and bfloat16 keep the gradient's type") {
  seed(24);
  const struct {
    at::ScalarType type;
    double tolerance;
  } cases[] = {{at::kFloat, 1e-6}, {at::kHalf, 1e-3}, {at::kBFloat16, 8e-3}};
  for (const auto& [type, tolerance] : cases) {
    const pairs p = random_pairs(13, type);
    const auto ours = on_torch::evaluate(prospect::dpo{.beta = 0.1}, p.tensors());
    CHECK(ours.total.scalar_type() == at::kFloat);
    const auto got = gradients(ours.total, {p.chosen, p.rejected});
    CHECK(got[0].scalar_type() == type);
    const pairs wide{leaf(p.chosen.to(at::kDouble)), leaf(p.rejected.to(at::kDouble)),
                     p.reference_chosen.to(at::kDouble), p.reference_rejected.to(at::kDouble)};
    const auto want =
        gradients(-at::log_sigmoid(0.1 * wide.margin()).mean(), {wide.chosen, wide.rejected});
    CHECK(distance(got[0], want[0]) < tolerance);
    CHECK(distance(got[1], want[1]) < tolerance);
  }
}

TEST_CASE("unpaired losses against a point, and SimpleKTO's points through which gradient passes") {
  seed(25);
  const std::int64_t n = 17;
  const Tensor policy = leaf(at::randn({n}, f64) * 3 - 15),
               reference = at::randn({n}, f64) * 3 - 15;
  const Tensor desirable = at::rand({n}) < 0.6;
  const on_torch::unpaired_tensors in{
      .policy = policy, .reference = reference, .desirable = desirable};
  const prospect::kto loss{.beta = 0.2, .desirable_weight = 1.3, .undesirable_weight = 0.7};
  const Tensor ratio = policy - reference;
  const auto formula = [&](const Tensor& z_up, const Tensor& z_down) {
    return at::where(desirable, 1.3 * at::sigmoid(-0.2 * (ratio - z_up)),
                     0.7 * at::sigmoid(-0.2 * (z_down - ratio)));
  };
  const auto ours = on_torch::evaluate(loss, in, prospect::constant_point(0.4));
  const Tensor z = at::full({}, 0.4, f64);
  CHECK(distance(ours.total, formula(z, z).mean()) < 1e-13);
  CHECK(distance(ours.reward, 0.2 * ratio) < 1e-13);
  CHECK(distance(gradients(ours.total, {policy})[0], gradients(formula(z, z).mean(), {policy})[0]) <
        1e-13);

  const auto simple = on_torch::evaluate(loss, in, prospect::cross_class{});
  const Tensor up = at::relu((ratio * desirable).sum() / desirable.sum());
  const Tensor down =
      at::relu((ratio * desirable.logical_not()).sum() / desirable.logical_not().sum());
  CHECK(distance(simple.total, formula(down, up).mean()) < 1e-13);
  CHECK(distance(gradients(simple.total, {policy})[0],
                 gradients(formula(down, up).mean(), {policy})[0]) < 1e-12);
}

TEST_CASE(
    "GRPO of log-probs per token, padded and packed, with masked tokens and an entropy bonus") {
  seed(26);
  const std::int64_t rows = 4, length = 6;
  const Tensor policy = leaf(-at::rand({rows, length}, f64));
  const Tensor old = policy.detach() + 0.3 * at::randn({rows, length}, f64);
  const Tensor reference = policy.detach() + 0.1 * at::randn({rows, length}, f64);
  const Tensor entropy = leaf(at::rand({rows, length}, f64));
  const Tensor advantage = at::randn({rows}, f64);
  Tensor targets = random_targets({rows, length}, 9, at::kInt);
  targets.select(1, 0).fill_(3);  // no sequence without a token
  const prospect::grpo loss{.epsilon = 0.2, .epsilon_high = 0.3, .beta = 0.04};

  const Tensor scored = (targets != -100).to(at::kDouble);
  const Tensor ratio = at::exp(policy - old);
  const Tensor a = advantage.unsqueeze(1);
  const Tensor k3 = at::exp(reference - policy) - (reference - policy) - 1;
  const Tensor per_token = -at::minimum(a * ratio, a * ratio.clamp(0.8, 1.3)) + 0.04 * k3;
  const auto mean_of_means = [&](const Tensor& x) {
    return ((x * scored).sum(1) / scored.sum(1)).mean();
  };
  const Tensor want = mean_of_means(per_token) - 0.01 * mean_of_means(entropy);

  on_torch::token_tensors in{.policy = policy,
                             .old = old,
                             .reference = reference,
                             .advantage = advantage,
                             .entropy = entropy,
                             .targets = targets,
                             .entropy_coef = 0.01};
  const auto padded = on_torch::evaluate(loss, in);
  CHECK(padded.loss.sizes() == policy.sizes());
  CHECK(distance(padded.total, want) < 1e-12);
  const auto oracle = gradients(want, {policy, entropy}, {}, true);
  const auto got = gradients(padded.total, {policy, entropy});
  CHECK(distance(got[0], oracle[0]) < 1e-12);
  CHECK(distance(got[1], oracle[1]) < 1e-12);

  in.policy = policy.reshape(-1);
  in.old = old.reshape(-1);
  in.reference = reference.reshape(-1);
  in.entropy = entropy.reshape(-1);
  in.targets = Tensor{};
  in.mask = (targets != -100).reshape(-1);
  in.offsets = at::arange(0, rows * length + 1, length, at::kLong);
  const auto packed = on_torch::evaluate(loss, in);
  CHECK(distance(packed.total, want) < 1e-12);
  CHECK(distance(gradients(packed.total, {policy})[0], oracle[0]) < 1e-12);
}

TEST_CASE("gradients agree with finite differences") {
  seed(27);
  const pairs p = random_pairs(5);
  const prospect::exo loss{};
  const auto analytic =
      gradients(on_torch::evaluate(loss, p.tensors()).total, {p.chosen, p.rejected});
  const double h = 1e-5;
  for (std::int64_t i = 0; i < 5; ++i) {
    const at::NoGradGuard no_gradients;
    const auto shifted = [&](double by) {
      pairs q = p;
      q.chosen = p.chosen.detach().clone();
      q.chosen[i] += by;
      return on_torch::evaluate(loss, q.tensors()).total.item<double>();
    };
    const double numeric = (shifted(h) - shifted(-h)) / (2 * h);
    CHECK_THAT(analytic[0][i].item<double>(), WithinAbs(numeric, 1e-9));
  }
}

TEST_CASE("gradients go where they are wanted, as often as the graph is retained, and once deep") {
  seed(28);
  pairs p = random_pairs(6);
  p.rejected = p.rejected.detach();
  const auto half = on_torch::evaluate(prospect::dpo{}, p.tensors());
  half.total.backward({}, /*retain_graph=*/true);
  CHECK(p.chosen.grad().defined());
  CHECK(!p.rejected.grad().defined());
  const Tensor first = p.chosen.grad().clone();
  half.total.backward();
  CHECK(at::equal(p.chosen.grad(), 2 * first));
  CHECK_THROWS(half.total.backward());  // torch's own: the graph is gone

  {
    const at::NoGradGuard no_gradients;
    const auto none = on_torch::evaluate(prospect::dpo{}, p.tensors());
    CHECK(!none.total.requires_grad());
    CHECK(at::equal(none.total, half.total.detach()));
  }

  p.chosen.mutable_grad() = Tensor{};
  auto written = on_torch::evaluate(prospect::dpo{}, p.tensors());
  written.total.div_(4);  // micro-batches
  written.total += at::ones({}, f64);
  written.total.backward();
  CHECK(at::equal(p.chosen.grad(), first / 4));

  const auto deep = on_torch::evaluate(prospect::dpo{}, p.tensors());
  const Tensor g = gradients(deep.total, {p.chosen}, {}, true, true)[0];
  CHECK(at::equal(g.detach(), first));
  CHECK(refusal([&] { gradients(g.square().sum(), {p.chosen}); }) ==
        "prospect: dpo is differentiated once, not twice");
  // Nor by way of a sum of which a part has a second derivative.
  CHECK(refuses("dpo is differentiated once", [&] { (deep.total + g.sum()).backward(); }));
}

TEST_CASE("what does not fit is refused by its name, before any work") {
  seed(29);
  const pairs p = random_pairs(4);
  const auto refused = [&](const std::string& why, const auto& change) {
    auto in = p.tensors();
    change(in);
    const std::string message = refusal([&] { on_torch::evaluate(prospect::dpo{}, in); });
    CAPTURE(message);
    CHECK(message.find("prospect: " + why) == 0);
  };
  refused("policy_chosen is not defined", [](auto& in) { in.policy_chosen = Tensor{}; });
  refused("policy_chosen is on meta",
          [](auto& in) { in.policy_chosen = at::empty({4}, f64.device(at::kMeta)); });
  refused("policy_rejected is on meta, cpu is needed",
          [](auto& in) { in.policy_rejected = at::empty({4}, f64.device(at::kMeta)); });
  refused("policy_rejected has 3 elements, 4 are needed",
          [](auto& in) { in.policy_rejected = in.policy_rejected.narrow(0, 0, 3); });
  refused("reference_chosen is missing", [](auto& in) { in.reference_chosen = Tensor{}; });
  refused("reference_rejected is of type Long",
          [](auto& in) { in.reference_rejected = at::zeros({4}, at::kLong); });
  refused("reference_rejected requires a gradient",
          [](auto& in) { in.reference_rejected = leaf(in.reference_rejected); });
  refused("chosen_tokens is of type Long, Int is needed",
          [](auto& in) { in.chosen_tokens = at::ones({4}, at::kLong); });
  refused("weight has 2 dimensions", [](auto& in) { in.weight = at::ones({4, 1}, f64); });

  const on_torch::unpaired_tensors thumbs{.policy = p.chosen, .reference = p.reference_chosen};
  CHECK(refuses("desirable is not defined",
                [&] { on_torch::evaluate(prospect::kto{}, thumbs, prospect::zero_point()); }));
  CHECK(refuses("offsets is not defined", [&] {
    on_torch::evaluate(prospect::sft{}, on_torch::token_tensors{.policy = p.chosen});
  }));
  CHECK(refuses("targets has not the shape", [&] {
    on_torch::evaluate(prospect::sft{},
                       on_torch::token_tensors{.policy = p.chosen.view({2, 2}),
                                               .targets = at::ones({4}, at::kLong)});
  }));
}
