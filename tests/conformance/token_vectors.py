"""Vectors of the losses of tokens.

A case names a batch: [B][T] of logp, old, ref and mask, and advantages [B] or [B][T]. Its `value` is the
loss of each token, or of each sequence where the loss has one for it, `d_logp` the derivative of `loss`,
which is averaged as the case's formula says.
"""

from mpmath import mp, mpf

from duals import detached, dual, exp, grid, sigma, text, variable


class Sequence:
    """The scored tokens of one row; l are duals in the row's positions."""

    def __init__(self, row, batch):
        mask = batch["mask"][row]
        self.at = [t for t, scored in enumerate(mask) if scored]
        pick = lambda name: [mpf(batch[name][row][t]) for t in self.at]
        self.l = [variable(mpf(batch["logp"][row][t]), f"{row},{t}") for t in self.at]
        self.old, self.ref = pick("old"), pick("ref")
        adv = batch["adv"][row]
        self.adv = [mpf(a) for a in (pick("adv") if isinstance(adv, list) else [adv] * len(self.at))]

    def ratios(self):
        return [l - o for l, o in zip(self.l, self.old)]

    def summed(self):
        return sum(self.ratios(), dual(0))

    def mean(self):
        return self.summed() / max(1, len(self.at))


def losses_of():
    """By the names of cases: f(sequence, params) -> loss of each token."""

    def smaller(a, b):
        return a if a.value <= b.value else b

    def clipped(x, a, low, high, most=None):
        """-min(A r, A clip(r)), r <= most where it is not clipped; whole slopes on bounds."""
        r = exp(x)
        capped = r if most is None or r.value <= most else dual(most)
        held = r if low <= r.value <= high else dual(low if r.value < low else high)
        first, second = -a * capped, -a * held
        return first if first.value > second.value else second

    def k3(s, t):
        y = s.ref[t] - s.l[t]
        return exp(y) - y - 1

    def penalty(s, t, p):
        if not p.get("beta"):
            return dual(0)
        corrected = exp(s.l[t] - s.old[t]) if p.get("use_bias_correction_kl") else 1
        return p["beta"] * corrected * k3(s, t)

    def surrogate(log_ratios):
        def f(s, p):
            bounds = (1 - p["epsilon"], 1 + p["epsilon_high"], p.get("delta"))
            return [clipped(x, a, *bounds) + penalty(s, t, p)
                    for t, (x, a) in enumerate(zip(log_ratios(s), s.adv))]
        return f

    def own(s):
        return s.ratios()

    def of_sequence(s):
        return [s.mean()] * len(s.at)

    def of_both(s):
        return [x - detached(x) + detached(s.mean()) for x in s.ratios()]

    def rloo(s, p):
        x = s.summed()
        return [clipped(x, a, 1 - p["epsilon"], 1 + p["epsilon_high"]) for a in s.adv]

    def ppo(s, p):
        def one(x, a):
            loss = clipped(x, a, 1 - p["cliprange"], 1 + p["cliprange"])
            if a < 0 and p.get("dual_clip") and loss.value > -p["dual_clip"] * a:
                loss = dual(-p["dual_clip"] * a)
            return loss
        return [one(x, a) for x, a in zip(s.ratios(), s.adv)]

    def cispo(s, p):
        return [-smaller(detached(exp(x)), dual(p["epsilon_high"])) * a * l
                for x, a, l in zip(s.ratios(), s.adv, s.l)]

    def sapo(s, p):
        def one(x, a):
            tau = p["sapo_temperature_pos"] if a > 0 else p["sapo_temperature_neg"]
            return -a * 4 / tau * sigma(tau * (exp(x) - 1))
        return [one(x, a) for x, a in zip(s.ratios(), s.adv)]

    def vespo(s, p):
        held = sum(min(max(x.value, mpf(-20)), mpf(20)) for x in s.ratios())
        log_w = min(max(held, mp.log(mpf(10)**-8)), mpf(20))

        def one(a, l):
            k, lam = (p["k_neg"], p["lambda_neg"]) if a < 0 else (p["k_pos"], p["lambda_pos"])
            return -mp.exp(lam + k * log_w - lam * mp.exp(log_w)) * a * l
        return [one(a, l) for a, l in zip(s.adv, s.l)]

    def gmpo(s, p):
        def held(x, a):
            if a > 0:
                return x if x.value <= p["epsilon_high"] else dual(p["epsilon_high"])
            return x if x.value >= -p["epsilon"] else dual(-p["epsilon"])
        mean = sum((held(x, a) for x, a in zip(s.ratios(), s.adv)), dual(0)) / max(1, len(s.at))
        return [-a * exp(mean) for a in s.adv]

    def dppo(s, p):
        def one(l, old, a):
            moved = mp.exp(l.value) - mp.exp(old)
            outside = moved > p["epsilon_high"] if a > 0 else moved < -p["epsilon"]
            weight = min(mp.exp(l.value - old), p["clip_ratio_c"])
            return dual(0) if outside else -weight * a * l
        return [one(l, old, a) for l, old, a in zip(s.l, s.old, s.adv)]

    def dro(s, p):
        return [-a * l + p["beta"] / 2 * x * x for a, l, x in zip(s.adv, s.l, s.ratios())]

    def dft(s, p):
        return [-mp.exp(l.value) * l for l in s.l]

    def estimate(f):
        return lambda s, p: [f(s, t, s.l[t] - s.ref[t]) for t in range(len(s.at))]

    token, sequence = surrogate(own), surrogate(of_sequence)
    return {"grpo": token, "bnpo": token, "dr_grpo": token, "dapo": token, "gspo": sequence,
            "gspo_token": surrogate(of_both), "luspo": sequence, "rloo": rloo, "ppo": ppo,
            "cispo": cispo, "sapo": sapo, "vespo": vespo, "gmpo": gmpo, "dppo": dppo, "dro": dro,
            "sft": lambda s, p: [-l for l in s.l], "dft": dft,
            "k1": estimate(lambda s, t, x: x), "k2": estimate(lambda s, t, x: x * x / 2),
            "k3": estimate(lambda s, t, x: k3(s, t))}


