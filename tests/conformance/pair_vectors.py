"""Pairs: f(p, **params), where p has P_w, P_l, u_w, u_l, n_w, n_l and more."""

import random

from mpmath import mp

from by_token import TOKEN_PAIR_CASES, TOKEN_PAIRS, side_of, token_pairs_of, token_slopes
from duals import (F, Sample, answer, exact, exp, formula, grid, log, log_sigma, relu, sigma, square,
                   text, variable)
from links import discopop, exo, robust, smoothed


def log_odds(p):
    return p - log(1 - exp(p))


def shaped(p, alpha):
    return (1 - exp(-alpha * p)) / alpha


def score(u, divergence, alpha=None):
    """f'(e^u) of the divergence, with the constant that makes it 0 at u = 0."""
    if divergence == "forward_kl":
        return 1 - exp(-u)
    if divergence == "js_divergence":
        return mp.log(2) - log(1 + exp(-u))
    return u if alpha == 1 else (exp((alpha - 1) * u) - 1) / (alpha - 1)


def difference(p):
    return p.u_w - p.u_l


def mean_difference(p):
    return p.u_w / p.n_w - p.u_l / p.n_l


def policy_difference(p):
    return p.P_w - p.P_l


def mean_policy_difference(p):
    return p.P_w / p.n_w - p.P_l / p.n_l


def nll(p):
    """Per token of the chosen completion; of the batch that this pair is by itself."""
    return -p.P_w / p.n_w


def gold_nll(p):
    return -p.gold / p.gold_len


def odds_ratio(p, weight):
    return -weight * log_sigma(log_odds(p.P_w / p.n_w) - log_odds(p.P_l / p.n_l))


def mixed(p, loss_type, loss_weights, beta, label_smoothing=0):
    terms = {"sigmoid": lambda: PAIRED["sigmoid"](p, beta),
             "bco_pair": lambda: PAIRED["bco_pair"](p, beta, 0),
             "hinge": lambda: PAIRED["hinge"](p, beta),
             "sppo_hard": lambda: PAIRED["sppo_hard"](p, beta),
             "exo_pair": lambda: PAIRED["exo_pair"](p, beta, label_smoothing),
             "sft": lambda: nll(p)}
    return sum(F(weight) * terms[name]() for name, weight in zip(loss_type, loss_weights))


