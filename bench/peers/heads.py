"""Those who take hidden states through an LM head to log-probs of tokens and gradients, on the CPU:
PyTorch eager, PyTorch in chunks by hand, and what torch, TRL, Liger and Unsloth offer.

What was found of them (torch 2.15, trl 1.16, liger-kernel 0.8.5, unsloth_zoo 2026.10.9):

torch.nn.functional.linear_cross_entropy takes a scalar or, with reduction="none", one coefficient
per token, on the CPU in fp32 and in bf16; options=None is no more than linear and cross_entropy.
With options it works in chunks of tokens: a scalar has its gradients from the forward pass (3
products), tokens have their logits made again by the backward pass (4). The chunks it chooses
itself, of 64 tokens here, take two to four times as long as 512 do. In bf16 it widens the whole
weight and multiplies fp32, unless acc_policy="compact" is asked for: that takes half the time, is as
exact as eager bf16, and is what is timed. Losses of tokens and their sum come back as bf16 either way.

TRL's fused head is an autograd function over tiles of 4096 tokens and 32768 columns, with torch
operations where there is no Triton: here one tile is all of the logits. Its backward pass makes
logits again and multiplies gradients in fp32.

Liger's only losses of pairs and of groups are scalars, but the log-probs under its GRPO are per
token: tiles of 2048 tokens and 4096 columns, plain torch, made again by the backward pass, which
multiplies in fp32. Its DPO takes pairs and differentiates every chunk of them in the forward pass;
it is not compiled here: that takes half a minute, and up to a quarter off the time of a step.

Unsloth's log-probs run as torch operations where there is no GPU (it cannot be imported without the
package requests, and asks for an older trl, but works beside this one): chunks of tokens, the gradient of
the hidden states in the forward pass for a frozen head, logits made again for a trained one."""

import contextlib
import dataclasses
import io
import os
import sys
import tempfile
import typing

import torch
from torch.nn import functional

WORKS = "log_probs", "frozen", "trained"
# Of chunks of 128 to 1024 tokens and blocks of 16 tokens up to a chunk, the fastest.
CHUNK = 512  # tokens whose logits are there at once
BLOCK = 64  # tokens whose softmax is taken at once: it should stay in a cache
LENGTH = 128  # tokens of a sequence, where there are pairs


def of_targets(log_probs, targets):
    return log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


# PyTorch eager.

def torch_eager(hidden, weight, targets, _):
    return of_targets(functional.linear(hidden, weight).log_softmax(-1), targets)


def torch_fp32_logits(hidden, weight, targets, _):
    return of_targets(functional.linear(hidden, weight).float().log_softmax(-1), targets)


# PyTorch in chunks.

def softmax(logits, targets, coefficients):
    """Log-probs of the targets. Where there are coefficients, the gradient replaces the logits."""
    got = []
    for first in range(0, len(logits), BLOCK):
        rows = slice(first, first + BLOCK)
        every = logits[rows].log_softmax(-1, dtype=torch.float32)
        got.append(of_targets(every, targets[rows]))
        if coefficients is not None:
            scale = coefficients[rows].unsqueeze(-1)
            gradient = every.exp_().mul_(-scale)
            logits[rows] = gradient.scatter_add_(-1, targets[rows].unsqueeze(-1), scale)
    return torch.cat(got)


def sweep(hidden, weight, targets, coefficients=None, d_hidden=None, d_weight=None):
    """Log-probs; where there are coefficients, the gradients for which there is room too."""
    room = hidden.new_empty(min(CHUNK, len(hidden)), len(weight))
    got = []
    for first in range(0, len(hidden), CHUNK):
        rows = slice(first, first + CHUNK)
        logits = torch.mm(hidden[rows], weight.T, out=room[:len(hidden[rows])])
        got.append(softmax(logits, targets[rows],
                           None if coefficients is None else coefficients[rows]))
        if d_hidden is not None:
            torch.mm(logits, weight, out=d_hidden[rows])
        if d_weight is not None:
            d_weight.addmm_(logits.T, hidden[rows], beta=min(first, 1))
    return torch.cat(got)


class Frozen(torch.autograd.Function):
    """The gradient of a log-prob is there with it: a coefficient scales a row of it afterwards."""

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        d_hidden = torch.empty_like(hidden)
        got = sweep(hidden, weight, targets, torch.ones(len(hidden)), d_hidden)
        ctx.save_for_backward(d_hidden)
        return got

    @staticmethod
    def backward(ctx, coefficients):
        d_hidden, = ctx.saved_tensors
        return d_hidden.mul_(coefficients.unsqueeze(-1)), None, None


class Trained(torch.autograd.Function):
    """A weight's gradient needs all coefficients: logits are made again when they are known."""

    @staticmethod
    def forward(ctx, hidden, weight, targets):
        ctx.save_for_backward(hidden, weight, targets)
        return sweep(hidden, weight, targets)

    @staticmethod
    def backward(ctx, coefficients):
        hidden, weight, targets = ctx.saved_tensors
        d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)
        sweep(hidden, weight, targets, coefficients, d_hidden, d_weight)
        return d_hidden, d_weight, None


