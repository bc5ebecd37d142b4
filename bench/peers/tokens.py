"""Logits -> log-prob per token -> weighted sums of four sequences -> gradient of the logits, in
PyTorch, in the two styles that trainers use: HALOs (log_softmax of the logits as floats, then
gather) and TRL (selective_log_softmax: gather minus logsumexp, row by row; in bf16 log_softmax, row
by row). Written from the formulas, not copied."""

import torch

import peer


def halos(logits, targets):
    log_probs = logits.float().log_softmax(-1)
    return log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def trl(logits, targets):
    if logits.dtype == torch.float32:
        chosen = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return chosen - torch.stack([row.logsumexp(-1) for row in logits])
    return torch.stack([
        row.log_softmax(-1).gather(-1, t.unsqueeze(-1)).squeeze(-1)
        for row, t in zip(logits, targets)
    ])


def step(style, logits, targets, coefficients):
    """`logits.grad` is there afterwards. Every token is scored: the mask is all ones."""
    logits.grad = None
    mask = targets != -100
    log_probs = style(logits, targets)
    sums = (log_probs * mask).sum(-1)
    (coefficients * sums).sum().backward()
    return log_probs.detach()


def batch(rows, columns, dtype):
    torch.manual_seed(1)
    logits = torch.empty(4, rows // 4, columns, dtype=dtype).normal_(0, 4).requires_grad_()
    targets = torch.randint(columns, (4, rows // 4))
    return logits, targets, torch.tensor([0.5, -0.25, 1.0, -1.0])


def main():
    options = peer.arguments()
    style = {"torch_halos": halos, "torch_trl": trl}[options.work]

    logits, targets, coefficients = batch(8, 1000, options.dtype)
    got = step(style, logits, targets, coefficients)
    exact = logits.detach().double().log_softmax(-1)
    # bf16 log_softmax returns bf16, and that is what TRL's style gives.
    rounded = style is trl and options.dtype == torch.bfloat16
    peer.require("log-prob", got, exact.gather(-1, targets.unsqueeze(-1)).squeeze(-1),
                 0.13 if rounded else 1e-5)
    onehot = torch.nn.functional.one_hot(targets, 1000)
    peer.require("gradient", logits.grad, coefficients.view(4, 1, 1) * (onehot - exact.exp()),
                 1e-5 if options.dtype == torch.float32 else 1e-2)

    logits, targets, coefficients = batch(options.rows, options.columns, options.dtype)
    peer.measure(options, lambda: step(style, logits, targets, coefficients),
                 peer.memory("VmRSS"))


main()
