"""Losses of tokens on log-probs, forward and backward: in PyTorch eager as TRL writes them, and
Liger's, which are PyTorch too once the log-probs are there (its kernels want logits or a head)."""

import itertools

import torch

import peer

LENGTH = 1024
BATCHES = 16  # more than a cache holds
EPSILON = 0.2


def grpo(policy, old, advantage, mask):
    ratio = torch.exp(policy - old)
    clipped = torch.clamp(ratio, 1 - EPSILON, 1 + EPSILON)
    loss = -torch.min(ratio * advantage[:, None], clipped * advantage[:, None])
    return ((loss * mask).sum(-1) / mask.sum(-1).clamp(min=1)).mean()


def sft(policy, old, advantage, mask):
    return -(policy * mask).sum() / mask.sum()


def liger_grpo(policy, old, advantage, mask):
    from liger_kernel.chunked_loss.grpo_loss import LigerFusedLinearGRPOFunction
    return LigerFusedLinearGRPOFunction.ppo_loss_fn(
        policy, mask, advantage, mask, old_per_token_logps=old, epsilon_low=EPSILON,
        epsilon_high=EPSILON, beta=0.0, loss_type="grpo")[0]


WORKS = {"torch_grpo": grpo, "torch_sft": sft, "liger_grpo": liger_grpo}


def batch(n, dtype=torch.float32):
    torch.manual_seed(1)
    shape = n // LENGTH, LENGTH
    policy = -1 - torch.randn(shape, dtype=dtype).abs()
    old = policy + 0.1 * torch.randn(shape, dtype=dtype)
    mask = (torch.arange(LENGTH) >= LENGTH // 8).to(dtype).expand(shape).contiguous()
    return policy.requires_grad_(), old, torch.randn(shape[0], dtype=dtype), mask


def gradient(work, n, dtype=torch.float32):
    policy, *rest = batch(n, dtype)
    WORKS[work](policy, *rest).backward()
    return policy.grad


def by_hand(work, n):
    """In double: 1 / tokens, or A r / tokens of the sequence where the clip does not hold it."""
    policy, old, advantage, mask = (row.detach().double() for row in batch(n))
    if work == "torch_sft":
        return -mask / mask.sum()
    ratio = torch.exp(policy - old)
    a = advantage[:, None]
    free = torch.where(a > 0, ratio <= 1 + EPSILON, ratio >= 1 - EPSILON).double()
    return -free * a * ratio * mask / mask.sum(-1, keepdim=True) / len(policy)


def main():
    options = peer.arguments()
    small = 4 * LENGTH
    peer.require("coefficient", gradient(options.work, small), by_hand(options.work, small), 1e-8)
    batches = itertools.cycle([batch(options.rows) for _ in range(BATCHES)])

    def step():
        policy, *rest = next(batches)
        WORKS[options.work](policy, *rest).backward()
        policy.grad = None

    step()
    peer.measure(options, step, peer.memory("VmRSS"))


main()
