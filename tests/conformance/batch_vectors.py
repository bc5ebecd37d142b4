"""What couples a batch: f(inputs, **params) gives what is expected, as numbers and lists of them."""

from mpmath import mp, mpf

from duals import (F, Dual, Sample, exact, grid, log_sigma, mean, sigma, square, text, variable)
from links import smoothed
from pair_vectors import mixed


def deviation(numbers, less=1):
    """Of a sample (less = 1) or of a population (less = 0); 0 of a single number."""
    if len(numbers) < 2:
        return mpf(0)
    return mp.sqrt(sum((x - mean(numbers))**2 for x in numbers) / (len(numbers) - less))


def sides(inputs):
    w = [variable(x, f"w{i}") for i, x in enumerate(inputs["pol_w"])]
    l = [variable(x, f"l{i}") for i, x in enumerate(inputs["pol_l"])]
    return w, l, inputs["ref_w"], inputs["ref_l"]


def with_gradients(loss, inputs):
    return {"loss": text(loss.value),
            **{f"d_pol_{side}": [text(loss.slopes.get(f"{side}{i}", mpf(0)))
                                 for i in range(len(inputs[f"pol_{side}"]))] for side in "wl"}}


def by_value(duals):
    return sorted(duals, key=lambda d: d.value)  # stable


def aot(inputs, beta, label_smoothing):
    w, l, ref_w, ref_l = sides(inputs)
    policy = by_value([a - b for a, b in zip(w, l)])
    reference = sorted(F(a) - F(b) for a, b in zip(ref_w, ref_l))
    terms = [smoothed(beta * (p - r), label_smoothing) for p, r in zip(policy, reference)]
    return with_gradients(sum(terms) / len(terms), inputs)


def aot_unpaired(inputs, beta, label_smoothing):
    w, l, ref_w, ref_l = sides(inputs)
    up = by_value([a - r for a, r in zip(w, ref_w)])
    down = by_value([b - r for b, r in zip(l, ref_l)])
    terms = [smoothed(beta * (a - b), label_smoothing) for a, b in zip(up, down)]
    return with_gradients(sum(terms) / len(terms), inputs)


def kto_terms(up, down, z_up, z_down, beta, weights=(1, 1)):
    """1 - sigma(u - z) of thumbs up, 1 - sigma(z - u) of thumbs down."""
    return ([weights[0] * sigma(-(beta * (u - z_up))) for u in up] +
            [weights[1] * sigma(beta * (u - z_down)) for u in down])


def simple_kto(inputs, beta):
    """Each class against the mean of the other, not below 0 and attached: at exactly 0 with slope 1, and
    0 where there is no other."""
    w, l, ref_w, ref_l = sides(inputs)
    up, down = [a - r for a, r in zip(w, ref_w)], [b - r for b, r in zip(l, ref_l)]

    def baseline(ratios):
        z = mean(ratios) if ratios else Dual(0)
        return z if z.value >= 0 else Dual(0)

    z_r, z_c = baseline(down), baseline(up)
    terms = kto_terms(up, down, z_r, z_c, beta)
    return {**with_gradients(sum(terms) / len(terms), inputs), "z_c": text(z_c.value),
            "z_r": text(z_r.value)}


def kto_mismatched(inputs, beta, desirable_weight, undesirable_weight, rotation):
    """z = max(0, mean over i of the log-ratio of completion i + rotation under prompt i), detached."""
    n, shift = len(inputs["label"]), int(rotation)
    ratio = [[F(p) - F(r) for p, r in zip(*rows)] for rows in zip(inputs["pol"], inputs["ref"])]
    z = max(mpf(0), mean([ratio[i][(i + shift) % n] for i in range(n)]))
    own = [variable(inputs["pol"][i][i], i) - inputs["ref"][i][i] for i in range(n)]
    up = [u for u, label in zip(own, inputs["label"]) if label]
    down = [u for u, label in zip(own, inputs["label"]) if not label]
    terms = kto_terms(up, down, z, z, beta, (desirable_weight, undesirable_weight))
    loss = sum(terms) / n
    return {"loss": text(loss.value), "z": text(z), "d_pol": [text(loss.slopes[i]) for i in range(n)]}


