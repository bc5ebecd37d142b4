"""Hidden states -> linear -> log-prob per token -> gradients of hidden states and weight, by one of
the contestants in heads.py: its answers on a small batch against those in double, then its time.

  log_probs   no gradient
  frozen      gradient of the hidden states
  trained     gradients of hidden states and weight"""

import torch

import heads
import peer


def batch(rows, width, columns, dtype, work):
    """Filled in place: nothing freed is left behind for a step to find."""
    torch.manual_seed(1)
    hidden = torch.empty(rows, width, dtype=dtype).normal_()
    weight = torch.empty(columns, width, dtype=dtype).normal_(0, width**-0.5)
    return (hidden.requires_grad_(work != "log_probs"), weight.requires_grad_(work == "trained"),
            torch.randint(columns, (rows,)), torch.randn(rows))


def step(contestant, hidden, weight, targets, coefficients):
    """The answer; gradients are in hidden.grad and weight.grad."""
    hidden.grad = weight.grad = None
    with torch.set_grad_enabled(hidden.requires_grad):
        answer = contestant.answer(hidden, weight, targets, coefficients)
    if hidden.requires_grad:
        loss = answer if contestant.loss else (coefficients * answer).sum()
        loss.backward()
    return answer.detach()


def require_right_answers(name, contestant, dtype, work):
    """Exact is what double makes of the inputs as they are in `dtype`. More tokens than are in one
    chunk, more columns than are in one tile; gradients by the largest of them."""
    small = batch(1024, 48, 5000, dtype, work)
    got = step(contestant, *small)
    hidden, weight = (x.detach().double().requires_grad_() for x in small[:2])
    targets, coefficients = small[2], small[3].double()
    exact = heads.of_targets((hidden @ weight.T).log_softmax(-1), targets)
    near = 1e-5 if dtype == torch.float32 else 2e-2
    if contestant.loss:
        exact = contestant.loss(exact, coefficients)
        exact.backward()
        peer.require(f"{name}: loss", got, exact, near * exact.abs().item())
    else:
        (coefficients * exact).sum().backward()
        # Between -16 and -8 neighbours in bf16 are 0.0625 apart, and some round more than once.
        peer.require(f"{name}: log-prob", got, exact, 0.13 if got.dtype == torch.bfloat16 else near)
    for what, mine, theirs in ("hidden", small[0], hidden), ("weight", small[1], weight):
        if mine.requires_grad:
            peer.require(f"{name}: gradient of {what}", mine.grad, theirs.grad,
                         near * theirs.grad.abs().max().item())


def main():
    options = peer.arguments()
    contestant = heads.CONTESTANTS[options.who]
    try:
        require_right_answers(options.name, contestant, options.dtype, options.work)
    except ImportError as error:
        peer.leave_out(options.who, error)

    inputs = batch(options.rows, options.hidden, options.columns, options.dtype, options.work)
    # Gradients that are wanted are not extra: ours are written to memory that is there before.
    wanted = sum(x.element_size() * x.numel() for x in inputs[:2] if x.requires_grad)
    peer.measure(options, lambda: step(contestant, *inputs), peer.settled() + wanted,
                 contestant.note_for(options.dtype))


main()
