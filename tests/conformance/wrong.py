"""Formulas that were found in the wild and are wrong, by name: `check` holds losses that fail against
them. Each gives the loss of one row in fp64, as the project would."""

import math


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def exp(x):
    """Overflows as floating-point numbers do."""
    return math.exp(x) if x < 709.7 else math.inf


def square(x):
    return x * x  # x**2 raises where this overflows


def softplus(x):
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


class Pair:
    def __init__(self, columns, row):
        c = dict(zip(columns, row))
        self.u_w, self.u_l = c["pol_w"] - c["ref_w"], c["pol_l"] - c["ref_l"]
        self.n_w, self.n_l = c["len_w"], c["len_l"]
        self.p_w, self.p_l = c["pol_w"] / c["len_w"], c["pol_l"] / c["len_l"]
        self.d, self.mean_d = self.u_w - self.u_l, self.u_w / self.n_w - self.u_l / self.n_l


def naive_log_odds(p):
    return p - (math.log1p(-math.exp(p)) if p < 0 and math.exp(p) < 1 else -math.inf)


def without_constant(u, f_divergence=None, alpha=1.0, **_):
    """f'(e^u) as it was often written: differences of sums do not notice."""
    if f_divergence == "js_divergence":
        return -softplus(-u)
    c = -1.0 if f_divergence == "forward_kl" else alpha - 1
    return exp(c * u) / c if c else u


def mean_without_constant(p, **params):
    return without_constant(p.u_w, **params) / p.n_w - without_constant(p.u_l, **params) / p.n_l


NO_CONSTANT = "an f-divergence without its constant, divided by lengths"


def log_odds(p):
    return p - math.log(-math.expm1(p))


# stem of the case: [(name, loss of one pair)]
PAIRED = {
    "ipo": [
        ("IPO squared around 1/(2 beta) of the scaled margin",
         lambda p, beta, **_: (beta * p.mean_d - 1 / (2 * beta))**2),
        ("IPO squared around 1/(2 beta) of the scaled margin, of sums",
         lambda p, beta, **_: (beta * p.d - 1 / (2 * beta))**2),
        ("IPO over sums where its authors average over tokens",
         lambda p, beta, **_: (p.d - 1 / (2 * beta))**2),
        ("IPO over means where sums are asked for",
         lambda p, beta, **_: (p.mean_d - 1 / (2 * beta))**2),
        (NO_CONSTANT, lambda p, beta, **f: square(mean_without_constant(p, **f) - 1 / (2 * beta))),
    ],
    "sigmoid": [
        ("log1p(exp(-m)) overflow", lambda p, beta, **_: math.log1p(exp(-beta * p.d))),
        ("mean log-ratios in a loss of sums", lambda p, beta, **_: softplus(-beta * p.mean_d)),
        ("1 - sigmoid(m) for -log sigmoid(m)", lambda p, beta, **_: sigmoid(-beta * p.d)),
    ],
    "sigmoid_norm": [
        ("sum log-ratios in a loss of means", lambda p, beta, **_: softplus(-beta * p.d)),
        (NO_CONSTANT, lambda p, beta, **f: softplus(-beta * mean_without_constant(p, **f))),
    ],
    "cdpo": [("label smoothing is ignored", lambda p, beta, **_: softplus(-beta * p.d))],
    "robust": [("conservative DPO for robust DPO",
                lambda p, beta, label_smoothing, **_: softplus(-beta * p.d) +
                label_smoothing * beta * p.d)],
    "discopop": [("exp(-m) times sigmoid(m / tau), which is no number far out",
                  lambda p, beta, discopop_tau, **_: softplus(-beta * p.d) *
                  (1 - sigmoid(beta * p.d / discopop_tau)) +
                  exp(-beta * p.d) * sigmoid(beta * p.d / discopop_tau))],
    "cpo_sigmoid_nll": [
        ("the negative log-likelihood is a sum where a mean over tokens is asked for",
         lambda p, beta, cpo_alpha:
         softplus(-beta * (p.p_w * p.n_w - p.p_l * p.n_l)) - cpo_alpha * p.p_w * p.n_w)],
    "tpo_sigmoid": [
        ("the gold completion is left out", lambda p, beta, label_smoothing, **_:
         softplus(-beta * (p.p_w * p.n_w - p.p_l * p.n_l)) +
         label_smoothing * beta * (p.p_w * p.n_w - p.p_l * p.n_l))],
    "orpo": [("the prompt is left out of TRL's negative log-likelihood", lambda p, beta=0, **_:
              beta * softplus(log_odds(p.p_l) - log_odds(p.p_w)) - p.p_w)],
    "orpo_or_term": [("log1p(-exp(p)), which is infinite at p = 0",
              lambda p, beta: beta * softplus(naive_log_odds(p.p_l) - naive_log_odds(p.p_w)))],
    "simpo_halos": [("gamma / beta taken for gamma",
                     lambda p, beta, gamma_beta_ratio:
                     softplus(-(beta * (p.p_w - p.p_l) - gamma_beta_ratio)))],
    "simpo_trl": [("gamma taken for gamma / beta",
                   lambda p, beta, gamma, **_: softplus(-beta * (p.p_w - p.p_l - gamma)))],
}


