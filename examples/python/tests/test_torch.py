"""The operators beside PyTorch's own autograd: values, gradcheck, torch.compile, and what is refused."""

import contextlib
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
import torch.nn.functional as F  # noqa: E402

import prospect  # noqa: E402
import prospect.torch as pt  # noqa: E402
from prospect import _core  # noqa: E402

PAIRED = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def normal(*shape, dtype=torch.float64, mean=-20.0, grad=False):
    return (mean + 3 * torch.randn(*shape, dtype=torch.float64)).to(dtype).requires_grad_(grad)


def batch(name, n=7):
    """Rows that every loss of its kind can take, and which of them carry a gradient."""
    kind = prospect.kind(name)
    counts = torch.randint(3, 30, (n,))
    if kind == "paired":
        rows = dict(policy_chosen=normal(n, grad=True), policy_rejected=normal(n, grad=True),
                    chosen_tokens=counts, rejected_tokens=counts.flip(0))
        if name != "bradley_terry":
            rows.update(reference_chosen=normal(n), reference_rejected=normal(n))
        if name.startswith("tpo"):
            rows.update(policy_third=normal(n, grad=True), third_tokens=counts)
        return rows
    if kind == "unpaired":
        rows = dict(policy=normal(n, grad=True), reference=normal(n), desirable=torch.rand(n) < 0.5, tokens=counts)
        if name == "a2po":
            rows["target"] = normal(n, mean=0.0)
        else:
            rows["z"] = 1.25
        return rows
    policy = normal(n, 5, mean=0.0).mul(0.2).sub(2).requires_grad_()
    near = (policy + 0.02 * torch.randn_like(policy)).detach()
    rows = dict(policy=policy, old_policy=near, reference=near.flip(1).contiguous(), advantage=torch.randn(n).double(),
                mask=torch.arange(5) < torch.randint(1, 6, (n, 1)))
    if name in ("sft", "dft", "kl_k1", "kl_k2", "kl_k3"):
        del rows["advantage"], rows["old_policy"]
    return rows


# A weight in their formulas is held constant, so that finite differences are not their gradient.
HELD_CONSTANT = ("dft", "vespo", "dppo")


@pytest.mark.parametrize("name", [name for name in prospect.losses() if name not in HELD_CONSTANT])
def test_gradcheck_of_every_loss(name):
    given = batch(name)
    carry = [key for key, row in given.items() if isinstance(row, torch.Tensor) and row.requires_grad]

    def total(*policies):
        return pt.loss(name, **{**given, **dict(zip(carry, policies))})

    if name == "kto_surprisal":
        given["z"] = -1.25  # of mean log-probabilities
    # A step of 1e-6 would show the rounding of losses of some hundreds, the squares of ipo.
    assert torch.autograd.gradcheck(total, [given[key] for key in carry], eps=1e-5, atol=1e-8, rtol=1e-5)


def held_weight(name, policy, old_policy, advantage, mask):
    """The weight of -log pi in their formulas, written out: arXiv:2508.05629, 2602.10693 and 2602.04879."""
    if name == "dft":
        return policy.exp()
    log_ratio, a = policy - old_policy, advantage.unsqueeze(1)
    if name == "vespo":
        log_w = (log_ratio * mask).sum(1, keepdim=True)
        k, l = torch.where(a < 0, 3.0, 2.0), torch.where(a < 0, 2.0, 3.0)
        return (l + k * log_w - l * log_w.exp()).exp() * a
    moved = policy.exp() - old_policy.exp()
    outside = torch.where(a > 0, moved > 0.2, moved < -0.2)
    return torch.where(outside, 0.0, log_ratio.exp().clamp(max=20) * a)


