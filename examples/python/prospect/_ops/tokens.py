"""Logits to log-probabilities, and back."""

from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from prospect import _core
from prospect._ops.common import bare, differentiated_once, given, placed, wide

STATISTICS = ("entropy", "sum_squares", "mean_logit", "target_is_argmax")


def token_results(rows: Tensor, statistics: Sequence[str]) -> List[Tensor]:
    """log_prob, lse and the statistics, of no elements where not asked for."""
    size, dtype = rows.shape[0], wide(rows)
    outs = [rows.new_empty(size, dtype=dtype), rows.new_empty(size, dtype=torch.float64)]
    for name in STATISTICS:
        of = torch.bool if name == "target_is_argmax" else dtype
        outs.append(rows.new_empty(size if name in statistics else 0, dtype=of))
    return outs


def named_results(outs: Sequence[Tensor], statistics: Sequence[str]) -> Dict[str, Tensor]:
    wanted = ("log_prob", "lse", *statistics)
    return {name: out for name, out in zip(("log_prob", "lse", *STATISTICS), outs) if name in wanted}


def coefficients_of(log_prob: Tensor, lse: Tensor, d_token: Tensor, d_entropy: Optional[Tensor],
                  entropy: Optional[Tensor]) -> Dict[str, Tensor]:
    """What the library's backward pass reads: one coefficient a row, or with an entropy's gradient three."""
    known = {"log_prob": log_prob, "lse": lse}
    if d_entropy is None:
        return {**known, "d_token": d_token.to(log_prob.dtype).contiguous()}
    minus = d_token.to(log_prob.dtype).neg()
    return {**known, "softmax": minus, "onehot": minus, "entropy": entropy,
            "d_entropy": d_entropy.to(log_prob.dtype).contiguous()}


@torch.library.custom_op("prospect::log_probs", mutates_args=())
def log_probs(
    logits: Tensor, targets: Tensor, mask: Optional[Tensor], inverse_temperatures: Optional[Tensor],
    temperature: float, soft_cap: float, statistics: str,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(log_prob, lse, entropy, sum_squares, mean_logit, target_is_argmax) of logits [tokens, vocabulary]."""
    wanted = statistics.split()
    outs = token_results(logits, wanted)
    with placed(logits) as place:
        _core.log_probs(logits.detach(), targets, named_results(outs, wanted), mask, bare(inverse_temperatures),
                        temperature, soft_cap, **place)
    return tuple(outs)


@log_probs.register_fake
def _(logits, targets, mask, inverse_temperatures, temperature, soft_cap, statistics):
    return tuple(token_results(logits, statistics.split()))


@torch.library.custom_op("prospect::logits_gradient", mutates_args=())
def logits_gradient(
    logits: Tensor, targets: Tensor, mask: Optional[Tensor], inverse_temperatures: Optional[Tensor],
    log_prob: Tensor, lse: Tensor, d_token: Tensor, d_entropy: Optional[Tensor], entropy: Optional[Tensor],
    temperature: float, soft_cap: float,
) -> Tensor:
    """The gradient of the logits from that of their log-probabilities and, if given, entropies."""
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    coefficients = coefficients_of(log_prob, lse, d_token, d_entropy, entropy)
    with placed(logits) as place:
        _core.logits_gradient(logits.detach(), gradient, targets, given(**coefficients), mask,
                              bare(inverse_temperatures), temperature, soft_cap, **place)
    return gradient


@logits_gradient.register_fake
def _(logits, targets, mask, inverse_temperatures, log_prob, lse, d_token, d_entropy, entropy, temperature,
      soft_cap):
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


differentiated_once(logits_gradient, "log_probs")


def differentiable_results(ctx, output) -> None:
    """log_prob, and entropy where it was asked for. What is not given to a backward pass stays None."""
    ctx.set_materialize_grads(False)
    entropy = output[2]
    ctx.mark_non_differentiable(output[1], *output[3:], *([entropy] if entropy.numel() == 0 else []))


def given_gradients(d_token, d_entropy, log_prob):
    """The two, an entropy's only where there is one; (None, None) where there is nothing to do."""
    if d_entropy is not None and d_entropy.numel() == 0:
        d_entropy = None
    if d_token is None and d_entropy is not None:
        d_token = torch.zeros_like(log_prob)
    return d_token, d_entropy


def _log_probs_context(ctx, inputs, output):
    logits, targets, mask, inverse_temperatures, ctx.temperature, ctx.soft_cap, _ = inputs
    differentiable_results(ctx, output)
    ctx.save_for_backward(logits, targets, mask, inverse_temperatures, *output[:3])


def _log_probs_backward(ctx, d_token, _lse, d_entropy, *_):
    logits, targets, mask, inverse_temperatures, log_prob, lse, entropy = ctx.saved_tensors
    d_token, d_entropy = given_gradients(d_token, d_entropy, log_prob)
    if d_token is None:
        return (None,) * 7
    gradient = logits_gradient(logits, targets, mask, inverse_temperatures, log_prob, lse, d_token, d_entropy,
                               entropy if d_entropy is not None else None, ctx.temperature, ctx.soft_cap)
    return (gradient, *[None] * 6)


log_probs.register_autograd(_log_probs_backward, setup_context=_log_probs_context)