class Example:
    def __init__(self, columns, row, mean_desirable):
        c = dict(zip(columns, row))
        self.u, self.sign = c["pol"] - c["ref"], 1 if c["label"] else -1
        self.mean_desirable = mean_desirable


def weight(e, desirable_weight=1, undesirable_weight=1, **_):
    return desirable_weight if e.sign > 0 else undesirable_weight


def kto(z):
    return lambda e, beta, **p: weight(e, **p) * sigmoid(-beta * e.sign * (e.u - z(e, p)))


UNPAIRED = {
    "kto": [
        ("KTO with z0 = ln 2", kto(lambda e, p: math.log(2))),
        ("KTO with z0 = 0", kto(lambda e, p: 0.0)),
        ("KTO with z0 = the mean log-ratio of the desirable",
         kto(lambda e, p: max(0.0, e.mean_desirable))),
        ("per-sample KL", kto(lambda e, p: max(0.0, -e.u))),
        ("per-sample KL", kto(lambda e, p: -e.u)),
        ("-log sigmoid for 1 - sigmoid",
         lambda e, beta, z=0.0, **p: weight(e, **p) * softplus(-beta * e.sign * (e.u - z))),
        ("class weights are ignored",
         lambda e, beta, z=0.0, **p: sigmoid(-beta * e.sign * (e.u - z))),
        ("z in units of beta", lambda e, beta, z=0.0, **p:
         weight(e, **p) * sigmoid(-e.sign * (beta * e.u - z))),
    ],
}


def same(a, b):
    if a is None or math.isnan(a) or math.isnan(b):
        return (a is None or math.isnan(a)) and math.isnan(b)
    if math.isinf(a) or math.isinf(b):
        return a == b or (math.isinf(a) and abs(b) > 3e38) or (math.isinf(b) and abs(a) > 3e38)
    return abs(a - b) <= 1e-4 * abs(b) + 1e-12


def value(formula, *arguments, **params):
    try:
        return formula(*arguments, **params)
    except (OverflowError, ValueError):
        return math.nan


def samples_of(vectors):
    """The inputs of a file of vectors, as the formulas take them."""
    if "pairs" in vectors:
        return [Pair(vectors["pair_columns"], row) for row in vectors["pairs"]]
    columns = vectors["example_columns"]
    named = [dict(zip(columns, row)) for row in vectors["examples"]]
    desirable = [c["pol"] - c["ref"] for c in named if c["label"]]
    mean = sum(desirable) / len(desirable)
    return [Example(columns, row, mean) for row in vectors["examples"]]


def name_of(case, rows, vectors):
    """The name of the wrong formula that gives the losses of these rows, or None."""
    if case.get("inputs") not in ("pairs", None) or "batches" in vectors:
        return None
    table = PAIRED if case.get("inputs") == "pairs" else UNPAIRED
    stems = [s for s in table if case["name"] == s or case["name"].startswith(s + "_")]
    samples = samples_of(vectors)
    for name, formula in table[max(stems, key=len)] if stems else []:
        if len(rows) == len(samples) and all(
                same(row[0], value(formula, sample, **case["params"]))
                for row, sample in zip(rows, samples)):
            return name
    return None
