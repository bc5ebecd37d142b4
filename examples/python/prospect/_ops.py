"""The torch.library operators: prospect::pairs, ::completions, ::token_losses, ::log_probs, ::head_log_probs
and what their backward passes call. Each has a fake kernel, so that torch.compile traces through it, and is
differentiated once: a second derivative is refused by name.

`prospect.torch` is what users call; here tensors are rows and matrices already.
"""

import contextlib
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from prospect import _core
from prospect._losses import native


def _wide(*rows: Optional[Tensor]) -> torch.dtype:
    """What is computed in: float64 if one of the rows is, else float32."""
    return torch.float64 if any(r is not None and r.dtype == torch.float64 for r in rows) else torch.float32


def _given(**rows: Optional[Tensor]) -> Dict[str, Tensor]:
    return {name: row.detach() for name, row in rows.items() if row is not None}


def _bare(row: Optional[Tensor]) -> Optional[Tensor]:
    return None if row is None else row.detach()


@contextlib.contextmanager
def _placed(tensor: Tensor):
    """Keywords of a call beside this tensor: on a device, its current stream and memory of its allocator."""
    if not tensor.is_cuda:
        yield {}
        return
    with torch.cuda.device(tensor.device):
        yield {
            "stream": torch.cuda.current_stream().cuda_stream,
            "allocate": lambda size: torch.empty(size, dtype=torch.uint8, device=tensor.device),
        }


def _differentiated_once(op, what: str) -> None:
    """Makes a backward pass through this operator of a backward pass an error that says so."""

    def backward(ctx, *gradients):
        raise RuntimeError(f"prospect: {what} is differentiated once, and has no second derivative here")

    op.register_autograd(backward)


# ---- Sequences ------------------------------------------------------------------------------------


@torch.library.custom_op("prospect::scaled", mutates_args=())
def scaled(gradient: Tensor, coefficients: Tensor, policy: Tensor) -> Tensor:
    """dL/dP of a row: the loss's coefficients times its own gradient. The policy itself is there so that a
    second derivative finds this operator, and is refused, instead of nothing, and is 0."""
    return (gradient.to(coefficients.dtype) * coefficients).to(policy.dtype)


@scaled.register_fake
def _(gradient, coefficients, policy):
    return torch.empty(policy.shape, dtype=policy.dtype, device=policy.device)


_differentiated_once(scaled, "a loss")


def _metrics_like(row: Tensor) -> Tensor:
    """Room for metrics: bits of numbers, of which one is an integer."""
    return torch.zeros(_core.METRICS_SIZE, dtype=torch.int64, device=row.device)


def _total(metrics: Tensor, dtype: torch.dtype) -> Tensor:
    return metrics.view(torch.float64)[_core.TOTAL_AT].to(dtype, copy=True)