class Known(torch.autograd.Function):
    """The sum of log-probs times coefficients that are known before: nothing is made twice."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, coefficients):
        d_hidden, d_weight = torch.empty_like(hidden), torch.empty_like(weight)
        got = sweep(hidden, weight, targets, coefficients, d_hidden, d_weight)
        ctx.save_for_backward(d_hidden, d_weight)
        return coefficients @ got

    @staticmethod
    def backward(ctx, scale):
        return *(d if scale == 1 else d.mul_(scale) for d in ctx.saved_tensors), None, None


def torch_chunked(hidden, weight, targets, _):
    if weight.requires_grad:
        return Trained.apply(hidden, weight, targets)
    if hidden.requires_grad:
        return Frozen.apply(hidden, weight, targets)
    return sweep(hidden, weight, targets)


def weighted(log_probs, coefficients):
    return coefficients @ log_probs


# torch's own.

def linear_cross_entropy(hidden, weight, targets, _, reduction="none"):
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=CHUNK, acc_policy="compact")
    return -functional.linear_cross_entropy(hidden, weight, targets, reduction=reduction,
                                            options=options)


def linear_cross_entropy_sum(hidden, weight, targets, _):
    return linear_cross_entropy(hidden, weight, targets, _, "sum")


def unweighted(log_probs, _):
    return log_probs.sum()


# Other projects. What they import comes with the first, small, batch: it is no part of a peak.

def trl(hidden, weight, targets, _):
    from trl.kernels import ChunkedLogProbFunction
    temperature, columns, softcapping, scale, others = 1.0, 32768, None, 1.0, ()
    return ChunkedLogProbFunction.apply(hidden, weight, None, targets, temperature, columns,
                                        softcapping, scale, others)[0]


def liger(hidden, weight, targets, _):
    from liger_kernel.chunked_loss.fused_linear_ppo import LigerFusedLinearPPOBase
    return LigerFusedLinearPPOBase.chunk_forward(hidden.unsqueeze(0), weight, targets.unsqueeze(0))[0]


def liger_dpo(hidden, weight, targets, _):
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss
    loss = LigerFusedLinearDPOLoss(compiled=False, use_ref_model=False,
                                   chunk_size=CHUNK // (2 * LENGTH))
    return loss(weight, hidden.view(-1, LENGTH, hidden.shape[-1]), targets.view(-1, LENGTH))[0]


def dpo(log_probs, _):
    chosen, rejected = log_probs.view(-1, LENGTH).sum(-1).chunk(2)
    return -functional.logsigmoid(0.1 * (chosen - rejected)).mean()


def unsloth(hidden, weight, targets, _):
    if "unsloth" not in sys.modules:
        # It makes a directory where it is started, and greets on the output that is for records.
        with tempfile.TemporaryDirectory() as place, contextlib.redirect_stdout(io.StringIO()):
            os.environ["UNSLOTH_COMPILE_LOCATION"] = place
            import unsloth
    from unsloth_zoo.fused_losses import unsloth_chunked_logprobs
    return unsloth_chunked_logprobs(hidden, weight, targets)


@dataclasses.dataclass
class Contestant:
    """`answer(hidden, weight, targets, coefficients)` gives log-probs, to go back from with the
    coefficients; or a scalar, that `loss` of exact log-probs and coefficients, to go back from as it
    is."""
    answer: typing.Callable
    note: str = ""
    in_bf16: str = ""  # to be added to the note
    loss: typing.Callable | None = None
    # What is timed of the works: all rows have to fit into minutes.
    fp32: tuple = ()
    bf16: tuple = ("frozen", "trained")

    def note_for(self, dtype):
        return "; ".join(filter(None, [self.note, self.in_bf16 if dtype == torch.bfloat16 else ""]))


TWICE = "logits made twice"
ROUNDED = "logits rounded to bf16"
SUMMED = "gradient of the weight summed in bf16 over chunks"
CONTESTANTS = {
    "torch": Contestant(torch_eager, "", f"{ROUNDED}, log-probs too", fp32=WORKS, bf16=WORKS),
    "torch_fp32_logits": Contestant(torch_fp32_logits, "", f"{ROUNDED}, then widened",
                                    bf16=("trained",)),
    "torch_chunked": Contestant(torch_chunked, f"chunks of 512 tokens; trained: {TWICE}",
                                f"{ROUNDED}; {SUMMED}", fp32=WORKS, bf16=WORKS),
    "torch_chunked_known": Contestant(
        Known.apply, "chunks of 512 tokens; coefficients known before", f"{ROUNDED}; {SUMMED}",
        loss=weighted, fp32=("trained",), bf16=("trained",)),
    "linear_cross_entropy": Contestant(
        linear_cross_entropy, f"chunks of 512 tokens; {TWICE}",
        f"{ROUNDED}, log-probs too; {SUMMED}", fp32=("trained",), bf16=WORKS),
    "linear_cross_entropy_sum": Contestant(
        linear_cross_entropy_sum, "chunks of 512 tokens; a scalar: no coefficients",
        f"{ROUNDED}, the sum too; {SUMMED}", loss=unweighted, bf16=("trained",)),
    "trl": Contestant(trl, f"one tile is all of the logits; {TWICE}",
                      f"{ROUNDED}, gradients multiplied in fp32"),
    "liger": Contestant(liger, f"what is under its GRPO; tiles of 4096 columns; {TWICE}",
                        f"{ROUNDED}, gradients multiplied in fp32", fp32=("trained",)),
    "liger_dpo": Contestant(
        liger_dpo, "a scalar: DPO of 128-token sequences, without a reference, 2 pairs at a time",
        f"{ROUNDED}; {SUMMED}", loss=dpo, bf16=("trained",)),
    "unsloth": Contestant(unsloth, f"trained: {TWICE}", f"{ROUNDED}, gradients multiplied in fp32"),
}