@pytest.mark.parametrize("name", HELD_CONSTANT)
def test_a_weight_that_is_held_constant(name):
    given = {key: row for key, row in batch(name, 40).items() if key != "reference"}
    policy, mask = given["policy"], given["mask"]
    if name != "dft":  # far enough for dppo's bounds to hold some of them
        given["old_policy"] = (policy.detach() + 0.3 * torch.randn_like(policy)).clamp(max=-0.05)
    pt.loss(name, **given).backward()
    got, policy.grad = policy.grad, None
    weight = held_weight(name, policy.detach(), given.get("old_policy"), given.get("advantage"), mask)
    (-(weight * policy)[mask].mean()).backward()
    assert got.norm() > 0
    torch.testing.assert_close(got, policy.grad)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dpo_beside_autograd(dtype):
    rows = [normal(33, dtype=dtype, grad=i < 2) for i in range(4)]
    ours = pt.evaluate("dpo", **dict(zip(PAIRED, rows)), beta=0.2)
    ours.total.backward()
    got = [row.grad.clone() for row in rows[:2]]
    wide = [row.detach().double().requires_grad_(i < 2) for i, row in enumerate(rows)]
    expected = -F.logsigmoid(0.2 * ((wide[0] - wide[2]) - (wide[1] - wide[3]))).mean()
    expected.backward()
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    assert ours.total.item() == pytest.approx(expected.item(), rel=min(tolerance, 1e-5))
    for mine, theirs in zip(got, wide):
        assert mine.dtype == dtype
        torch.testing.assert_close(mine.double(), theirs.grad, rtol=tolerance, atol=1e-7)
    assert ours.metrics()["rewards/margins"] == pytest.approx(
        (0.2 * ((wide[0] - wide[2]) - (wide[1] - wide[3]))).mean().item(), rel=1e-5)


def test_numpy_says_the_same():
    rows = [normal(11) for _ in range(4)]
    ours = pt.evaluate("simpo", **dict(zip(PAIRED, rows)), chosen_tokens=torch.full((11,), 4),
                       rejected_tokens=torch.full((11,), 5))
    theirs = prospect.evaluate("simpo", **{k: r.numpy() for k, r in zip(PAIRED, rows)},
                               chosen_tokens=[4] * 11, rejected_tokens=[5] * 11)
    assert ours.total.item() == theirs.total
    assert ours.metrics() == theirs.metrics


def test_z_in_a_tensor():
    given = batch("kto")
    number = pt.loss("kto", **given)
    given["z"] = torch.tensor(1.25, dtype=torch.float64)
    assert pt.loss("kto", **given).item() == pytest.approx(number.item(), rel=1e-14)
    given["z"] = torch.tensor(-3.0, dtype=torch.float64)
    assert pt.loss("kto", **given).item() == pytest.approx(pt.loss("kto", **{**given, "z": 0.0}).item(), rel=1e-14)


def plain_log_probs(logits, targets, temperature=1.0, soft_cap=0.0):
    x = soft_cap * torch.tanh(logits / soft_cap) if soft_cap else logits
    logp = F.log_softmax(x / temperature, -1)
    picked = logp.gather(-1, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(targets == -100, torch.zeros_like(picked), picked), logp


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("index", [torch.int64, torch.int32])
def test_log_probs_beside_autograd(dtype, index):
    logits = (4 * torch.randn(3, 5, 131, dtype=torch.float64)).to(dtype).requires_grad_()
    targets = torch.randint(0, 131, (3, 5))
    targets[0, 2] = targets[2, 4] = -100
    ours = pt.log_probs(logits, targets.to(index), temperature=0.7, soft_cap=15.0, statistics=("entropy",))
    g, h = torch.randn(2, 3, 5, dtype=torch.float64)
    ((ours.log_prob * g).sum() + (ours.entropy * h).sum()).backward()
    wide = logits.detach().double().requires_grad_()
    expected, logp = plain_log_probs(wide, targets, 0.7, 15.0)
    entropy = -(logp.exp() * logp).sum(-1) * (targets != -100)
    ((expected * g).sum() + (entropy * h).sum()).backward()
    error = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(ours.log_prob.double(), expected, rtol=error, atol=error)
    torch.testing.assert_close(ours.entropy.double(), entropy, rtol=error, atol=error)
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=rounding, atol=max(error, 1e-7))


def test_masked_rows_may_hold_anything():
    logits = torch.randn(4, 50)
    logits[1] = float("nan")
    logits[2, 7] = -float("inf")
    logits.requires_grad_()
    targets = torch.tensor([3, 9, 8, 4])
    ours = pt.log_probs(logits, targets, mask=torch.tensor([1, 0, 1, 1]))
    assert ours[1] == 0 and torch.isfinite(ours).all()
    ours.sum().backward()
    assert (logits.grad[1] == 0).all() and torch.isfinite(logits.grad).all()