@torch.library.custom_op("prospect::pairs", mutates_args=())
def pairs(
    policy_chosen: Tensor, policy_rejected: Tensor, policy_third: Optional[Tensor],
    reference_chosen: Optional[Tensor], reference_rejected: Optional[Tensor],
    chosen_tokens: Optional[Tensor], rejected_tokens: Optional[Tensor], third_tokens: Optional[Tensor],
    weight: Optional[Tensor], margin: Optional[Tensor],
    loss: str, values: Sequence[float], score: str, alpha: float,
    normaliser: str, count: float, token_count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy_chosen, _rejected, _third, reward_chosen, _rejected, metrics) of a paired loss."""
    rows = _given(policy_chosen=policy_chosen, policy_rejected=policy_rejected, policy_third=policy_third,
                  reference_chosen=reference_chosen, reference_rejected=reference_rejected,
                  chosen_tokens=chosen_tokens, rejected_tokens=rejected_tokens, third_tokens=third_tokens,
                  weight=weight, margin=margin)
    dtype = _wide(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected)
    outs = [torch.empty(policy_chosen.shape, dtype=dtype, device=policy_chosen.device) for _ in range(6)]
    if policy_third is None:
        outs[3] = outs[3].new_empty(0)
    names = ("loss", "d_policy_chosen", "d_policy_rejected", "d_policy_third", "reward_chosen", "reward_rejected")
    results = {name: out for name, out in zip(names, outs) if out.numel() == policy_chosen.numel()}
    metrics = _metrics_like(policy_chosen)
    handle = native(loss, tuple(values), score, alpha, "")
    with _placed(policy_chosen) as place:
        _core.pairs(handle, rows, results, metrics.view(torch.float64), normaliser, count, token_count, **place)
    return (_total(metrics, dtype), *outs, metrics)


@pairs.register_fake
def _(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected, chosen_tokens,
      rejected_tokens, third_tokens, weight, margin, loss, values, score, alpha, normaliser, count, token_count):
    dtype = _wide(policy_chosen, policy_rejected, policy_third, reference_chosen, reference_rejected)
    row = [policy_chosen.new_empty(policy_chosen.shape, dtype=dtype) for _ in range(6)]
    if policy_third is None:
        row[3] = row[3].new_empty(0)
    return (policy_chosen.new_empty((), dtype=dtype), *row,
            policy_chosen.new_empty(_core.METRICS_SIZE, dtype=torch.int64))


def _pairs_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:3], *output[2:5])


def _pairs_backward(ctx, gradient, *_):
    chosen, rejected, third, d_chosen, d_rejected, d_third = ctx.saved_tensors
    return (scaled(gradient, d_chosen, chosen) if ctx.needs_input_grad[0] else None,
            scaled(gradient, d_rejected, rejected) if ctx.needs_input_grad[1] else None,
            scaled(gradient, d_third, third) if ctx.needs_input_grad[2] else None,
            *[None] * 14)


pairs.register_autograd(_pairs_backward, setup_context=_pairs_context)


@torch.library.custom_op("prospect::completions", mutates_args=())
def completions(
    policy: Tensor, reference: Optional[Tensor], desirable: Tensor, tokens: Optional[Tensor],
    weight: Optional[Tensor], target: Optional[Tensor],
    mismatched_policy: Optional[Tensor], mismatched_reference: Optional[Tensor],
    mismatched_tokens: Optional[Tensor],
    loss: str, values: Sequence[float], reference_point: str, z: float, normaliser: str, count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy, reward, metrics) of a loss of thumbs."""
    rows = _given(policy=policy, reference=reference, desirable=desirable, tokens=tokens, weight=weight,
                  target=target, mismatched_policy=mismatched_policy, mismatched_reference=mismatched_reference,
                  mismatched_tokens=mismatched_tokens)
    dtype = _wide(policy, reference)
    outs = [torch.empty(policy.shape, dtype=dtype, device=policy.device) for _ in range(3)]
    metrics = _metrics_like(policy)
    handle = native(loss, tuple(values), "", 0.0, "")
    with _placed(policy) as place:
        _core.completions(handle, rows, dict(zip(("loss", "d_policy", "reward"), outs)),
                          metrics.view(torch.float64), reference_point, z, normaliser, count, **place)
    return (_total(metrics, dtype), *outs, metrics)


@completions.register_fake
def _(policy, reference, desirable, tokens, weight, target, mismatched_policy, mismatched_reference,
      mismatched_tokens, loss, values, reference_point, z, normaliser, count):
    dtype = _wide(policy, reference)
    return (policy.new_empty((), dtype=dtype), *[policy.new_empty(policy.shape, dtype=dtype) for _ in range(3)],
            policy.new_empty(_core.METRICS_SIZE, dtype=torch.int64))


def _completions_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(inputs[0], output[2])


def _completions_backward(ctx, gradient, *_):
    policy, d_policy = ctx.saved_tensors
    return (scaled(gradient, d_policy, policy), *[None] * 14)


completions.register_autograd(_completions_backward, setup_context=_completions_context)


