"""Losses of preferences for PyTorch, at three levels: sums of sequences and token log-probabilities (`loss`,
`evaluate`), logits (`log_probs`), hidden states and the last layer's weight (`head_log_probs`).

    logp = prospect.torch.log_probs(logits, prospect.torch.shift(labels)).sum(-1)
    prospect.torch.loss("kto", policy=logp, reference=ref, desirable=good, z=z, beta=0.1).backward()

All are torch.library operators with autograd and fake kernels: torch.compile goes through them. They are
differentiated once; a second derivative is an error that says so. Tensors on the host take the library's
threads, without the interpreter's lock; on a CUDA device, where the package was built with device code, the
tensor's current stream, without waiting for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, NamedTuple, Optional, Sequence, Union

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "prospect.torch needs PyTorch, which is not installed: pip install torch. prospect.evaluate takes NumPy alone",
        name="torch",
    ) from missing

from prospect import _core, _metrics, _ops
from prospect._evaluate import reference_point
from prospect._losses import Loss, chosen_loss, kind_of, normaliser_of

__all__ = ["Evaluation", "TokenResults", "evaluate", "head_log_probs", "log_probs", "loss", "shift"]

_ROWS = {"paired": tuple(name for name in _core.PAIRED_ROWS
                         if name not in ("policy", "reference", "tokens", "chosen", "rejected", "third")),
         "unpaired": _core.UNPAIRED_ROWS, "token": _core.TOKEN_ROWS}
_COUNTS = ("tokens", "chosen_tokens", "rejected_tokens", "third_tokens", "mismatched_tokens")


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
    own (index a row of sequences with PyTorch), and that token counts may be int64. Gradients go to policy rows,
    and to `entropy` where `entropy_coef` is not 0; every other row is a constant. `z` may be a tensor of one
    element, nats; it is then clamped at 0, and nothing waits for it.

    ValueError names an argument that is missing, unknown or of the wrong size, type, device or value.
    """
    what = kind_of(loss)
    rows: Dict[str, Optional[Tensor]] = {name: rows_and_parameters.pop(name, None) for name in _ROWS[what]}
    for other, names in _ROWS.items():
        for name in rows_and_parameters:
            if name in names:
                raise ValueError(f"prospect: {name} is a row of {other} losses, and this is one of {what} ones")
    chosen = chosen_loss(loss, rows_and_parameters)
    for name, row in rows.items():
        if row is not None and not isinstance(row, Tensor):
            raise ValueError(f"prospect: {name} must be a tensor, and is a {type(row).__name__}")
        if row is not None and name in _COUNTS and row.dtype == torch.int64:
            rows[name] = row.to(torch.int32)
    how, count = normaliser_of(normaliser)
    if what != "paired" and tokens_over:
        raise ValueError("prospect: tokens_over is for paired losses with a next-token term")
    if what != "unpaired" and z is not None:
        raise ValueError("prospect: z is for losses of thumbs, and this is none")
    if what != "token" and (offsets is not None or entropy_coef):
        raise ValueError("prospect: offsets and entropy_coef are for losses of tokens, and this is none")
    values = list(chosen.values)

    if what == "paired":
        _require(rows, "policy_chosen", "policy_rejected")
        total, each, _, _, _, reward_chosen, reward_rejected, counted = _ops.pairs(
            rows["policy_chosen"], rows["policy_rejected"], rows["policy_third"], rows["reference_chosen"],
            rows["reference_rejected"], rows["chosen_tokens"], rows["rejected_tokens"], rows["third_tokens"],
            rows["weight"], rows["margin"], chosen.name, values, chosen.score, chosen.score_alpha, how, count,
            float(tokens_over))
        rewards = {"chosen": reward_chosen, "rejected": reward_rejected}
        return Evaluation(total, each, rewards, chosen, counted)
    _require(rows, "policy")
    policy = rows["policy"]
    if what == "unpaired":
        _require(rows, "desirable")
        if isinstance(z, Tensor):
            z = _observed(chosen, z, rows)
        point, at = reference_point(chosen, z, rows["mismatched_policy"] is not None)
        total, each, _, reward, counted = _ops.completions(
            policy, rows["reference"], rows["desirable"], rows["tokens"], rows["weight"], rows["target"],
            rows["mismatched_policy"], rows["mismatched_reference"], rows["mismatched_tokens"], chosen.name, values,
            point, at, how, count)
        return Evaluation(total, each, {"reward": reward}, chosen, counted)
    if policy.dim() not in (1, 2) or (policy.dim() == 1) != (offsets is not None):
        raise ValueError("prospect: policy must be [batch, length], or [tokens] with offsets")
    sequences, length = policy.shape if policy.dim() == 2 else (0, 0)
    flat = {name: row if row is None or name == "advantage" else row.reshape(-1) for name, row in rows.items()}
    if flat["mask"] is not None and flat["mask"].dtype not in (torch.bool, torch.uint8, torch.int32, torch.float32):
        flat["mask"] = flat["mask"] != 0
    total, each, _, _, counted = _ops.token_losses(
        flat["policy"], flat["entropy"], flat["old_policy"], flat["reference"], flat["advantage"],
        flat["token_advantage"], flat["weight"], flat["targets"], flat["mask"], offsets, sequences, length,
        chosen.name, values, chosen.averaging, float(entropy_coef), how, count)
    return Evaluation(total, each.view(policy.shape), {}, chosen, counted)