# How a case's loss is averaged.
AVERAGES = {"grpo": "sequence_means", "sapo": "sequence_means", "gspo": "sequence_means",
            "gspo_token": "sequence_means", "gmpo": "sequence_means", "rloo": "sequence_means",
            "luspo": "sequences", "dr_grpo": "sequences"}

CLIP = {"epsilon": 0.2, "epsilon_high": 0.2}
VESPO = {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0}
SAPO = {"sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05}
# (name, options, params, batches)
CASES = [
    ("sft", "", {}, "random long empty"), ("dft", "", {}, "random long"),
    ("grpo", "", CLIP, "random long edge empty by_token on_policy"),
    ("grpo", "kl", {**CLIP, "beta": 0.04}, "random near"),
    ("grpo", "kl_corrected", {**CLIP, "beta": 0.04, "use_bias_correction_kl": 1}, "random near"),
    ("grpo", "two_sided", {"epsilon": 0.2, "epsilon_high": 0.28, "delta": 1.5}, "random edge"),
    ("grpo", "delta_inside", {"epsilon": 0.2, "epsilon_high": 0.5, "delta": 1.25}, "random edge"),
    ("bnpo", "", CLIP, "random empty"),
    ("bnpo", "epsilon_0", {"epsilon": 0.0, "epsilon_high": 0.0}, "on_policy"),
    ("dapo", "clip_higher", {"epsilon": 0.2, "epsilon_high": 0.28}, "random edge"),
    ("dr_grpo", "", {**CLIP, "max_completion_length": 16.0}, "random empty"),
    ("gspo", "", CLIP, "random long by_token"),
    ("gspo", "paper", {"epsilon": 0.0003, "epsilon_high": 0.0004}, "near"),
    ("gspo_token", "", CLIP, "random by_token"), ("luspo", "", CLIP, "random long"),
    ("rloo", "", CLIP, "random near"), ("ppo", "", {"cliprange": 0.2}, "random edge"),
    ("ppo", "dual_clip", {"cliprange": 0.2, "dual_clip": 3.0}, "random edge"),
    ("cispo", "0.2", {"epsilon_high": 0.2}, "random"), ("cispo", "5", {"epsilon_high": 5.0}, "random edge"),
    ("sapo", "", SAPO, "random wide on_policy"), ("vespo", "", VESPO, "random on_policy"),
    ("gmpo", "", {"epsilon": 0.4, "epsilon_high": 0.4}, "random edge wide"),
    ("dppo", "", {**CLIP, "clip_ratio_c": 20.0}, "random edge"),
    ("dppo", "tight", {"epsilon": 0.02, "epsilon_high": 0.03, "clip_ratio_c": 1.25}, "random edge"),
    ("dro", "", {"beta": 0.05}, "random wide"),
    ("k1", "", {}, "random wide"), ("k2", "", {}, "random wide"), ("k3", "", {}, "random near wide"),
]


def batches_of(rng):
    def batch(rows, length, spread, holes=0.2, by_token=False):
        old = [[grid(rng, -4, -0.25) for _ in range(length)] for _ in range(rows)]
        move = lambda x: min(x + grid(rng, -spread, spread), -2.0**-10)
        return {"logp": [[move(x) for x in row] for row in old], "old": old,
                "ref": [[move(x) for x in row] for row in old],
                "mask": [[int(rng.random() >= holes) for _ in range(length)] for _ in range(rows)],
                "adv": [[grid(rng, -2, 2) for _ in range(length)] if by_token else grid(rng, -2, 2)
                        for _ in range(rows)]}
    batches = {"random": batch(5, 6, 1.0), "long": batch(2, 37, 0.5), "near": batch(4, 5, 2.0**-8),
               "by_token": batch(3, 5, 1.0, by_token=True), "edge": batch(4, 9, 2.5, holes=0),
               "wide": batch(2, 6, 30.0, holes=0), "empty": batch(3, 4, 1.0, holes=0)}
    batches["empty"]["mask"][1] = [0] * 4
    batches["on_policy"] = batch(3, 5, 1.0)
    batches["on_policy"]["old"] = batches["on_policy"]["logp"]
    return batches


def averaged(values, how, length):
    """Sequences without scored tokens are counted, as trainers do that mean over rows."""
    total = dual(0)
    tokens = max(1, sum(len(v) for v in values))
    for v in values:
        weight = {"tokens": mpf(1) / tokens, "sequences": mpf(1) / len(values) / length,
                  "sequence_means": mpf(1) / len(values) / max(1, len(v))}[how]
        total = total + sum(v, dual(0)) * weight
    return total


def tokens(rng):
    batches, losses, cases = batches_of(rng), losses_of(), []
    for name, option, params, where in CASES:
        exact = {k: mpf(v) for k, v in params.items()}
        for batch in where.split():
            inputs = batches[batch]
            rows = [Sequence(b, inputs) for b in range(len(inputs["mask"]))]
            values = [losses[name](s, exact) for s in rows]
            loss = averaged(values, AVERAGES.get(name, "tokens"), exact.get("max_completion_length", 1))
            columns = range(len(inputs["mask"][0]))
            by_position = [dict(zip(s.at, v)) for s, v in zip(rows, values)]
            cases.append({
                "name": f"{name}{'_' + option if option else ''}@{batch}", "family": name, "batch": batch,
                "params": params, "average": AVERAGES.get(name, "tokens"), "loss": text(loss.value),
                "value": [[text(v[t].value) if t in v else None for t in columns] for v in by_position],
                "d_logp": [[text(mpf(loss.slopes.get(f"{b},{t}", 0))) for t in columns]
                           for b in range(len(rows))]})
    return {"batches": batches, "cases": cases}
