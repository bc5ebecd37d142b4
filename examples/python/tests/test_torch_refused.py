"""What would be dropped or read as something else is refused by name; what is hostile and allowed has right values:
no rows, rows that overlap, infinities from above, changes in place, autocast."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import torch.nn.functional as F  # noqa: E402
from test_torch import PAIRED, batch, normal, plain_log_probs  # noqa: E402

import prospect  # noqa: E402
import prospect.torch as pt  # noqa: E402


def test_tokens_are_of_the_policy_s_shape():
    policy, other = normal(2, 3, mean=-2.0), normal(2, 3, mean=-2.0)
    given = dict(policy=policy, old_policy=policy, reference=other, advantage=torch.ones(2).double(), beta=0.5)
    log_ratio = other - policy
    right = -1 + 0.5 * (log_ratio.exp() - log_ratio - 1).mean()
    assert pt.loss("grpo", **given).item() == pytest.approx(right.item(), rel=1e-12)
    for row in (other.t().contiguous(), other.t(), other.reshape(-1)):
        with pytest.raises(ValueError, match=r"reference is \[.*\], and policy is \[2, 3\]"):
            pt.loss("grpo", **{**given, "reference": row})
    with pytest.raises(ValueError, match=r"mask is \[3, 2\], and policy is \[2, 3\]"):
        pt.loss("grpo", **given, mask=torch.ones(3, 2))
    with pytest.raises(ValueError, match="offsets must be a tensor"):
        pt.loss("grpo", **{**given, "policy": policy.reshape(-1)}, offsets=[0, 3, 6])
    with pytest.raises(ValueError, match=r"inverse_temperatures is \[3, 2\]"):
        pt.log_probs(torch.randn(2, 3, 7), torch.ones(2, 3).long(), inverse_temperatures=torch.ones(3, 2))


def test_a_point_that_is_not_clamped_is_a_number():
    policy, tokens, good = torch.tensor([-9.0, -14.0]).double(), torch.tensor([4, 8]), torch.tensor([True, False])
    given = dict(policy=policy, tokens=tokens, desirable=good)
    x = 0.1 * (policy / tokens + 1.97)
    right = (torch.sigmoid(-x[0]) + torch.sigmoid(x[1])) / 2
    assert pt.loss("kto_surprisal", **given, z=-1.97).item() == pytest.approx(right.item(), rel=1e-12)
    points = [dict(z=torch.tensor(-1.97)), dict(z="cross_class"),
              dict(mismatched_policy=policy, mismatched_reference=policy, mismatched_tokens=tokens)]
    for name, more in (("kto_surprisal", {}), ("bco", dict(reference=policy - 1))):
        for point in points:
            with pytest.raises(ValueError, match=f"clamped at 0, and {name}'s is not: give z as a number"):
                pt.loss(name, **given, **more, **point)
            if not isinstance(point.get("z"), torch.Tensor):
                all_rows = {**given, **more, **point}
                arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in all_rows.items()}
                with pytest.raises(ValueError, match=f"clamped at 0, and {name}'s is not: give z as a number"):
                    prospect.evaluate(name, **arrays)
    for more in (dict(z=1.0), {}):
        with pytest.raises(ValueError, match="mismatched_reference"):
            pt.loss("kto", **given, reference=policy, mismatched_reference=policy, **more)
    with pytest.raises(ValueError, match="kto_zero reads no reference point"):
        pt.loss("kto_zero", **given, reference=policy, z=torch.tensor(1.0))


@pytest.mark.parametrize("name, chosen", [
    ("kto", dict(score="forward_kl")), ("kto", dict(averaging="tokens")), ("grpo", dict(score="forward_kl")),
    ("dpo", dict(averaging="tokens")), ("dpo", dict(score_alpha=0.3))])
def test_what_a_loss_has_no_use_for_is_refused(name, chosen):
    given = batch(name)
    for evaluate in (pt.loss, prospect.evaluate):
        rows = {k: v.detach() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
        with pytest.raises(ValueError, match="score|averag"):
            evaluate(prospect.Loss.of(name, **chosen), **rows)
    with pytest.raises(ValueError, match="values must be those of beta, label_smoothing"):
        pt.loss(prospect.Loss("dpo", (0.5, 0.0, 9.9)), **batch("dpo"))


def test_a_gradient_that_goes_nowhere_is_refused():
    given = {name: row.detach() for name, row in batch("grpo").items()}
    with pytest.raises(ValueError, match="entropy requires a gradient"):
        pt.loss("grpo", **given, entropy=torch.rand(7, 5).requires_grad_())
    entropy = torch.rand(7, 5).double().requires_grad_()
    pt.loss("bnpo", **given, entropy=entropy, entropy_coef=0.5).backward()
    torch.testing.assert_close(entropy.grad, -0.5 * given["mask"].double() / given["mask"].sum())
    for name in ("old_policy", "reference", "advantage"):
        with pytest.raises(ValueError, match=f"{name} requires a gradient"):
            pt.loss("grpo", **{**given, name: given[name].clone().requires_grad_()})
    with pytest.raises(ValueError, match="inverse_temperatures requires a gradient"):
        pt.log_probs(torch.randn(3, 7), torch.ones(3).long(), inverse_temperatures=torch.ones(3, requires_grad=True))
    with pytest.raises(ValueError, match="z requires a gradient"):
        pt.loss("kto", **{**batch("kto"), "z": torch.tensor(1.0, requires_grad=True)})
    with torch.no_grad():  # where nobody waits for one
        pt.loss("grpo", **{**given, "reference": given["reference"].clone().requires_grad_()})


def test_a_negative_view_keeps_its_sign():
    view = torch.tensor([1 + 2j, 1 + 3j], dtype=torch.complex64).conj().imag
    assert view.is_neg() and view.tolist() == [-2.0, -3.0]
    zero = np.zeros(2, np.float32)
    rewards = prospect.evaluate("dpo", policy_chosen=view, policy_rejected=zero, reference_chosen=zero,
                                reference_rejected=zero, beta=0.1).rewards["chosen"]
    np.testing.assert_allclose(rewards, [-0.2, -0.3], rtol=1e-6)


@pytest.mark.parametrize("trained", [True, False])
def test_no_rows(trained):
    hidden, weight = torch.zeros(0, 5, requires_grad=True), torch.randn(7, 5).requires_grad_(trained)
    pt.head_log_probs(hidden, weight, torch.zeros(0).long()).sum().backward()
    assert hidden.grad.shape == (0, 5) and (not trained or (weight.grad == 0).all())
    logits = torch.zeros(0, 3, 5, requires_grad=True)
    pt.log_probs(logits, torch.zeros(0, 3).long()).sum().backward()
    assert logits.grad.shape == (0, 3, 5)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("above", [float("inf"), float("nan")])
def test_whatever_comes_from_above_an_unscored_token(trained, above):
    hidden, weight = torch.randn(4, 5, requires_grad=True), torch.randn(7, 5).requires_grad_(trained)
    targets, mask = torch.tensor([1, 2, -100, 4]), torch.tensor([1, 0, 1, 1])
    pt.head_log_probs(hidden, weight, targets, mask=mask).backward(torch.tensor([1.0, above, above, 1.0]))
    assert (hidden.grad[1:3] == 0).all() and torch.isfinite(hidden.grad).all() and hidden.grad.norm() > 0
    assert not trained or torch.isfinite(weight.grad).all()


def test_rows_that_overlap_are_copied():
    targets = torch.tensor([1, 2, 3, 4])
    logits = torch.randn(1, 7).double().requires_grad_()
    pt.log_probs(logits.expand(4, 7), targets).sum().backward()
    got, logits.grad = logits.grad, None
    plain_log_probs(logits.expand(4, 7), targets)[0].sum().backward()
    torch.testing.assert_close(got, logits.grad)
    sliding = torch.randn(13).double().unfold(0, 7, 2)
    torch.testing.assert_close(pt.log_probs(sliding, targets), plain_log_probs(sliding, targets)[0])
    hidden, weight = torch.randn(1, 5).double().expand(4, 5), torch.randn(5, 7).double().t()
    a, b = torch.randn(5, 2).double().t(), torch.randn(2, 7).double().t()
    torch.testing.assert_close(pt.head_log_probs(hidden, weight, targets, lora_a=a, lora_b=b, lora_scale=0.5),
                               plain_log_probs(hidden @ (weight + 0.5 * b @ a).t(), targets)[0])


@pytest.mark.parametrize("call, message", [
    (lambda h, t: pt.head_log_probs(h, torch.randn(5), t), "weight must have 2 dimensions"),
    (lambda h, t: pt.head_log_probs(h, torch.randn(2, 3, 5), t), "weight must have 2 dimensions"),
    (lambda h, t: pt.head_log_probs(h, h, t, temperature=0), "temperature must be above 0"),
    (lambda h, t: pt.log_probs(h, t, temperature=0.0), "temperature must be above 0"),
    (lambda h, t: pt.log_probs(h, t.tolist()), "targets must be a tensor"),
    (lambda h, t: pt.log_probs(h, t, mask=np.ones(4)), "mask must be a tensor"),
])
def test_refused_beside_logits_and_hidden_states(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.randn(4, 5), torch.tensor([1, 2, 3, 4]))


def test_autocast_casts_as_a_linear_does():
    linear, weight = torch.nn.Linear(5, 5), torch.randn(7, 5, requires_grad=True)
    x, targets = torch.randn(4, 5), torch.tensor([1, 2, -100, 4])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = linear(x)
        ours = pt.head_log_probs(hidden, weight, targets)
    assert hidden.dtype == torch.bfloat16
    expected, _ = plain_log_probs(hidden.detach().double() @ weight.bfloat16().double().t(), targets)
    torch.testing.assert_close(ours.double(), expected, rtol=2e-5, atol=2e-5)
    ours.sum().backward()
    got, weight.grad = weight.grad, None
    expected.sum().backward()
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, weight.grad, rtol=1e-2, atol=1e-2)
    wide = torch.randn(4, 5).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert pt.head_log_probs(wide, weight.detach().double(), targets).dtype == torch.float64


def test_what_happens_to_rows_after_a_loss():
    leaf = [normal(4, grad=True) for _ in range(2)]
    rows = [leaf[0] * 1, leaf[1] * 1, normal(4), normal(4)]
    done = pt.evaluate("dpo", **dict(zip(PAIRED, rows)), beta=0.2)
    x = 0.2 * ((leaf[0] - rows[2]) - (leaf[1] - rows[3]))
    right = torch.autograd.grad(-F.logsigmoid(x).mean(), leaf)
    rows[0].mul_(2)
    total = done.total
    total += 1
    total.backward()
    torch.testing.assert_close(leaf[0].grad, right[0])
    torch.testing.assert_close(leaf[1].grad, right[1])


def test_a_frozen_head_keeps_no_input():
    leaf, weight, targets = torch.randn(4, 5).double().requires_grad_(), torch.randn(7, 5).double(), torch.arange(4)
    hidden = leaf * 1
    (right,) = torch.autograd.grad(plain_log_probs(hidden @ weight.t(), targets)[0].sum(), leaf, retain_graph=True)
    done = pt.head_log_probs(hidden, weight, targets)
    hidden.mul_(2)
    weight.mul_(3)
    done.sum().backward()
    torch.testing.assert_close(leaf.grad, right)