@torch.library.custom_op("prospect::token_losses", mutates_args=())
def token_losses(
    policy: Tensor, entropy: Optional[Tensor], old_policy: Optional[Tensor], reference: Optional[Tensor],
    advantage: Optional[Tensor], token_advantage: Optional[Tensor], weight: Optional[Tensor],
    targets: Optional[Tensor], mask: Optional[Tensor], offsets: Optional[Tensor],
    sequences: int, length: int,
    loss: str, values: Sequence[float], averaging: str, entropy_coef: float, normaliser: str, count: float,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(total, loss, d_policy, d_entropy, metrics) of a loss of tokens."""
    rows = _given(policy=policy, entropy=entropy, old_policy=old_policy, reference=reference, advantage=advantage,
                  token_advantage=token_advantage, weight=weight, targets=targets, mask=mask)
    dtype = _wide(policy, old_policy, reference)
    outs = [torch.empty(policy.shape, dtype=dtype, device=policy.device) for _ in range(3)]
    results = dict(zip(("loss", "d_policy", "d_entropy"), outs))
    if entropy is None or entropy_coef == 0:
        outs[2] = outs[2].new_empty(0)
        del results["d_entropy"]
    metrics = _metrics_like(policy)
    handle = native(loss, tuple(values), "", 0.0, averaging)
    with _placed(policy) as place:
        _core.token_losses(handle, rows, results, metrics.view(torch.float64), sequences, length, _bare(offsets),
                           entropy_coef, normaliser, count, **place)
    return (_total(metrics, dtype), *outs, metrics)


@token_losses.register_fake
def _(policy, entropy, old_policy, reference, advantage, token_advantage, weight, targets, mask, offsets,
      sequences, length, loss, values, averaging, entropy_coef, normaliser, count):
    dtype = _wide(policy, old_policy, reference)
    row = [policy.new_empty(policy.shape, dtype=dtype) for _ in range(3)]
    if entropy is None or entropy_coef == 0:
        row[2] = row[2].new_empty(0)
    return (policy.new_empty((), dtype=dtype), *row, policy.new_empty(_core.METRICS_SIZE, dtype=torch.int64))


def _tokens_context(ctx, inputs, output):
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*inputs[:2], *output[2:4])


def _tokens_backward(ctx, gradient, *_):
    policy, entropy, d_policy, d_entropy = ctx.saved_tensors
    d_of_entropy = None
    if ctx.needs_input_grad[1] and d_entropy.numel() == policy.numel():
        d_of_entropy = scaled(gradient, d_entropy, entropy)
    return (scaled(gradient, d_policy, policy) if ctx.needs_input_grad[0] else None, d_of_entropy, *[None] * 16)


token_losses.register_autograd(_tokens_backward, setup_context=_tokens_context)


# ---- Logits ---------------------------------------------------------------------------------------

STATISTICS = ("entropy", "sum_squares", "mean_logit", "target_is_argmax")


def _token_results(rows: Tensor, statistics: Sequence[str]) -> List[Tensor]:
    """log_prob, lse and the statistics, of no elements where not asked for."""
    size, dtype = rows.shape[0], _wide(rows)
    outs = [rows.new_empty(size, dtype=dtype), rows.new_empty(size, dtype=torch.float64)]
    for name in STATISTICS:
        of = torch.bool if name == "target_is_argmax" else dtype
        outs.append(rows.new_empty(size if name in statistics else 0, dtype=of))
    return outs


def _named_results(outs: Sequence[Tensor], statistics: Sequence[str]) -> Dict[str, Tensor]:
    wanted = ("log_prob", "lse", *statistics)
    return {name: out for name, out in zip(("log_prob", "lse", *STATISTICS), outs) if name in wanted}


def _coefficients(log_prob: Tensor, lse: Tensor, d_token: Tensor, d_entropy: Optional[Tensor],
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
    outs = _token_results(logits, wanted)
    with _placed(logits) as place:
        _core.log_probs(logits.detach(), targets, _named_results(outs, wanted), mask, _bare(inverse_temperatures),
                        temperature, soft_cap, **place)
    return tuple(outs)


@log_probs.register_fake
def _(logits, targets, mask, inverse_temperatures, temperature, soft_cap, statistics):
    return tuple(_token_results(logits, statistics.split()))


@torch.library.custom_op("prospect::logits_gradient", mutates_args=())
def logits_gradient(
    logits: Tensor, targets: Tensor, mask: Optional[Tensor], inverse_temperatures: Optional[Tensor],
    log_prob: Tensor, lse: Tensor, d_token: Tensor, d_entropy: Optional[Tensor], entropy: Optional[Tensor],
    temperature: float, soft_cap: float,
) -> Tensor:
    """The gradient of the logits from that of their log-probabilities and, if given, entropies."""
    gradient = torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)
    coefficients = _coefficients(log_prob, lse, d_token, d_entropy, entropy)
    with _placed(logits) as place:
        _core.logits_gradient(logits.detach(), gradient, targets, _given(**coefficients), mask,
                              _bare(inverse_temperatures), temperature, soft_cap, **place)
    return gradient


@logits_gradient.register_fake
def _(logits, targets, mask, inverse_temperatures, log_prob, lse, d_token, d_entropy, entropy, temperature,
      soft_cap):
    return torch.empty(logits.shape, dtype=logits.dtype, device=logits.device)


_differentiated_once(logits_gradient, "log_probs")


def _differentiable_results(ctx, output) -> None:
    """log_prob, and entropy where it was asked for. What is not given to a backward pass stays None."""
    ctx.set_materialize_grads(False)
    entropy = output[2]
    ctx.mark_non_differentiable(output[1], *output[3:], *([entropy] if entropy.numel() == 0 else []))


def _given_gradients(d_token, d_entropy, log_prob):
    """The two, an entropy's only where there is one; (None, None) where there is nothing to do."""
    if d_entropy is not None and d_entropy.numel() == 0:
        d_entropy = None
    if d_token is None and d_entropy is not None:
        d_token = torch.zeros_like(log_prob)
    return d_token, d_entropy


def _log_probs_context(ctx, inputs, output):
    logits, targets, mask, inverse_temperatures, ctx.temperature, ctx.soft_cap, _ = inputs
    _differentiable_results(ctx, output)
    ctx.save_for_backward(logits, targets, mask, inverse_temperatures, *output[:3])


def _log_probs_backward(ctx, d_token, _lse, d_entropy, *_):
    logits, targets, mask, inverse_temperatures, log_prob, lse, entropy = ctx.saved_tensors
    d_token, d_entropy = _given_gradients(d_token, d_entropy, log_prob)
    if d_token is None:
        return (None,) * 7
    gradient = logits_gradient(logits, targets, mask, inverse_temperatures, log_prob, lse, d_token, d_entropy,
                               entropy if d_entropy is not None else None, ctx.temperature, ctx.soft_cap)
    return (gradient, *[None] * 6)


log_probs.register_autograd(_log_probs_backward, setup_context=_log_probs_context)


# ---- The head -------------------------------------------------------------------------------------


@torch.library.custom_op("prospect::head_log_probs", mutates_args=())
def head_log_probs(
    hidden: Tensor, weight: Tensor, bias: Optional[Tensor], lora_a: Optional[Tensor], lora_b: Optional[Tensor],
    targets: Tensor, mask: Optional[Tensor],
    lora_scale: float, temperature: float, soft_cap: float, statistics: str, frozen: bool, workspace: int,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As log_probs, of hidden states [tokens, width] and weight [vocabulary, width], and last, where the head is
    frozen, the gradient of each log-probability by its hidden state."""
    wanted = statistics.split()
    outs = _token_results(hidden, wanted)
    d_hidden = torch.empty(hidden.shape if frozen else (0, 0), dtype=hidden.dtype, device=hidden.device)
    _core.head_log_probs(hidden.detach(), weight.detach(), targets, _named_results(outs, wanted),
                         _core.HeadWorkspace(workspace), _bare(bias), _bare(lora_a), _bare(lora_b), lora_scale, mask,
                         temperature, soft_cap, False, d_hidden if frozen else None)
    return (*outs, d_hidden)


@head_log_probs.register_fake
def _(hidden, weight, bias, lora_a, lora_b, targets, mask, lora_scale, temperature, soft_cap, statistics, frozen,
      workspace):
    return (*_token_results(hidden, statistics.split()), hidden.new_empty(hidden.shape if frozen else (0, 0)))


@torch.library.custom_op("prospect::head_gradient", mutates_args=())
def head_gradient(
    hidden: Tensor, weight: Tensor, bias: Optional[Tensor], lora_a: Optional[Tensor], lora_b: Optional[Tensor],
    targets: Tensor, mask: Optional[Tensor],
    log_prob: Tensor, lse: Tensor, d_token: Tensor, d_entropy: Optional[Tensor], entropy: Optional[Tensor],
    wanted: Sequence[bool], lora_scale: float, temperature: float, soft_cap: float, workspace: int,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of hidden, weight, bias, lora_a and lora_b, of no elements where not wanted."""
    outs = _head_gradients(hidden, weight, bias, lora_a, lora_b, wanted)
    named = {name: out for name, out, want in zip(("hidden", "weight", "bias", "lora_a", "lora_b"), outs, wanted)
             if want}
    coefficients = _coefficients(log_prob, lse, d_token, d_entropy, entropy)
    _core.head_gradient(hidden.detach(), weight.detach(), targets, _given(**coefficients), named,
                        _core.HeadWorkspace(workspace), False, _bare(bias), _bare(lora_a), _bare(lora_b), lora_scale,
                        mask, temperature, soft_cap)
    return tuple(out.to(hidden.dtype) for out in outs)


def _head_gradients(hidden, weight, bias, lora_a, lora_b, wanted) -> List[Tensor]:
    dtypes = (hidden.dtype, *[_wide(hidden)] * 4)
    return [hidden.new_empty(x.shape if want else (0,) * max(x.dim() if x is not None else 1, 1), dtype=dtype)
            for x, want, dtype in zip((hidden, weight, bias, lora_a, lora_b), wanted, dtypes)]


@head_gradient.register_fake
def _(hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, d_token, d_entropy, entropy, wanted,
      lora_scale, temperature, soft_cap, workspace):
    return tuple(out.to(hidden.dtype)
                 for out in _head_gradients(hidden, weight, bias, lora_a, lora_b, wanted))


_differentiated_once(head_gradient, "head_log_probs")


@torch.library.custom_op("prospect::scaled_rows", mutates_args=())
def scaled_rows(d_hidden: Tensor, factors: Tensor, hidden: Tensor) -> Tensor:
    """The frozen head's backward pass; `hidden` is there for the same reason as in `scaled`."""
    out = d_hidden.clone()
    _core.scale_rows(out, factors.to(_wide(d_hidden)).contiguous())
    return out


@scaled_rows.register_fake
def _(d_hidden, factors, hidden):
    return torch.empty_like(d_hidden)


_differentiated_once(scaled_rows, "head_log_probs")


def _head_context(ctx, inputs, output):
    (hidden, weight, bias, lora_a, lora_b, targets, mask, ctx.lora_scale, ctx.temperature, ctx.soft_cap, _,
     ctx.frozen, ctx.workspace) = inputs
    _differentiable_results(ctx, output)
    ctx.save_for_backward(hidden, weight, bias, lora_a, lora_b, targets, mask, *output[:3], output[6])


def _head_backward(ctx, d_token, _lse, d_entropy, *_):
    hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, entropy, d_hidden = ctx.saved_tensors
    d_token, d_entropy = _given_gradients(d_token, d_entropy, log_prob)
    if d_token is None:
        return (None,) * 13
    if ctx.frozen and d_entropy is None:
        return (scaled_rows(d_hidden, d_token, hidden), *[None] * 12)
    wanted = list(ctx.needs_input_grad[:5])
    outs = head_gradient(hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, d_token, d_entropy,
                         entropy if d_entropy is not None else None, wanted, ctx.lora_scale, ctx.temperature,
                         ctx.soft_cap, ctx.workspace)
    return (*[out if want else None for out, want in zip(outs, wanted)], *[None] * 8)


head_log_probs.register_autograd(_head_backward, setup_context=_head_context)
