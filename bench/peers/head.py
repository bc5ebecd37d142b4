"""Hidden states -> linear -> log-prob per token -> gradient of hidden states and weight, in PyTorch
eager, fp32: what a trainer without a fused head does."""

import torch

import peer


def log_probs(hidden, weight, targets):
    logits = torch.nn.functional.linear(hidden, weight)
    return logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def step(hidden, weight, targets, coefficients):
    hidden.grad = weight.grad = None
    got = log_probs(hidden, weight, targets)
    (coefficients * got).sum().backward()
    return got.detach()


def batch(rows, width, columns, frozen):
    torch.manual_seed(1)
    hidden = torch.randn(rows, width).requires_grad_()
    weight = (torch.randn(columns, width) / width**0.5).requires_grad_(not frozen)
    return hidden, weight, torch.randint(columns, (rows,)), torch.randn(rows)


def main():
    options = peer.arguments()
    frozen = options.work == "torch_frozen"

    hidden, weight, targets, coefficients = batch(8, 16, 1000, frozen)
    got = step(hidden, weight, targets, coefficients)
    exact = (hidden.detach().double() @ weight.detach().double().T).log_softmax(-1)
    peer.require("log-prob", got, exact.gather(-1, targets.unsqueeze(-1)).squeeze(-1), 1e-5)

    hidden, weight, targets, coefficients = batch(options.rows, options.hidden, options.columns,
                                                  frozen)

    def score():
        with torch.no_grad():
            log_probs(hidden, weight, targets)

    # Gradients that are wanted are not extra: ours are written to memory that is there before.
    baseline = peer.memory("VmRSS")
    if options.work == "torch_log_probs":
        work = score
    else:
        work = lambda: step(hidden, weight, targets, coefficients)
        baseline += sum(4 * x.numel() for x in (hidden, weight) if x.requires_grad)
    peer.measure(options, work, baseline)


main()
