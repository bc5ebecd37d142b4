"""KTO and DPO on sums of log-probs, forward and backward, in PyTorch eager: the formulas as HALOs
and TRL write them."""

import torch
from torch.nn.functional import logsigmoid

import peer

BETA = 0.1


def kto(policy, reference, desirable, z):
    """Value mean, and rewards as a trainer logs them."""
    rewards = BETA * (policy - reference)
    up = 1 - torch.sigmoid(rewards[desirable] - BETA * z)
    down = 1 - torch.sigmoid(BETA * z - rewards[~desirable])
    return torch.cat((up, down)).mean(), rewards.detach()


def dpo(chosen, rejected, reference_chosen, reference_rejected):
    margin = (chosen - rejected) - (reference_chosen - reference_rejected)
    rewards = BETA * (chosen - reference_chosen).detach(), BETA * (rejected -
                                                                   reference_rejected).detach()
    return -logsigmoid(BETA * margin).mean(), rewards


def sums(n, count, seed=1):
    torch.manual_seed(seed)
    rows = [torch.randn(n) * 10 - 60 for _ in range(count)]
    return [row.requires_grad_(i < count // 2) for i, row in enumerate(rows)]


def steps(work, n):
    if work == "torch_kto":
        policy, reference = sums(n, 2)
        desirable = torch.arange(n) % 2 == 0
        z = torch.tensor(1.0)

        def step():
            policy.grad = None
            kto(policy, reference, desirable, z)[0].backward()

        def exact():
            r = (policy.detach() - reference).double()
            sign = torch.where(desirable, 1.0, -1.0).double()
            p = torch.sigmoid(BETA * sign * (r - 1))
            return policy.grad, -BETA * sign * p * (1 - p) / n

        return step, exact
    chosen, rejected, reference_chosen, reference_rejected = sums(n, 4)

    def step():
        chosen.grad = rejected.grad = None
        dpo(chosen, rejected, reference_chosen, reference_rejected)[0].backward()

    def exact():
        m = BETA * ((chosen - rejected) - (reference_chosen - reference_rejected)).detach().double()
        return chosen.grad, -BETA * torch.sigmoid(-m) / n

    return step, exact


def main():
    options = peer.arguments()
    step, exact = steps(options.work, 64)
    step()
    peer.require("coefficient", *exact(), 1e-7)
    step, _ = steps(options.work, options.rows)
    for _ in range(10 if options.rows < 1 << 20 else 1):
        step()
    peer.measure(options, step, peer.memory("VmRSS"))


main()
