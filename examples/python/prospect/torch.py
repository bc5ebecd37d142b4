"""Losses of preferences for PyTorch, at three levels: sums of sequences and token log-probabilities (`loss`,
`evaluate`), logits (`log_probs`), hidden states and the last layer's weight (`head_log_probs`).

    logp = prospect.torch.log_probs(logits, prospect.torch.shift(labels))
    prospect.torch.loss("kto", policy=logp.sum(-1, dtype=torch.float64), reference=ref, desirable=good, z=z,
                        beta=0.1).backward()

All are torch.library operators with autograd and fake kernels: torch.compile goes through them. They are
differentiated once; a second derivative is an error that says so. Tensors on the host take the library's
threads, without the interpreter's lock; on a CUDA device, where the package was built with device code, the
tensor's current stream, without waiting for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, NamedTuple, Optional, Sequence, Union

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "prospect.torch needs PyTorch, which is not installed: pip install torch. prospect.evaluate takes NumPy alone",
        name="torch",
    ) from missing

from prospect import _core, _metrics, _ops
from prospect._evaluate import check_tokens, must_observe, reference_point
from prospect._losses import Loss, chosen_loss, kind_of, normaliser_of, number, require_of_kind

__all__ = ["Evaluation", "TokenResults", "evaluate", "head_log_probs", "log_probs", "loss", "shift"]

_ROWS = {"paired": tuple(name for name in _core.PAIRED_ROWS
                         if name not in ("policy", "reference", "tokens", "chosen", "rejected", "third")),
         "unpaired": _core.UNPAIRED_ROWS, "token": _core.TOKEN_ROWS}
_DIFFERENTIATED = {"paired": ("policy_chosen", "policy_rejected", "policy_third"), "unpaired": ("policy",),
                   "token": ("policy",)}


@dataclass(frozen=True)
class Evaluation:
    """What a loss makes of a batch.

    total:    the scalar loss, differentiable.
    loss:     of each example, times its weight, never reduced; detached.
    rewards:  beta x log-ratio, under "chosen" and "rejected", or "reward"; detached.
    """

    total: Tensor
    loss: Tensor
    rewards: Dict[str, Tensor]
    of: Loss
    counted: Tensor

    def metrics(self) -> Dict[str, float]:
        """Means by the names Hugging Face trainers log; what was not counted is absent. Waits for a device."""
        return self.read().means

    def read(self) -> _metrics.Metrics:
        """The metrics as (sum, count), to be added up over ranks and micro-batches."""
        return _metrics.read(self.of, self.counted.cpu().view(torch.float64))


def evaluate(
    loss: Union[str, Loss],
    *,
    normaliser: Union[str, float] = "mean",
    tokens_over: float = 0.0,
    z: Union[None, float, str, Tensor] = None,
    offsets: Optional[Tensor] = None,
    entropy_coef: float = 0.0,
    **rows_and_parameters: Union[Tensor, float, None],
) -> Evaluation:
    """A loss by name, with losses of examples, rewards and metrics beside the scalar.

    Names, rows, `normaliser` and parameters are those of `prospect.evaluate`, but that pairs are rows of their
    own (index a row of sequences with PyTorch). Gradients go to policy rows, and to `entropy` where `entropy_coef`
    is not 0; whatever else requires one is refused: detach() it. `z` may be a tensor of one element, nats; it is
    then clamped at 0, and nothing waits for it.

    ValueError names an argument that is missing, unknown or of the wrong size, type, device or value.
    """
    what = kind_of(loss)
    rows: Dict[str, Optional[Tensor]] = {name: rows_and_parameters.pop(name, None) for name in _ROWS[what]}
    for other, names in _ROWS.items():
        for name in rows_and_parameters:
            if name in names:
                raise ValueError(f"prospect: {name} is a row of {other} losses, and this is one of {what} ones")
    chosen = chosen_loss(loss, rows_and_parameters)
    _tensors(**rows, offsets=offsets)
    entropy_coef, tokens_over = number("entropy_coef", entropy_coef), number("tokens_over", tokens_over)
    carry = _DIFFERENTIATED[what] + (("entropy",) if entropy_coef else ())
    _constants(**{name: row for name, row in rows.items() if name not in carry}, z=z)
    how, count = normaliser_of(normaliser)
    require_of_kind(what, tokens_over, z, offsets, entropy_coef)
    # With the loss goes whatever was chosen of it: what it has no use for is refused by the library.
    of = (chosen.name, list(chosen.values), chosen.score, chosen.score_alpha, chosen.averaging)

    if what == "paired":
        _require(rows, "policy_chosen", "policy_rejected")
        total, each, _, _, _, reward_chosen, reward_rejected, counted, _ = _ops.pairs(
            rows["policy_chosen"], rows["policy_rejected"], rows["policy_third"], rows["reference_chosen"],
            rows["reference_rejected"], rows["chosen_tokens"], rows["rejected_tokens"], rows["third_tokens"],
            rows["weight"], rows["margin"], *of, how, count, tokens_over)
        rewards = {"chosen": reward_chosen, "rejected": reward_rejected}
        return Evaluation(total, each, rewards, chosen, counted)
    _require(rows, "policy")
    policy = rows["policy"]
    if what == "unpaired":
        _require(rows, "desirable")
        if isinstance(z, Tensor):
            z = _observed(chosen, z, rows)
        point, at = reference_point(chosen, z, [name for name, row in rows.items() if row is not None])
        total, each, _, reward, counted, _ = _ops.completions(
            policy, rows["reference"], rows["desirable"], rows["tokens"], rows["weight"], rows["target"],
            rows["mismatched_policy"], rows["mismatched_reference"], rows["mismatched_tokens"], *of, point, at, how,
            count)
        return Evaluation(total, each, {"reward": reward}, chosen, counted)
    check_tokens(rows, offsets is not None)
    sequences, length = policy.shape if policy.dim() == 2 else (0, 0)
    flat = {name: row if row is None or name == "advantage" else row.reshape(-1) for name, row in rows.items()}
    if flat["mask"] is not None and flat["mask"].dtype not in (torch.bool, torch.uint8, torch.int32, torch.float32):
        flat["mask"] = flat["mask"] != 0
    total, each, _, _, counted, _ = _ops.token_losses(
        flat["policy"], flat["entropy"], flat["old_policy"], flat["reference"], flat["advantage"],
        flat["token_advantage"], flat["weight"], flat["targets"], flat["mask"], offsets, sequences, length,
        *of, entropy_coef, how, count)
    return Evaluation(total, each.view(policy.shape), {}, chosen, counted)


def loss(loss: Union[str, Loss], **arguments: Union[Tensor, float, str, None]) -> Tensor:
    """The scalar alone of `evaluate`, which takes the same arguments: prospect.torch.loss("dpo", ...)."""
    return evaluate(loss, **arguments).total


def _tensors(**given: Any) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, Tensor):
            raise ValueError(f"prospect: {name} must be a tensor, and is a {type(value).__name__}")


def _constants(**given: Any) -> None:
    """What no gradient passes through must not look as if one did."""
    if torch.is_grad_enabled():
        for name, value in given.items():
            if isinstance(value, Tensor) and value.requires_grad:
                raise ValueError(f"prospect: {name} requires a gradient, and none passes through it: detach() it")


def _require(rows: Dict[str, Optional[Tensor]], *names: str) -> None:
    for name in names:
        if rows[name] is None:
            raise ValueError(f"prospect: {name} is missing")


def _observed(chosen: Loss, z: Tensor, rows: Dict[str, Optional[Tensor]]) -> None:
    """A reference point in a tensor, as the one mismatched row that shows it."""
    for name in ("mismatched_policy", "mismatched_reference", "mismatched_tokens"):
        if rows[name] is not None:
            raise ValueError(f"prospect: z and {name} are two reference points: give one")
    must_observe(chosen, "z in a tensor")
    if z.numel() != 1:
        raise ValueError("prospect: z must have one element")
    rows["mismatched_policy"] = z.detach().reshape(1)
    rows["mismatched_reference"] = torch.zeros_like(rows["mismatched_policy"])


class TokenResults(NamedTuple):
    """What one pass says of each token; None is what was not asked for.

    log_prob:          of the target, nats; 0 where it is not scored. Differentiable.
    entropy:           of the distribution, nats. Differentiable.
    sum_squares:       of the probabilities.
    mean_logit:        over the vocabulary.
    target_is_argmax:  bool.

    float64 for float64 inputs, else float32.
    """

    log_prob: Tensor
    entropy: Optional[Tensor] = None
    sum_squares: Optional[Tensor] = None
    mean_logit: Optional[Tensor] = None
    target_is_argmax: Optional[Tensor] = None


def shift(labels: Tensor) -> Tensor:
    """Targets for logits of the same shape: labels[..., t + 1], and -100 (not scored) at the end. Cheaper than
    logits[:, :-1], whose rows would have to be copied."""
    return torch.nn.functional.pad(labels[..., 1:], (0, 1), value=-100)


def log_probs(
    logits: Tensor,
    targets: Tensor,
    *,
    mask: Optional[Tensor] = None,
    temperature: float = 1.0,
    inverse_temperatures: Optional[Tensor] = None,
    soft_cap: float = 0.0,
    statistics: Sequence[str] = (),
) -> Union[Tensor, TokenResults]:
    """Log-probabilities of targets [...] under logits [..., vocabulary], in one pass over the logits.

    targets:     int32 or int64; -100 is not scored, and whatever lies there, NaN too, changes nothing.
    mask:        0 is not scored either.
    temperature: the logits are divided by it, > 0; inverse_temperatures, of the shape of targets, multiply each
                 token's.
    soft_cap:    c of c tanh(x / c); 0 is none.
    statistics:  of "entropy", "sum_squares", "mean_logit", "target_is_argmax".

    A tensor of the shape of targets, or with statistics a TokenResults of such. In the backward pass one more
    tensor of the size of the logits is made, their gradient, and nothing else. Errors as in `evaluate`; a
    target outside the vocabulary is one on the host, and makes its row NaN on a device.
    """
    _tensors(logits=logits, targets=targets, mask=mask, inverse_temperatures=inverse_temperatures)
    _constants(mask=mask, inverse_temperatures=inverse_temperatures)
    _check_targets(logits, "logits", targets)
    _like_targets("inverse_temperatures", inverse_temperatures, targets)
    outs = _ops.log_probs(_matrix(logits), targets.reshape(-1), _mask(mask, targets),
                          None if inverse_temperatures is None else inverse_temperatures.reshape(-1),
                          _temperature(temperature), number("soft_cap", soft_cap), _statistics(statistics))
    return _named(outs, targets.shape, statistics)


def head_log_probs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Optional[Tensor] = None,
    lora_a: Optional[Tensor] = None,
    lora_b: Optional[Tensor] = None,
    lora_scale: float = 0.0,
    mask: Optional[Tensor] = None,
    temperature: float = 1.0,
    soft_cap: float = 0.0,
    statistics: Sequence[str] = (),
    workspace_bytes: int = 64 << 20,
) -> Union[Tensor, TokenResults]:
    """As `log_probs`, from hidden states [..., width] and the weight [vocabulary, width] of the last layer, whose
    logits are never whole in memory. Tokens that are not scored take no part in any product; on a device, where only
    it knows how many those are, they are worked on all the same, and leave them out yourself if they are many.

    bias:            [vocabulary].
    lora_a, lora_b:  an adapter [rank, width], [vocabulary, rank]: the weight is weight + lora_scale b a.
    workspace_bytes: memory beside inputs, results and gradients; log-probabilities are the same bits in any, and
                     too little is refused with what is enough. On a device cuBLASLt has 32 MiB more.

    hidden, weight, bias and adapter are of one dtype, and float64 is the host's alone; under autocast they are cast to
    its own, as a Linear's are. Gradients go to those of them that require one. Products with the head: 1 forward, and
    1 more where it is frozen (hidden alone requires a gradient), else 3 backward (2 where the weight requires none). A frozen head's gradient is made in
    the forward pass and scaled in the backward one, in the dtype of hidden: bfloat16 and float16 are rounded twice.
    """
    _tensors(hidden=hidden, weight=weight, targets=targets, bias=bias, lora_a=lora_a, lora_b=lora_b, mask=mask)
    _constants(mask=mask)
    _check_targets(hidden, "hidden", targets)
    for name, matrix in (("weight", weight), ("lora_a", lora_a), ("lora_b", lora_b)):
        if matrix is not None and matrix.dim() != 2:
            raise ValueError(f"prospect: {name} must have 2 dimensions, and has {matrix.dim()}")
    trained = any(x is not None and x.requires_grad for x in (weight, bias, lora_a, lora_b))
    frozen = torch.is_grad_enabled() and hidden.requires_grad and not trained and "entropy" not in statistics
    hidden, weight, bias, lora_a, lora_b = (_autocast(x) for x in (hidden, weight, bias, lora_a, lora_b))
    outs = _ops.head_log_probs(_matrix(hidden), _matrix(weight), bias, None if lora_a is None else _matrix(lora_a),
                               None if lora_b is None else _matrix(lora_b), targets.reshape(-1), _mask(mask, targets),
                               number("lora_scale", lora_scale), _temperature(temperature),
                               number("soft_cap", soft_cap), _statistics(statistics), frozen, int(workspace_bytes))
    return _named(outs, targets.shape, statistics)


def _matrix(tensor: Tensor) -> Tensor:
    """[..., columns] as [rows, columns]; copied only where rows are not evenly apart, overlap (those of an expanded
    tensor do), or are not contiguous."""
    flat = tensor.flatten(0, -2)
    if flat.shape[1] > 1 and flat.stride(1) != 1 or flat.shape[0] > 1 and flat.stride(0) < flat.shape[1]:
        return flat.contiguous()
    return flat


def _autocast(tensor: Optional[Tensor]) -> Optional[Tensor]:
    """In autocast's dtype where that is on, but float64, which it leaves alone."""
    if tensor is None or tensor.dtype == torch.float64 or not torch.is_autocast_enabled(tensor.device.type):
        return tensor
    return tensor.to(torch.get_autocast_dtype(tensor.device.type))


