"""Thumbs: f(e, **params), where e has P, u, n, label, and z is a variable."""

from by_token import HUMANLINE, humanline_sum, side_of, token_examples_of, token_slopes
from duals import F, Sample, answer, exact, formula, grid, log_sigma, sigma, square, text, variable


def signed(e, x):
    return x if e.label else -x


def weighted(e, x, desirable_weight=1, undesirable_weight=1):
    return x * (desirable_weight if e.label else undesirable_weight)


UNPAIRED = {
    "kto": lambda e, beta, z, **w: weighted(e, 1 - sigma(signed(e, beta * (e.u - e.z))), **w),
    "kto_logsigmoid": lambda e, beta, z, **w:
        weighted(e, -log_sigma(signed(e, beta * (e.u - e.z))), **w),
    "kto_surprisal": lambda e, beta, z: 1 - sigma(signed(e, beta * (e.P / e.n - e.z))),
    "apo_zero_unpaired": lambda e, beta, **w: weighted(e, 1 - sigma(signed(e, beta * e.u)), **w),
    "bco": lambda e, beta, delta: -log_sigma(signed(e, beta * e.u - e.z)),
    "a2po": lambda e, beta2, vstar: square(beta2 * e.u - (F(e.label) - vstar)),
}
# By token: e has the list u.
TOKEN_EXAMPLES = {
    "humanline_kto": lambda e, beta, z, log_epsilon_P, log_epsilon_R, **w:
        weighted(e, 1 - sigma(signed(e, beta * (humanline_sum(e, log_epsilon_P, log_epsilon_R) -
                                                e.z))), **w),
}
ONE = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
TWO = {"desirable_weight": 1.5, "undesirable_weight": 0.7}
UNPAIRED_CASES = [
    *((f"kto_z{z}_w{w['desirable_weight']}", {"beta": 0.1, "z": z, **w})
      for z in (0.0, 1.5, 40.0) for w in (ONE, TWO)),
    ("kto_logsigmoid_z1.5", {"beta": 0.1, "z": 1.5, **ONE}),
    ("kto_logsigmoid_weighted", {"beta": 0.1, "z": 1.5, **TWO}),
    ("kto_surprisal_z0.0", {"beta": 0.1, "z": 0.0}),
    ("kto_surprisal_z-2.25", {"beta": 0.1, "z": -2.25}),
    ("apo_zero_unpaired", {"beta": 0.1, **ONE}),
    ("apo_zero_unpaired_weighted", {"beta": 0.1, **TWO}),
    ("bco_delta0.0", {"beta": 0.1, "delta": 0.0}),
    ("bco_delta0.37", {"beta": 0.1, "delta": 0.37}),
    ("bco_delta-2.0", {"beta": 0.1, "delta": -2.0}),
    ("a2po_beta2_0.001", {"beta2": 0.001, "vstar": 0.328125}),
    ("a2po_beta2_0.1", {"beta2": 0.1, "vstar": 0.328125}),
]
TOKEN_EXAMPLE_CASES = [
    ("humanline_kto_z0.0", {"beta": 0.1, "z": 0.0, **ONE, **HUMANLINE}),
    ("humanline_kto_z1.5_weighted", {"beta": 0.1, "z": 1.5, **TWO, **HUMANLINE}),
]


def examples_of(rng):
    rows = []

    def add(pol, u):
        for label in (1, 0):
            rows.append([pol, pol - u, rng.randint(1, 120), label])

    for _ in range(12):
        add(grid(rng, -200, -1), grid(rng, -15, 15))
    for u in (0.0, 2.0**-40, -(2.0**-30), 1.5, 40.0, 100.0, -100.0, 480.0, -480.0, 3000.0, -3000.0):
        add(grid(rng, -60, -1) - abs(u), u)
    return rows


def unpaired(rng):
    examples = examples_of(rng)
    cases = []
    for name, params in UNPAIRED_CASES:
        rows = []
        for pol, ref, n, label in examples:
            P = variable(pol, "P")
            z = variable(params.get("z", params.get("delta", 0.0)), "z")
            e = Sample(P=P, u=P - ref, n=n, label=label, z=z)
            rows.append(answer(formula(UNPAIRED, name)(e, **exact(params)), "Pz"))
        cases.append({"name": name, "params": params, "outputs": ["loss", "d_pol", "d_z"],
                      "rows": rows})
    token_examples = token_examples_of(rng)
    for name, params in TOKEN_EXAMPLE_CASES:
        rows = []
        for example in token_examples:
            e = side_of(example["pol"], example["ref"], [], "P")
            e.label, e.z = example["label"], variable(params["z"], "z")
            loss = formula(TOKEN_EXAMPLES, name)(e, **exact(params))
            rows.append([text(loss.value), token_slopes(loss, e, "P"), text(loss.slopes["z"])])
        cases.append({"name": name, "params": params, "inputs": "token_examples",
                      "outputs": ["loss", "d_pol[t]", "d_z"], "rows": rows})
    return {"example_columns": ["pol", "ref", "len", "label"], "examples": examples,
            "token_examples": token_examples, "cases": cases}