def loss(loss: Union[str, Loss], **arguments: Union[Tensor, float, str, None]) -> Tensor:
    """The scalar alone of `evaluate`, which takes the same arguments: prospect.torch.loss("dpo", ...)."""
    return evaluate(loss, **arguments).total


def _require(rows: Dict[str, Optional[Tensor]], *names: str) -> None:
    for name in names:
        if rows[name] is None:
            raise ValueError(f"prospect: {name} is missing")


def _observed(chosen: Loss, z: Tensor, rows: Dict[str, Optional[Tensor]]) -> None:
    """A reference point in a tensor, as the one mismatched row that shows it."""
    if rows["mismatched_policy"] is not None:
        raise ValueError("prospect: z and mismatched_policy are two reference points: give one")
    if chosen.name == "bco":
        raise ValueError("prospect: bco's z is not clamped, as one in a tensor is: give a number")
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
    temperature: the logits are divided by it; inverse_temperatures, float32 [...], multiply each token's.
    soft_cap:    c of c tanh(x / c); 0 is none.
    statistics:  of "entropy", "sum_squares", "mean_logit", "target_is_argmax".

    A tensor of the shape of targets, or with statistics a TokenResults of such. In the backward pass one more
    tensor of the size of the logits is made, their gradient, and nothing else. Errors as in `evaluate`; a
    target outside the vocabulary is one on the host, and makes its row NaN on a device.
    """
    _check_targets(logits, "logits", targets)
    outs = _ops.log_probs(_matrix(logits), targets.reshape(-1), _mask(mask, targets),
                          None if inverse_temperatures is None else inverse_temperatures.reshape(-1),
                          float(temperature), float(soft_cap), _statistics(statistics))
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
    logits are never whole in memory. Tokens that are not scored take no part in any product.

    bias:            [vocabulary].
    lora_a, lora_b:  an adapter [rank, width], [vocabulary, rank]: the weight is weight + lora_scale b a.
    workspace_bytes: memory beside inputs, results and gradients; log-probabilities are the same bits in any.

    hidden, weight, bias and adapter are of one dtype, on the host. Gradients go to those of them that require
    one. Products with the head: 1 forward, and 1 more where it is frozen (hidden alone requires a gradient), else
    3 backward. Device tensors are refused: give their logits to `log_probs`, in chunks.
    """
    _check_targets(hidden, "hidden", targets)
    if hidden.is_cuda:
        raise ValueError("prospect: hidden lies on a device, where head_log_probs is not: give logits to log_probs")
    trained = any(x is not None and x.requires_grad for x in (weight, bias, lora_a, lora_b))
    frozen = torch.is_grad_enabled() and hidden.requires_grad and not trained and "entropy" not in statistics
    outs = _ops.head_log_probs(_matrix(hidden), _matrix(weight), bias, lora_a, lora_b, targets.reshape(-1),
                               _mask(mask, targets), float(lora_scale), float(temperature), float(soft_cap),
                               _statistics(statistics), frozen, int(workspace_bytes))
    return _named(outs, targets.shape, statistics)


def _matrix(tensor: Tensor) -> Tensor:
    """[..., columns] as [rows, columns]; copied only where rows are not evenly apart or not contiguous."""
    flat = tensor.reshape(-1, tensor.shape[-1])
    return flat if flat.stride(-1) == 1 or flat.shape[-1] == 1 else flat.contiguous()


def _mask(mask: Optional[Tensor], targets: Tensor) -> Optional[Tensor]:
    if mask is None:
        return None
    if mask.shape != targets.shape:
        raise ValueError(f"prospect: mask is {list(mask.shape)}, and targets are {list(targets.shape)}")
    return (mask != 0).reshape(-1)


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