def test_shifted_and_strided_logits():
    logits = torch.randn(2, 6, 40).transpose(0, 1).requires_grad_()  # rows apart, [6, 2, 40]
    labels = torch.randint(0, 40, (6, 2))
    shifted = pt.shift(labels)
    assert shifted.tolist() == [[row[1], -100] for row in labels.tolist()]
    expected, _ = plain_log_probs(logits.detach(), shifted)
    torch.testing.assert_close(pt.log_probs(logits, shifted), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_head_beside_autograd(dtype, trained):
    hidden = torch.randn(2, 9, 24, dtype=torch.float64).to(dtype).requires_grad_()
    weight = torch.randn(77, 24, dtype=torch.float64).div(4).to(dtype).requires_grad_(trained)
    bias = torch.randn(77, dtype=torch.float64).to(dtype).requires_grad_(trained)
    targets = torch.randint(0, 77, (2, 9))
    targets[0, :4] = -100
    ours = pt.head_log_probs(hidden, weight, targets, bias=bias, workspace_bytes=1 << 20)
    g = torch.randn(2, 9, dtype=torch.float64)
    (ours * g).sum().backward()
    wide = [x.detach().double().requires_grad_() for x in (hidden, weight, bias)]
    expected, _ = plain_log_probs(wide[0] @ wide[1].t() + wide[2], targets)
    (expected * g).sum().backward()
    error = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 2e-5}[dtype]
    torch.testing.assert_close(ours.double(), expected, rtol=error, atol=error)
    rounding = {torch.float64: 1e-11, torch.float32: 2e-5, torch.bfloat16: 1e-2}[dtype]
    for mine, theirs in zip((hidden, weight, bias) if trained else (hidden,), wide):
        torch.testing.assert_close(mine.grad.double(), theirs.grad, rtol=rounding, atol=rounding)


def test_an_adapter_of_the_head():
    hidden, weight = torch.randn(6, 8).double().requires_grad_(), torch.randn(30, 8).double()
    a, b = torch.randn(3, 8).double().requires_grad_(), torch.randn(30, 3).double().requires_grad_()
    targets = torch.randint(0, 30, (6,))

    def ours(h, a, b):
        return pt.head_log_probs(h, weight, targets, lora_a=a, lora_b=b, lora_scale=0.5)

    torch.testing.assert_close(ours(hidden, a, b), plain_log_probs(hidden @ (weight + 0.5 * b @ a).t(), targets)[0])
    assert torch.autograd.gradcheck(ours, (hidden, a, b))


@pytest.mark.parametrize("trained", [True, False])
def test_what_the_head_is_given_on_a_device(trained, monkeypatch):
    """Every call of _core: stream, memory and product, on the host, where none of them has a meaning."""
    place, sizes, seen = {"stream": 0, "allocate": lambda size: torch.empty(size, dtype=torch.uint8)}, [], []

    @contextlib.contextmanager
    def placed(tensor):
        yield dict(place)

    def watched(name, call):
        def called(*given, **keywords):
            seen.append((name, {key: keywords.get(key) for key in ("stream", "allocate", "gemm")}))
            return call(*given, **{**keywords, "gemm": None} if "gemm" in keywords else keywords)

        return called

    monkeypatch.setattr("prospect._ops.head.placed", placed)
    gemm = object()
    cublaslt = types.SimpleNamespace(gemm=lambda workspace, size, tf32: sizes.append((size, tf32)) or gemm)
    monkeypatch.setitem(sys.modules, "prospect._cublaslt", cublaslt)
    names = ("head_log_probs", "head_gradient", "scale_rows")
    core = types.SimpleNamespace(**{**vars(_core), **{name: watched(name, getattr(_core, name)) for name in names}})
    monkeypatch.setattr("prospect._ops.head._core", core)
    hidden, weight = torch.randn(4, 5, requires_grad=True), torch.randn(7, 5).requires_grad_(trained)
    pt.head_log_probs(hidden, weight, torch.tensor([1, 2, -100, 4])).sum().backward()
    multiplied = {**place, "gemm": gemm}
    backward = ("head_gradient", multiplied) if trained else ("scale_rows", {**place, "gemm": None})
    assert seen == [("head_log_probs", multiplied), backward]
    assert sizes == [(32 << 20, torch.backends.cuda.matmul.allow_tf32)] * (2 if trained else 1)


def test_gradcheck_of_tokens_and_head():
    targets = torch.tensor([3, -100, 5, 0])
    logits = torch.randn(4, 9).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: pt.log_probs(x, targets, soft_cap=5.0, statistics=("entropy",))[:2], (logits,))
    hidden, weight = torch.randn(4, 5).double().requires_grad_(), torch.randn(9, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda h, w: pt.head_log_probs(h, w, targets, statistics=("entropy",))[:2], (hidden, weight))


