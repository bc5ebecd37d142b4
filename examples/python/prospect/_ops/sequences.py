"""Losses of sums and of tokens: the scalar, what each example has, and coefficients for the backward pass."""

from typing import Optional, Sequence, Tuple

import torch
from torch import Tensor

from prospect import _core
from prospect._losses import native
from prospect._ops.common import bare, differentiated_once, given, placed, wide


@torch.library.custom_op("prospect::scaled", mutates_args=())
def scaled(gradient: Tensor, coefficients: Tensor, tether: Tensor) -> Tensor:
    """dL/dP of a row: the loss's coefficients times its own gradient. The tether is an output of the loss, of no
    elements: by it a second derivative finds this operator, and is refused, instead of nothing, and is 0. The
    policy itself is not kept: who changes it after the loss changes nothing that is read."""
    return gradient * coefficients


@scaled.register_fake
def _(gradient, coefficients, tether):
    return torch.empty_like(coefficients)


differentiated_once(scaled, "a loss")


def _metrics_like(row: Tensor) -> Tensor:
    """Room for metrics: bits of numbers, of which one is an integer."""
    return torch.zeros(_core.METRICS_SIZE, dtype=torch.int64, device=row.device)


def _total(metrics: Tensor, dtype: torch.dtype) -> Tensor:
    return metrics.view(torch.float64)[_core.TOTAL_AT].to(dtype, copy=True)


def _scaled(ctx, at: int, gradient: Tensor, coefficients: Tensor, tether: Tensor) -> Optional[Tensor]:
    """The gradient of input `at`, a row, if it is wanted."""
    return scaled(gradient, coefficients, tether).to(ctx.dtypes[at]) if ctx.needs_input_grad[at] else None


@torch.library.custom_op("prospect::pairs", mutates_args=())
def pairs(
    policy_chosen: Tensor, policy_rejected: Tensor, policy_third: Optional[Tensor],
    reference_chosen: Optional[Tensor], reference_rejected: Optional[Tensor],
    chosen_tokens: Optional[Tensor], rejected_tokens: Optional[Tensor], third_tokens: Optional[Tensor],
    weight: Optional[Tensor], margin: Optional[Tensor],
    loss: str, values: Sequence[float], score: str, alpha: float, averaging: str,
    normaliser: str, count: float, token_count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy_chosen, _rejected, _third, reward_chosen, _rejected, metrics, tether) of pairs."""
    rows = given(policy_chosen=policy_chosen, policy_rejected=policy_rejected, policy_third=policy_third,
                  reference_chosen=reference_chosen, reference_rejected=reference_rejected,
                  chosen_tokens=chosen_tokens, rejected_tokens=rejected_tokens, third_tokens=third_tokens,
                  weight=weight, margin=margin)
    dtype = wide(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected)
    outs = [torch.empty(policy_chosen.shape, dtype=dtype, device=policy_chosen.device) for _ in range(6)]
    if policy_third is None:
        outs[3] = outs[3].new_empty(0)
    names = ("loss", "d_policy_chosen", "d_policy_rejected", "d_policy_third", "reward_chosen", "reward_rejected")
    results = {name: out for name, out in zip(names, outs) if out.numel() == policy_chosen.numel()}
    metrics = _metrics_like(policy_chosen)
    handle = native(loss, tuple(values), score, alpha, averaging)
    with placed(policy_chosen) as place:
        _core.pairs(handle, rows, results, metrics.view(torch.float64), normaliser, count, token_count, **place)
    return (_total(metrics, dtype), *outs, metrics, outs[0].new_empty(0))


@pairs.register_fake
def _(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected, chosen_tokens,
      rejected_tokens, third_tokens, weight, margin, loss, values, score, alpha, averaging, normaliser, count,
      token_count):
    dtype = wide(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected)
    row = [policy_chosen.new_empty(policy_chosen.shape, dtype=dtype) for _ in range(6)]
    if policy_third is None:
        row[3] = row[3].new_empty(0)
    return (policy_chosen.new_empty((), dtype=dtype), *row,
            policy_chosen.new_empty(_core.METRICS_SIZE, dtype=torch.int64), policy_chosen.new_empty(0, dtype=dtype))


def _pairs_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:-1])
    ctx.save_for_backward(*output[2:5], output[-1])
    ctx.dtypes = [row.dtype if row is not None else None for row in inputs[:3]]


def _pairs_backward(ctx, gradient, *_):
    *coefficients, tether = ctx.saved_tensors
    return (*[_scaled(ctx, at, gradient, row, tether) for at, row in enumerate(coefficients)], *[None] * 15)


pairs.register_autograd(_pairs_backward, setup_context=_pairs_context)


@torch.library.custom_op("prospect::completions", mutates_args=())
def completions(
    policy: Tensor, reference: Optional[Tensor], desirable: Tensor, tokens: Optional[Tensor],
    weight: Optional[Tensor], target: Optional[Tensor],
    mismatched_policy: Optional[Tensor], mismatched_reference: Optional[Tensor],
    mismatched_tokens: Optional[Tensor],
    loss: str, values: Sequence[float], score: str, alpha: float, averaging: str,
    reference_point: str, z: float, normaliser: str, count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy, reward, metrics, tether) of a loss of thumbs."""
    rows = given(policy=policy, reference=reference, desirable=desirable, tokens=tokens, weight=weight,
                  target=target, mismatched_policy=mismatched_policy, mismatched_reference=mismatched_reference,
                  mismatched_tokens=mismatched_tokens)
    dtype = wide(policy, reference)
    outs = [torch.empty(policy.shape, dtype=dtype, device=policy.device) for _ in range(3)]
    metrics = _metrics_like(policy)
    handle = native(loss, tuple(values), score, alpha, averaging)
    with placed(policy) as place:
        _core.completions(handle, rows, dict(zip(("loss", "d_policy", "reward"), outs)),
                          metrics.view(torch.float64), reference_point, z, normaliser, count, **place)
    return (_total(metrics, dtype), *outs, metrics, outs[0].new_empty(0))