def bco_sequence(batches, beta):
    """delta is the mean of beta u over every example so far, this batch's included; detached."""
    seen, answers = [], []
    for inputs in batches:
        w, l, ref_w, ref_l = sides(inputs)
        up, down = [a - r for a, r in zip(w, ref_w)], [b - r for b, r in zip(l, ref_l)]
        seen += [beta * u.value for u in up + down]
        delta = mean(seen)
        terms = [-log_sigma(beta * u - delta) for u in up]
        terms += [-log_sigma(-(beta * u - delta)) for u in down]
        answers.append({"delta": text(delta), **with_gradients(sum(terms) / len(terms), inputs)})
    return answers


def advantages(inputs, group_size):
    groups = [[F(r) for r in group] for group in inputs["rewards"]]
    all_of = deviation([r for group in groups for r in group])

    def each(f):
        return [[text(f(r, group)) for r in group] for group in groups]

    def others(r, group):
        return (sum(group) - r) / (len(group) - 1)

    return {"grpo_group": each(lambda r, g: (r - mean(g)) / (deviation(g) + F(1e-4))),
            "grpo_batch": each(lambda r, g: (r - mean(g)) / (all_of + F(1e-4))),
            "dr_grpo": each(lambda r, g: r - mean(g)),
            "halos_grpo": each(lambda r, g: (r - mean(g)) / (deviation(g, 0) + F(1e-2))),
            "rloo": each(lambda r, g: r - others(r, g))}


def gdpo(inputs, group_size, weights):
    sums = [[mpf(0)] * group_size for _ in inputs["components"][0]]
    for weight, component in zip(weights, inputs["components"]):
        for g, group in enumerate(component):
            rewards = [F(r) for r in group]
            for i, r in enumerate(rewards):
                sums[g][i] += F(weight) * (r - mean(rewards)) / (deviation(rewards) + F(1e-4))
    every = [s for group in sums for s in group]
    scale = deviation(every) + F(1e-4)
    return {"gdpo": [[text((s - mean(every)) / scale) for s in group] for group in sums]}


def mixture(inputs, loss_type, loss_weights, beta):
    """Means over pairs, and for sft one over the tokens of the whole batch."""
    n = len(inputs["pol_w"])
    w = [variable(x, f"w{i}") for i, x in enumerate(inputs["pol_w"])]
    l = [variable(x, f"l{i}") for i, x in enumerate(inputs["pol_l"])]
    pairs = [Sample(u_w=a - r, u_l=b - s)
             for a, b, r, s in zip(w, l, inputs["ref_w"], inputs["ref_l"])]
    of_pairs = [(name, x) for name, x in zip(loss_type, loss_weights) if name != "sft"]
    loss = sum(mixed(p, *zip(*of_pairs), beta) for p in pairs) / n
    for name, weight in zip(loss_type, loss_weights):
        if name == "sft":
            loss = loss - F(weight) * sum(w) / sum(inputs["len_w"])
    return {"loss": text(loss.value),
            **{f"d_pol_{side}": [text(loss.slopes[f"{side}{i}"]) for i in range(n)]
               for side in "wl"}}


def ppo_value(inputs, cliprange_value):
    terms = []
    shape = [(b, t) for b, row in enumerate(inputs["value"]) for t in range(len(row))]
    for b, t in shape:
        if not inputs["mask"][b][t]:
            continue
        v, old, returns = (inputs[k][b][t] for k in ("value", "old_value", "returns"))
        x, low, high = variable(v, f"{b},{t}"), F(old) - cliprange_value, F(old) + cliprange_value
        held = Dual(low) if x.value < low else Dual(high) if x.value > high else x
        both = square(x - returns), square(held - returns)
        terms.append(both[1] if both[1].value > both[0].value else both[0])
    loss = sum(terms) / (2 * len(terms))
    return {"loss": text(loss.value),
            "d_value": [[text(loss.slopes.get(f"{b},{t}", mpf(0))) for t in range(len(row))]
                        for b, row in enumerate(inputs["value"])]}