def step(hidden, weight, labels, reference, good):
    logp = pt.head_log_probs(hidden, weight, pt.shift(labels)).sum(-1)
    token = pt.log_probs(hidden @ weight.t(), pt.shift(labels))
    return (pt.loss("kto", policy=logp, reference=reference, desirable=good, z=0.5, beta=0.3)
            + pt.loss("dpo", policy_chosen=logp[:2], policy_rejected=logp[2:], reference_chosen=reference[:2],
                      reference_rejected=reference[2:])
            + pt.loss("grpo", policy=token, old_policy=token.detach(), reference=token.detach(),
                      advantage=reference, targets=pt.shift(labels)))


def step_arguments():
    return (torch.randn(4, 6, 16).double().requires_grad_(), torch.randn(50, 16).double().requires_grad_(),
            torch.randint(0, 50, (4, 6)), normal(4), torch.tensor([True, False, True, False]))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_without_a_graph_break(backend):
    given = step_arguments()
    step(*given).backward()
    eager = [x.grad.clone() for x in given[:2]]
    for x in given[:2]:
        x.grad = None
    torch._dynamo.reset()
    compiled = torch.compile(step, backend=backend, fullgraph=True)
    total = compiled(*given)
    total.backward()
    torch.testing.assert_close(total, step(*given))
    for x, expected in zip(given[:2], eager):
        torch.testing.assert_close(x.grad, expected)


@pytest.mark.parametrize("operator", ["pairs", "completions", "token_losses", "log_probs", "head_log_probs",
                                      "frozen head_log_probs"])
def test_opcheck(operator):
    policy = [normal(4, grad=i < 2) for i in range(4)]
    targets = torch.tensor([1, -100, 2, 3])
    given = {
        "pairs": (policy[0], policy[1], None, policy[2], policy[3], *[None] * 5, "dpo", [0.1, 0.0], "", 0.0, "",
                  "mean", 0.0, 0.0),
        "completions": (policy[0], policy[2], torch.tensor([True, False, True, False]), *[None] * 6, "kto",
                        list(prospect.parameters("kto").values()), "", 0.0, "", "given", 1.0, "mean", 0.0),
        "token_losses": (policy[0], torch.rand(4).double().requires_grad_(), policy[2], policy[3],
                         torch.ones(2).double(), *[None] * 5, 2, 2, "grpo",
                         list(prospect.parameters("grpo").values()), "", 0.0, "", 0.5, "mean", 0.0),
        "log_probs": (torch.randn(4, 9).double().requires_grad_(), targets, None, None, 1.0, 0.0, "entropy"),
        "head_log_probs": (torch.randn(4, 5).double().requires_grad_(), torch.randn(9, 5).double().requires_grad_(),
                           None, None, None, targets, None, 0.0, 1.0, 0.0, "", False, 1 << 20),
        "frozen head_log_probs": (torch.randn(4, 5).double().requires_grad_(), torch.randn(9, 5).double(), None, None,
                                  None, targets, None, 0.0, 1.0, 0.0, "", True, 1 << 20),
    }[operator]
    torch.library.opcheck(getattr(prospect._ops, operator.split()[-1]), given)


@pytest.mark.parametrize("what", ["a loss", "log_probs", "head_log_probs", "a trained head_log_probs",
                                  "a loss of thumbs", "a loss of tokens"])
def test_a_second_derivative_is_refused_by_name(what):
    x = normal(4, 4, mean=0.0, grad=True)
    targets = torch.tensor([0, 1, 2, 3])
    said = {"a trained head_log_probs": "head_log_probs"}.get(what, what.split(" of ")[0])
    y = {"a loss": lambda: pt.loss("dpo", policy_chosen=x[0], policy_rejected=x[1], reference_chosen=x[2].detach(),
                                 reference_rejected=x[3].detach()),
         "log_probs": lambda: pt.log_probs(x, targets).sum(),
         "head_log_probs": lambda: pt.head_log_probs(x, x.detach(), targets).sum(),
         "a trained head_log_probs": lambda: pt.head_log_probs(x, x, targets).sum(),
         "a loss of thumbs": lambda: pt.loss("kto", policy=x[0], reference=x[1].detach(), z=0.0,
                                             desirable=torch.ones(4, dtype=torch.bool)),
         "a loss of tokens": lambda: pt.loss("sft", policy=x)}[what]()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match=f"^prospect: {said} is differentiated once"):
        first.sum().backward()


