"""Hidden states to log-probabilities, and back, without logits."""

import contextlib
from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from prospect import _core
from prospect._ops.common import bare, differentiated_once, given, placed, wide
from prospect._ops.tokens import coefficients_of, differentiable_results, given_gradients, named_results, token_results

_FOR_PRODUCTS = 32 << 20  # bytes that cuBLASLt works in: what it asks for on Hopper, and more than it does elsewhere


@contextlib.contextmanager
def _placed(hidden: Tensor):
    """`placed`, and on a device with cuBLASLt's product, if the package was built with it: it is the library that
    says what is missing. Imported here and not before, when PyTorch's own cuBLASLt is there to be used."""
    with placed(hidden) as place:
        if place:
            try:
                import prospect._cublaslt as cublaslt
            except ModuleNotFoundError:
                pass
            else:
                memory = place["allocate"](_FOR_PRODUCTS)
                place["gemm"] = cublaslt.gemm(memory.data_ptr(), memory.numel(), torch.backends.cuda.matmul.allow_tf32)
        yield place


@torch.library.custom_op("prospect::head_log_probs", mutates_args=())
def head_log_probs(
    hidden: Tensor, weight: Tensor, bias: Optional[Tensor], lora_a: Optional[Tensor], lora_b: Optional[Tensor],
    targets: Tensor, mask: Optional[Tensor],
    lora_scale: float, temperature: float, soft_cap: float, statistics: str, frozen: bool, workspace: int,
) -> Tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As log_probs, of hidden states [tokens, width] and weight [vocabulary, width]; then, where the head is frozen,
    the gradient of each log-probability by its hidden state; and a tether, as a loss has one."""
    wanted = statistics.split()
    outs = token_results(hidden, wanted)
    d_hidden = torch.empty(hidden.shape if frozen else (0, 0), dtype=hidden.dtype, device=hidden.device)
    with _placed(hidden) as place:
        _core.head_log_probs(hidden.detach(), weight.detach(), targets, named_results(outs, wanted),
                             _core.HeadWorkspace(workspace), bare(bias), bare(lora_a), bare(lora_b), lora_scale, mask,
                             temperature, soft_cap, False, d_hidden if frozen else None, **place)
    return (*outs, d_hidden, outs[0].new_empty(0))


@head_log_probs.register_fake
def _(hidden, weight, bias, lora_a, lora_b, targets, mask, lora_scale, temperature, soft_cap, statistics, frozen,
      workspace):
    outs = token_results(hidden, statistics.split())
    return (*outs, hidden.new_empty(hidden.shape if frozen else (0, 0)), outs[0].new_empty(0))


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
    coefficients = coefficients_of(log_prob, lse, d_token, d_entropy, entropy)
    with _placed(hidden) as place:
        _core.head_gradient(hidden.detach(), weight.detach(), targets, given(**coefficients), named,
                            _core.HeadWorkspace(workspace), False, bare(bias), bare(lora_a), bare(lora_b), lora_scale,
                            mask, temperature, soft_cap, **place)
    return tuple(out.to(hidden.dtype) for out in outs)


def _head_gradients(hidden, weight, bias, lora_a, lora_b, wanted) -> List[Tensor]:
    dtypes = (hidden.dtype, *[wide(hidden)] * 4)
    return [hidden.new_empty(x.shape if want else (0,) * max(x.dim() if x is not None else 1, 1), dtype=dtype)
            for x, want, dtype in zip((hidden, weight, bias, lora_a, lora_b), wanted, dtypes)]


@head_gradient.register_fake
def _(hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, d_token, d_entropy, entropy, wanted,
      lora_scale, temperature, soft_cap, workspace):
    return tuple(out.to(hidden.dtype)
                 for out in _head_gradients(hidden, weight, bias, lora_a, lora_b, wanted))


differentiated_once(head_gradient, "head_log_probs")


@torch.library.custom_op("prospect::scaled_rows", mutates_args=())
def scaled_rows(d_hidden: Tensor, factors: Tensor, tether: Tensor) -> Tensor:
    """The frozen head's backward pass; the tether is there for the same reason as in `scaled`."""
    out = d_hidden.clone()
    with placed(out) as place:
        _core.scale_rows(out, factors.to(wide(d_hidden)).contiguous(), **place)
    return out


@scaled_rows.register_fake
def _(d_hidden, factors, tether):
    return torch.empty_like(d_hidden)


differentiated_once(scaled_rows, "head_log_probs")


def _head_context(ctx, inputs, output):
    (hidden, weight, bias, lora_a, lora_b, targets, mask, ctx.lora_scale, ctx.temperature, ctx.soft_cap, _,
     ctx.frozen, ctx.workspace) = inputs
    differentiable_results(ctx, output[:-1])
    # A frozen head's backward pass reads neither hidden states nor weight: they are not kept.
    ctx.save_for_backward(*((targets, mask, *output[6:]) if ctx.frozen else
                            (hidden, weight, bias, lora_a, lora_b, targets, mask, *output[:3])))


def _head_backward(ctx, d_token, _lse, d_entropy, *_):
    if ctx.frozen:  # and no entropy was asked for
        if d_token is None:
            return (None,) * 13
        targets, mask, d_hidden, tether = ctx.saved_tensors
        # A token that is not scored has a gradient of 0, whatever comes from above: 0 times infinity is none.
        unscored = targets == -100 if mask is None else (targets == -100) | (mask == 0)
        return (scaled_rows(d_hidden, d_token.masked_fill(unscored, 0), tether), *[None] * 12)
    hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, entropy = ctx.saved_tensors
    d_token, d_entropy = given_gradients(d_token, d_entropy, log_prob)
    if d_token is None:
        return (None,) * 13
    wanted = list(ctx.needs_input_grad[:5])
    outs = head_gradient(hidden, weight, bias, lora_a, lora_b, targets, mask, log_prob, lse, d_token, d_entropy,
                         entropy if d_entropy is not None else None, wanted, ctx.lora_scale, ctx.temperature,
                         ctx.soft_cap, ctx.workspace)
    return (*[out if want else None for out, want in zip(outs, wanted)], *[None] * 8)


head_log_probs.register_autograd(_head_backward, setup_context=_head_context)