def _temperature(temperature: float) -> float:
    temperature = number("temperature", temperature)
    if not temperature > 0:  # the library's 0 is "not given"
        raise ValueError(f"prospect: temperature must be above 0, and is {temperature}")
    return temperature


def _like_targets(name: str, row: Optional[Tensor], targets: Tensor) -> None:
    if row is not None and row.shape != targets.shape:
        raise ValueError(f"prospect: {name} is {list(row.shape)}, and targets are {list(targets.shape)}")


def _mask(mask: Optional[Tensor], targets: Tensor) -> Optional[Tensor]:
    _like_targets("mask", mask, targets)
    return None if mask is None else (mask != 0).reshape(-1)


def _check_targets(of: Tensor, name: str, targets: Tensor) -> None:
    if of.dim() < 2 or of.shape[:-1] != targets.shape:
        raise ValueError(f"prospect: targets are {list(targets.shape)}, and {name} is {list(of.shape)}: "
                         "all but its last dimension must agree")


def _statistics(statistics: Sequence[str]) -> str:
    for name in statistics:
        if name not in _ops.STATISTICS:
            raise ValueError(f"prospect: statistics has {name!r}; there are {', '.join(_ops.STATISTICS)}")
    return " ".join(statistics)


def _named(outs: Sequence[Tensor], shape: torch.Size, statistics: Sequence[str]) -> Union[Tensor, TokenResults]:
    if not statistics:
        return outs[0].view(shape)
    named = {name: out.view(shape) for name, out in zip(_ops.STATISTICS, outs[2:]) if name in statistics}
    return TokenResults(outs[0].view(shape), **named)