def batch(rng):
    cases = []

    def add(family, name, params, inputs, f):
        cases.append({"name": name, "family": family, "params": params, "inputs": inputs,
                      "expected": f(inputs, **exact(params))})

    def pairs(n):
        return {key: [grid(rng, -90, -1) for _ in range(n)]
                for key in ("pol_w", "ref_w", "pol_l", "ref_l")}

    def table(rows, columns, low, high):
        return [[grid(rng, low, high) for _ in range(columns)] for _ in range(rows)]

    for f in (aot, aot_unpaired):
        for n in (1, 2, 3, 7, 16):
            for eps in (0.0, 0.1):
                add(f.__name__, f"{f.__name__}_{n}_eps{eps}", {"beta": 0.1, "label_smoothing": eps},
                    pairs(n), f)
        ties = {"pol_w": [-4.0, -6.0, -9.0, -5.0], "pol_l": [-5.0, -7.0, -10.0, -3.0],
                "ref_w": [-3.0, -5.0, -8.0, -1.0], "ref_l": [-9.0, -2.0, -14.0, -1.0]}
        add(f.__name__, f"{f.__name__}_ties_4_eps0.0", {"beta": 0.1, "label_smoothing": 0.0}, ties, f)
    for name in "ab":
        batches = [{**pairs(up), **{k: v for k, v in pairs(down).items() if k.endswith("_l")}}
                   for up, down in ((1, 1), (2, 1), (3, 4), (0, 2), (5, 5))]
        add("bco_sequence", f"bco_running_{name}", {"beta": 0.1}, batches, bco_sequence)
    for n in (1, 3, 7):
        inputs = {**pairs(n), "len_w": [rng.randint(1, 120) for _ in range(n)]}
        add("mixture", f"mpo_batch_{n}", {"beta": 0.1, "loss_type": ["sigmoid", "bco_pair", "sft"],
                                          "loss_weights": [0.8, 0.2, 1.0]}, inputs, mixture)
    for size in (2, 4, 7):
        rewards = table(3, size, -2, 2) + [[1.0] * size]
        add("advantages", f"advantages_G{size}", {"group_size": size}, {"rewards": rewards},
            advantages)
        add("gdpo", f"gdpo_G{size}", {"group_size": size, "weights": [1.0, 0.5, -0.25]},
            {"components": [table(4, size, -2, 2), table(3, size, 0, 9) + [[3.0] * size],
                            table(4, size, -1, 1)]}, gdpo)
    values = {key: table(3, 9, -2, 2) for key in ("value", "returns")}
    values["old_value"] = [[v + grid(rng, -0.5, 0.5) for v in row] for row in values["value"]]
    values["mask"] = [[1] * 9, [1] * 6 + [0] * 3, [0, 1] * 4 + [1]]
    add("value", "ppo_value", {"cliprange_value": 0.2}, values, ppo_value)

    def near(rows, columns, by):  # log-probs of references, and policies that many nats above
        ref = table(rows, columns, -90, -1)
        return {"ref": ref, "pol": [[r + grid(rng, by - 4, by + 4) for r in row] for row in ref]}

    for up, down in ((1, 1), (2, 3), (7, 7), (3, 0), (0, 3)):
        for name, by in (("above", 5), ("below", -5)):
            w, l = near(1, up, by), near(1, down, by)
            add("simple_kto", f"simple_kto_{up}x{down}_{name}", {"beta": 0.1},
                {"pol_w": w["pol"][0], "ref_w": w["ref"][0], "pol_l": l["pol"][0],
                 "ref_l": l["ref"][0]}, simple_kto)
    weighted = {"beta": 0.1, "desirable_weight": 1.5, "undesirable_weight": 0.7}
    for n in (2, 3, 7):
        for name, by in (("above", 5), ("below", -5)):
            for rotation in (1, -1):
                inputs = {**near(n, n, by), "label": [rng.randint(0, 1) for _ in range(n)]}
                add("kto_mismatched", f"kto_mismatched_{n}_{name}_by{rotation}",
                    {**weighted, "rotation": rotation}, inputs, kto_mismatched)
    for label in (0, 1):
        add("kto_mismatched", f"kto_mismatched_3_all{label}", {**weighted, "rotation": 1},
            {**near(3, 3, 5), "label": [label] * 3}, kto_mismatched)
    return {"cases": cases}