@pytest.mark.parametrize("change, message", [
    (dict(policy_chosen=torch.zeros(3)), "policy_chosen|policy_rejected"),
    (dict(policy_chosen=torch.zeros(4, dtype=torch.int64)), "policy_chosen must be of float32"),
    (dict(policy_chosen=None), "policy_chosen is missing"),
    (dict(beta=0.0), "beta"),
    (dict(gamma=0.0), "gamma"),
    (dict(policy_chosen=[1.0]), "policy_chosen must be a tensor"),
    (dict(policy_chosen=torch.tensor(1.0)), "policy_chosen must have 1 dimension"),
    (dict(beta=np.array([0.1, 0.2])), "beta must be a number"),
    (dict(normaliser=None), "normaliser must be a number"),
    (dict(chosen_tokens=torch.tensor([2**32 + 3, 1, 1, 1])), "chosen_tokens has a count that is no int32"),
    (dict(beta=torch.tensor(0.1, requires_grad=True)), "beta requires a gradient"),
    (dict(weight=torch.ones(4, requires_grad=True)), "weight requires a gradient"),
    (dict(reference_chosen=torch.ones(4, requires_grad=True)), "reference_chosen requires a gradient"),
    (dict(mask=torch.ones(4)), "mask is a row of token losses"),
])
def test_refused_by_name(change, message):
    given = {name: torch.full((4,), -1.0) for name in PAIRED}
    with pytest.raises(ValueError, match=message):
        pt.loss("dpo", **{**given, **change})


def test_targets_are_checked():
    with pytest.raises(ValueError, match="targets"):
        pt.log_probs(torch.zeros(2, 5), torch.tensor([1, 7]))
    with pytest.raises(ValueError, match="targets"):
        pt.log_probs(torch.zeros(2, 5), torch.tensor([1]))
    with pytest.raises(ValueError, match="targets must be of int32 or int64"):
        pt.log_probs(torch.zeros(2, 5), torch.tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="statistics"):
        pt.log_probs(torch.zeros(2, 5), torch.tensor([1, 2]), statistics=("mean",))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_a_device():
    rows = [normal(33, dtype=torch.float32).cuda().requires_grad_(i < 2) for i in range(4)]
    if not prospect.has_cuda():
        with pytest.raises(ValueError, match="built without device code"):
            pt.loss("dpo", **dict(zip(PAIRED, rows)))
        return
    pt.loss("dpo", **dict(zip(PAIRED, rows))).backward()
    host = [row.detach().cpu().requires_grad_(i < 2) for i, row in enumerate(rows)]
    pt.loss("dpo", **dict(zip(PAIRED, host))).backward()
    torch.testing.assert_close(rows[0].grad.cpu(), host[0].grad, rtol=1e-5, atol=1e-7)
    logits, targets = torch.randn(7, 333).cuda().requires_grad_(), torch.randint(0, 333, (7,)).cuda()
    pt.log_probs(logits, targets).sum().backward()
    wide = logits.detach().double().requires_grad_()
    plain_log_probs(wide, targets)[0].sum().backward()
    torch.testing.assert_close(logits.grad.double(), wide.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("trained", [True, False])
def test_the_head_on_a_device(trained):
    hidden, targets = torch.randn(2, 9, 24), torch.randint(0, 77, (2, 9))
    weight, bias = torch.randn(77, 24), torch.randn(77)
    targets[0, :4] = -100
    on = [x.cuda().requires_grad_(i == 0 or trained) for i, x in enumerate((hidden, weight, bias))]
    try:
        ours = pt.head_log_probs(on[0], on[1], targets.cuda(), bias=on[2])
    except ValueError as refused:
        assert "built without device code" in str(refused) or "built without cuBLASLt" in str(refused)
        pytest.skip(str(refused))
    ours.sum().backward()
    wide = [x.double().requires_grad_() for x in (hidden, weight, bias)]
    expected, _ = plain_log_probs(wide[0] @ wide[1].t() + wide[2], targets)
    expected.sum().backward()
    torch.testing.assert_close(ours.cpu().double(), expected, rtol=2e-5, atol=2e-5)
    for mine, theirs in zip(on if trained else on[:1], wide):
        torch.testing.assert_close(mine.grad.cpu().double(), theirs.grad, rtol=2e-5, atol=2e-5)
    with pytest.raises(ValueError, match="PROSPECT_F64 are for the CPU"):
        pt.head_log_probs(on[0].double(), on[1].double(), targets.cuda(), bias=on[2].double())