PAIRED = {
    "sigmoid": lambda p, beta: smoothed(beta * difference(p), 0),
    "cdpo": lambda p, beta, label_smoothing: smoothed(beta * difference(p), label_smoothing),
    "dpo_margin_offset": lambda p, beta, offset: smoothed(beta * difference(p) - p.margin, 0),
    "robust": lambda p, beta, label_smoothing: robust(beta * difference(p), label_smoothing),
    "hinge": lambda p, beta: relu(1 - beta * difference(p)),
    "ipo_mean": lambda p, beta: square(mean_difference(p) - 1 / (2 * beta)),
    "ipo_sum": lambda p, beta: square(difference(p) - 1 / (2 * beta)),
    "exo_pair": lambda p, beta, label_smoothing: exo(beta * difference(p), label_smoothing),
    "nca_pair": lambda p, beta: (-log_sigma(beta * p.u_w) - log_sigma(-beta * p.u_w) / 2 -
                                 log_sigma(-beta * p.u_l) / 2),
    "bco_pair": lambda p, beta, delta: (-log_sigma(beta * p.u_w - delta) -
                                        log_sigma(-(beta * p.u_l - delta))),
    "sppo_hard": lambda p, beta: square(p.u_w - 1 / (2 * beta)) + square(p.u_l + 1 / (2 * beta)),
    "apo_zero": lambda p, beta: 1 - sigma(beta * p.u_w) + sigma(beta * p.u_l),
    "apo_down": lambda p, beta: sigma(beta * p.u_w) + 1 - sigma(beta * difference(p)),
    "discopop": lambda p, beta, discopop_tau: discopop(beta * difference(p), discopop_tau),
    "sigmoid_norm": lambda p, beta: smoothed(beta * mean_difference(p), 0),
    "neg_sigmoid": lambda p, beta: -sigma(beta * difference(p)),
    "slic": lambda p, beta, lambda_coef: relu(beta - policy_difference(p)) - lambda_coef * p.P_w,
    "cpo_sigmoid": lambda p, beta, cpo_alpha, label_smoothing=0:
        smoothed(beta * policy_difference(p), label_smoothing) + cpo_alpha * nll(p),
    "cpo_hinge": lambda p, beta, cpo_alpha:
        relu(1 - beta * policy_difference(p)) + cpo_alpha * nll(p),
    "cpo_ipo": lambda p, beta, cpo_alpha:
        square(mean_policy_difference(p) - 1 / (2 * beta)) + cpo_alpha * nll(p),
    "simpo_trl": lambda p, beta, gamma, cpo_alpha, label_smoothing=0:
        smoothed(beta * mean_policy_difference(p) - gamma, label_smoothing) + cpo_alpha * nll(p),
    "simpo_halos": lambda p, beta, gamma_beta_ratio:
        smoothed(beta * (mean_policy_difference(p) - gamma_beta_ratio), 0),
    "alphapo": lambda p, beta, gamma, alpha, cpo_alpha:
        smoothed(beta * (shaped(p.P_w / p.n_w, alpha) - shaped(p.P_l / p.n_l, alpha)) - gamma, 0),
    "orpo_or_term": lambda p, beta: odds_ratio(p, beta),
    "orpo": lambda p, beta: -(p.P_w + p.prompt) / (p.n_w + p.prompt_len) + odds_ratio(p, beta),
    "orpo_halos": lambda p, OR_scale: nll(p) + odds_ratio(p, OR_scale),
    "tpo_sigmoid": lambda p, beta, label_smoothing, tpo_alpha:
        smoothed(beta * policy_difference(p), label_smoothing) + tpo_alpha * gold_nll(p),
    "tpo_hinge": lambda p, beta, tpo_alpha:
        relu(1 - beta * policy_difference(p)) + tpo_alpha * gold_nll(p),
    "tpo_ipo": lambda p, beta, tpo_alpha:
        square(mean_policy_difference(p) - 1 / (2 * beta)) + tpo_alpha * gold_nll(p),
    "tpo_l": lambda p, beta, gamma, tpo_alpha:
        smoothed(beta * mean_policy_difference(p) - gamma, 0) + tpo_alpha * gold_nll(p),
    **{name: lambda p, **options: mixed(p, **options) for name in ("mix", "mpo", "rpo")},
}
REWARDS = {
    "bradley_terry": lambda p, margin, center_rewards_coefficient:
        (-log_sigma(p.r_w - p.r_l - (p.margin if margin else 0)) +
         center_rewards_coefficient * square(p.r_w + p.r_l)),
}
FORWARD, JS = ("forward_kl", {}), ("js_divergence", {})
ALPHAS = tuple(("alpha", {"alpha": alpha}) for alpha in (-0.5, 0.0, 0.5, 1.7))
PAIRED_CASES = [
    ("sigmoid_beta0.1", {"beta": 0.1}), ("sigmoid_beta0.5", {"beta": 0.5}),
    ("cdpo_eps0.1", {"beta": 0.1, "label_smoothing": 0.1}),
    ("cdpo_eps0.5", {"beta": 0.1, "label_smoothing": 0.5}),
    ("dpo_margin_offset", {"beta": 0.1, "offset": "margin"}),
    ("robust_eps0.0", {"beta": 0.1, "label_smoothing": 0.0}),
    ("robust_eps0.25", {"beta": 0.1, "label_smoothing": 0.25}),
    ("hinge_beta0.1", {"beta": 0.1}), ("hinge_beta0.125", {"beta": 0.125}),
    ("ipo_mean_beta0.1", {"beta": 0.1}), ("ipo_mean_beta0.5", {"beta": 0.5}),
    ("ipo_sum", {"beta": 0.1}),
    ("exo_pair_eps0.001", {"beta": 0.1, "label_smoothing": 0.001}),
    ("exo_pair_eps0.1", {"beta": 0.1, "label_smoothing": 0.1}),
    ("nca_pair", {"beta": 0.1}),
    ("bco_pair_delta0.0", {"beta": 0.1, "delta": 0.0}),
    ("bco_pair_delta0.37", {"beta": 0.1, "delta": 0.37}),
    ("sppo_hard", {"beta": 0.1}), ("apo_zero", {"beta": 0.1}), ("apo_down", {"beta": 0.1}),
    ("discopop_tau0.05", {"beta": 0.1, "discopop_tau": 0.05}),
    ("discopop_tau1.0", {"beta": 0.1, "discopop_tau": 1.0}),
    ("sigmoid_norm", {"beta": 0.1}), ("sigmoid_norm_beta5", {"beta": 5.0}),
    ("neg_sigmoid", {"beta": 0.1}),
    ("slic", {"beta": 1.0, "lambda_coef": 0.1}), ("slic_no_nll", {"beta": 1.0, "lambda_coef": 0.0}),
    ("cpo_sigmoid", {"beta": 0.1, "cpo_alpha": 0.0}),
    ("cpo_sigmoid_eps0.05", {"beta": 0.1, "label_smoothing": 0.05, "cpo_alpha": 0.0}),
    ("cpo_hinge", {"beta": 0.1, "cpo_alpha": 0.0}), ("cpo_ipo", {"beta": 0.1, "cpo_alpha": 0.0}),
    ("simpo_trl", {"beta": 2.0, "gamma": 0.5, "cpo_alpha": 0.0}),
    ("simpo_trl_eps0.05", {"beta": 2.0, "gamma": 0.5, "label_smoothing": 0.05, "cpo_alpha": 0.0}),
    ("simpo_halos", {"beta": 10.0, "gamma_beta_ratio": 0.3}),
    ("alphapo_alpha0.25", {"beta": 2.0, "gamma": 0.5, "alpha": 0.25, "cpo_alpha": 0.0}),
    ("alphapo_alpha-0.25", {"beta": 2.0, "gamma": 0.5, "alpha": -0.25, "cpo_alpha": 0.0}),
    ("alphapo_alpha1e-06", {"beta": 2.0, "gamma": 0.5, "alpha": 1e-06, "cpo_alpha": 0.0}),
    ("orpo_or_term", {"beta": 0.1}),
    *((f"{name}_{divergence}{params.get('alpha', '')}",
       {**options, "f_divergence": divergence, **params})
      for name, options, scores in (
          ("sigmoid", {"beta": 0.1}, (FORWARD, JS, *ALPHAS)),
          ("sigmoid_norm", {"beta": 0.1}, (FORWARD, JS, *ALPHAS)),
          ("ipo_mean", {"beta": 0.1}, (FORWARD, JS, *ALPHAS)),
          ("cdpo", {"beta": 0.1, "label_smoothing": 0.1}, (JS,)),
          ("robust", {"beta": 0.1, "label_smoothing": 0.25}, (JS, FORWARD)),
          ("hinge", {"beta": 0.1}, (JS, FORWARD)),
          ("ipo_sum", {"beta": 0.1}, (JS,)),
          ("exo_pair", {"beta": 0.1, "label_smoothing": 0.001}, (JS, FORWARD)),
          ("discopop", {"beta": 0.1, "discopop_tau": 0.05}, (JS, FORWARD)))
      for divergence, params in scores),
    ("cpo_sigmoid_nll", {"beta": 0.1, "cpo_alpha": 1.0}),
    ("cpo_hinge_nll", {"beta": 0.1, "cpo_alpha": 0.5}),
    ("cpo_ipo_nll", {"beta": 0.1, "cpo_alpha": 1.0}),
    ("simpo_trl_nll", {"beta": 2.0, "gamma": 0.5, "cpo_alpha": 1.0}),
    ("orpo", {"beta": 0.1}), ("orpo_halos", {"OR_scale": 0.25}),
    ("tpo_sigmoid", {"beta": 0.01, "label_smoothing": 0.05, "tpo_alpha": 1.0}),
    ("tpo_hinge", {"beta": 0.01, "tpo_alpha": 1.0}), ("tpo_ipo", {"beta": 0.01, "tpo_alpha": 1.0}),
    ("tpo_l", {"beta": 0.01, "gamma": 0.5, "tpo_alpha": 1.0}),
    ("mpo", {"beta": 0.1, "loss_type": ["sigmoid", "bco_pair", "sft"],
             "loss_weights": [0.8, 0.2, 1.0]}),
    ("rpo", {"beta": 0.1, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
    ("mix_hinge_sppo_exo", {"beta": 0.1, "label_smoothing": 0.01,
                            "loss_type": ["hinge", "sppo_hard", "exo_pair"],
                            "loss_weights": [0.5, 0.001, 2.0]}),
]
REWARD_CASES = [
    ("bradley_terry", {"margin": False, "center_rewards_coefficient": 0.0}),
    ("bradley_terry_center", {"margin": False, "center_rewards_coefficient": 0.01}),
    ("bradley_terry_margin", {"margin": True, "center_rewards_coefficient": 0.0}),
    ("bradley_terry_margin_center", {"margin": True, "center_rewards_coefficient": 0.01}),
]


def pairs_of(rng):
    rows = []

    def add(pol_w, pol_l, u_w, u_l, n_w=None, n_l=None):
        rows.append([pol_w, pol_l, pol_w - u_w, pol_l - u_l, n_w or rng.randint(1, 120),
                     n_l or rng.randint(1, 120), grid(rng, -1, 2)])

    for _ in range(16):
        add(grid(rng, -160, -1), grid(rng, -200, -1), grid(rng, -15, 15), grid(rng, -15, 15))
    for _ in range(3):  # step 0
        add(grid(rng, -60, -1), grid(rng, -60, -1), 0.0, 0.0)
    for k in (20, 30, 40, 44):  # almost step 0
        add(grid(rng, -16, -1), grid(rng, -16, -1), 2.0**-k, 0.0, 12, 11)
        add(grid(rng, -16, -1), grid(rng, -16, -1), 0.0, 2.0**-k, 5, 5)
    for size in (100, 480, 1000, 3000, 10000):  # far out
        add(-grid(rng, 1, 30) - size, -grid(rng, 1, 30), -size, grid(rng, 0, size), 100, 90)
        add(-grid(rng, 1, 30), -grid(rng, 1, 30) - size, size, -size, 100, 90)
        add(-grid(rng, 1, 30), -grid(rng, 1, 30), size, size + 3.0, 64, 70)
    add(-20.0, -30.0, 10.0, 0.0, 10, 10)  # the kink of the hinge, of beta 0.1 as a double: just above
    add(-20.0, -30.0, 8.0, 0.0, 10, 10)  # the kink of beta 1/8
    add(-20.0, -21.0, 1.0, -1.0, 10, 10)  # the kink of SLiC
    add(-(2.0**-20), -3.0, 1.0, -1.0, 5000, 1)  # almost certain
    add(-40.0, -(2.0**-10), 1.0, 0.5, 1, 5000)
    return rows


def thirds_of(rng, n):
    """For each pair its prompt and a gold completion: sums of log-probabilities and lengths."""
    return [[grid(rng, -40, -1), rng.randint(1, 60), grid(rng, -80, -1), rng.randint(1, 120)]
            for _ in range(n)]


# What else a case asks the gradient of, by its stem, and the name in its formula.
THIRD = {"orpo": ("d_prompt_w", "prompt"),
         **{f"tpo_{link}": ("d_gold", "gold") for link in ("sigmoid", "hinge", "ipo", "l")}}


def paired(rng):
    pairs = pairs_of(rng)
    # From a generator of their own, so that the other inputs are what they were without them.
    thirds = thirds_of(random.Random(repr(pairs)), len(pairs))
    pairs = [pair + third for pair, third in zip(pairs, thirds)]
    rewards = [[grid(rng, -8, 8), grid(rng, -8, 8), grid(rng, -1, 3)] for _ in range(10)]
    rewards += [[0.0, 0.0, 0.0], [90.0, -90.0, 1.0], [-800.0, 800.0, 1.0]]
    cases = []
    for name, params in PAIRED_CASES:
        rows, third = [], THIRD.get(name)
        for pol_w, pol_l, ref_w, ref_l, n_w, n_l, margin, prompt, prompt_len, gold, gold_len in pairs:
            w, l = variable(pol_w, "w"), variable(pol_l, "l")
            u_w, u_l, given = w - ref_w, l - ref_l, exact(params)
            divergence = [given.pop(k) for k in ("f_divergence", "alpha")
                          if "f_divergence" in params and k in given]
            if divergence:
                u_w, u_l = score(u_w, *divergence), score(u_l, *divergence)
            p = Sample(P_w=w, P_l=l, u_w=u_w, u_l=u_l, n_w=n_w, n_l=n_l, margin=F(margin),
                       prompt=variable(prompt, "prompt"), prompt_len=prompt_len,
                       gold=variable(gold, "gold"), gold_len=gold_len)
            names = ["w", "l"] + ([third[1]] if third else [])
            rows.append(answer(formula(PAIRED, name)(p, **given), names))
        cases.append({"name": name, "params": params, "inputs": "pairs",
                      "outputs": ["loss", "d_pol_w", "d_pol_l"] + ([third[0]] if third else []),
                      "rows": rows})
    for name, params in REWARD_CASES:
        rows = []
        for r_w, r_l, margin in rewards:
            p = Sample(r_w=variable(r_w, "w"), r_l=variable(r_l, "l"), margin=F(margin))
            rows.append(answer(formula(REWARDS, name)(p, **exact(params)), "wl"))
        cases.append({"name": name, "params": params, "inputs": "rewards",
                      "outputs": ["loss", "d_r_w", "d_r_l"], "rows": rows})
    token_pairs = token_pairs_of(rng)
    for name, params in TOKEN_PAIR_CASES:
        rows = []
        for pair in token_pairs:
            w, l = (side_of(*(pair[f"{row}_{side}"] for row in ("pol", "ref", "logp2")), side)
                    for side in "wl")
            try:
                loss = formula(TOKEN_PAIRS, name)(w, l, **exact(params))
                rows.append([text(loss.value), token_slopes(loss, w, "w"), token_slopes(loss, l, "l")])
            except ZeroDivisionError:
                rows.append(None)
        cases.append({"name": name, "params": params, "inputs": "token_pairs",
                      "outputs": ["loss", "d_pol_w[t]", "d_pol_l[t]"], "rows": rows})
    return {"pair_columns": ["pol_w", "pol_l", "ref_w", "ref_l", "len_w", "len_l", "margin",
                             "prompt_w", "prompt_len", "gold", "gold_len"],
            "pairs": pairs, "rewards": rewards, "token_pairs": token_pairs, "cases": cases}