@completions.register_fake
def _(policy, reference, desirable, tokens, weight, target, mismatched_policy, mismatched_reference,
      mismatched_tokens, loss, values, score, alpha, averaging, reference_point, z, normaliser, count):
    dtype = wide(policy, reference)
    return (policy.new_empty((), dtype=dtype), *[policy.new_empty(policy.shape, dtype=dtype) for _ in range(3)],
            policy.new_empty(_core.METRICS_SIZE, dtype=torch.int64), policy.new_empty(0, dtype=dtype))


def _completions_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:-1])
    ctx.save_for_backward(output[2], output[-1])
    ctx.dtypes = [inputs[0].dtype]


def _completions_backward(ctx, gradient, *_):
    return (_scaled(ctx, 0, gradient, *ctx.saved_tensors), *[None] * 17)


completions.register_autograd(_completions_backward, setup_context=_completions_context)


@torch.library.custom_op("prospect::token_losses", mutates_args=())
def token_losses(
    policy: Tensor, entropy: Optional[Tensor], old_policy: Optional[Tensor], reference: Optional[Tensor],
    advantage: Optional[Tensor], token_advantage: Optional[Tensor], weight: Optional[Tensor],
    targets: Optional[Tensor], mask: Optional[Tensor], offsets: Optional[Tensor],
    sequences: int, length: int,
    loss: str, values: Sequence[float], score: str, alpha: float, averaging: str,
    entropy_coef: float, normaliser: str, count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy, d_entropy, metrics, tether) of a loss of tokens."""
    rows = given(policy=policy, entropy=entropy, old_policy=old_policy, reference=reference, advantage=advantage,
                  token_advantage=token_advantage, weight=weight, targets=targets, mask=mask)
    dtype = wide(policy, old_policy, reference)
    outs = [torch.empty(policy.shape, dtype=dtype, device=policy.device) for _ in range(3)]
    results = dict(zip(("loss", "d_policy", "d_entropy"), outs))
    if entropy is None or entropy_coef == 0:
        outs[2] = outs[2].new_empty(0)
        del results["d_entropy"]
    metrics = _metrics_like(policy)
    handle = native(loss, tuple(values), score, alpha, averaging)
    with placed(policy) as place:
        _core.token_losses(handle, rows, results, metrics.view(torch.float64), sequences, length, bare(offsets),
                           entropy_coef, normaliser, count, **place)
    return (_total(metrics, dtype), *outs, metrics, outs[0].new_empty(0))


@token_losses.register_fake
def _(policy, entropy, old_policy, reference, advantage, token_advantage, weight, targets, mask, offsets,
      sequences, length, loss, values, score, alpha, averaging, entropy_coef, normaliser, count):
    dtype = wide(policy, old_policy, reference)
    row = [policy.new_empty(policy.shape, dtype=dtype) for _ in range(3)]
    if entropy is None or entropy_coef == 0:
        row[2] = row[2].new_empty(0)
    return (policy.new_empty((), dtype=dtype), *row, policy.new_empty(_core.METRICS_SIZE, dtype=torch.int64),
            policy.new_empty(0, dtype=dtype))


def _tokens_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:-1])
    ctx.save_for_backward(*output[2:4], output[-1])
    ctx.dtypes = [row.dtype if row is not None else None for row in inputs[:2]]


def _tokens_backward(ctx, gradient, *_):
    d_policy, d_entropy, tether = ctx.saved_tensors
    return (_scaled(ctx, 0, gradient, d_policy, tether), _scaled(ctx, 1, gradient, d_entropy, tether), *[None] * 18)


token_losses.register_autograd(_tokens_backward, setup_context=_tokens_context)
