"""Losses of what tokens add up to: f(w, l, **params), where a side has lists P and u, and P2, which is log
sum_v p_v^2; and their inputs, token by token."""

from mpmath import mp, mpf

from duals import F, Sample, clamp, grid, mean, square, text, variable
from links import smoothed


def ld_sums(w, l, alpha):
    """The sums of both sides, whose tokens behind the shorter length weigh alpha."""
    shorter = min(len(w.u), len(l.u))
    return (sum(u if t < shorter else alpha * u for t, u in enumerate(side.u)) for side in (w, l))


def humanline_sum(side, low, high):
    return sum(clamp(u, low, high) for u in side.u)


def humanline(w, l, low, high):
    return humanline_sum(w, low, high) - humanline_sum(l, low, high)


def mean_nonzero(side):
    """Undefined where no token has a log-ratio."""
    return sum(side.u) / sum(1 for u in side.u if u.value != 0)


def wpo(side):
    """No gradient passes through it."""
    return mp.exp(mean([p.value - p2 for p, p2 in zip(side.P, side.P2)]))


def ld_means(w, l, alpha):
    s_w, s_l = ld_sums(w, l, alpha)
    return s_w / len(w.u) - s_l / len(l.u)


def ld_difference(w, l, alpha):
    s_w, s_l = ld_sums(w, l, alpha)
    return s_w - s_l


TOKEN_PAIRS = {
    "ld_sigmoid": lambda w, l, beta, ld_alpha: smoothed(beta * ld_difference(w, l, ld_alpha), 0),
    "ld_sigmoid_norm": lambda w, l, beta, ld_alpha: smoothed(beta * ld_means(w, l, ld_alpha), 0),
    "ld_ipo": lambda w, l, beta, ld_alpha: square(ld_means(w, l, ld_alpha) - 1 / (2 * beta)),
    "humanline_dpo": lambda w, l, beta, log_epsilon_P, log_epsilon_R:
        smoothed(beta * humanline(w, l, log_epsilon_P, log_epsilon_R), 0),
    "humanline_cdpo": lambda w, l, beta, label_smoothing, log_epsilon_P, log_epsilon_R:
        smoothed(beta * humanline(w, l, log_epsilon_P, log_epsilon_R), label_smoothing),
    "ipo_mean_nonzero": lambda w, l, tau: square(mean_nonzero(w) - mean_nonzero(l) - 1 / (2 * tau)),
    "wpo_sigmoid": lambda w, l, beta, use_weighting:
        wpo(w) * wpo(l) * smoothed(beta * (sum(w.u) - sum(l.u)), 0),
    "wpo_ipo": lambda w, l, beta, use_weighting:
        wpo(w) * wpo(l) * square(mean(w.u) - mean(l.u) - 1 / (2 * beta)),
}
HUMANLINE = {"log_epsilon_P": -1.0, "log_epsilon_R": 1.5}
TOKEN_PAIR_CASES = [
    *((f"ld_sigmoid_alpha{a}", {"beta": 0.1, "ld_alpha": a}) for a in (0.0, 0.3, 1.0)),
    ("ld_sigmoid_norm_alpha0.3", {"beta": 0.1, "ld_alpha": 0.3}),
    ("ld_ipo_alpha0.3", {"beta": 0.1, "ld_alpha": 0.3}),
    ("humanline_dpo", {"beta": 0.1, **HUMANLINE}),
    ("humanline_cdpo", {"beta": 0.1, "label_smoothing": 0.2, **HUMANLINE}),
    ("ipo_mean_nonzero", {"tau": 0.1}),
    ("wpo_sigmoid", {"beta": 0.1, "use_weighting": True}),
    ("wpo_ipo", {"beta": 0.1, "use_weighting": True}),
]


def tokens_of(rng, n, ratios=()):
    """Policy, reference and log sum_v p_v^2 of n tokens, the first of which have these log-ratios."""
    pol = [grid(rng, -6, -1 / 64, 1024) for _ in range(n)]
    u = [ratios[t] if t < len(ratios) else
         grid(rng, -3, 3, 1024) if rng.random() < 0.6 else grid(rng, -0.1, 0.1, 1024)
         for t in range(n)]
    return pol, [p - r for p, r in zip(pol, u)], [grid(rng, -3, -1 / 64, 1024) for _ in range(n)]


def token_pairs_of(rng):
    rows = []

    def add(n_w, n_l, u_w=(), u_l=()):
        row = {}
        for side, n, ratios in (("w", n_w, u_w), ("l", n_l, u_l)):
            row[f"pol_{side}"], row[f"ref_{side}"], row[f"logp2_{side}"] = tokens_of(rng, n, ratios)
        rows.append(row)

    for n_w, n_l in ((1, 1), (1, 4), (5, 2), (3, 3), (7, 6), (2, 9), (8, 1), (4, 5)):
        add(n_w, n_l)
    add(3, 2, (0.0, 0.0, 0.0), (0.0, 0.0))  # step 0
    add(3, 4, (0.0,), (0.0, 0.0))  # a log-ratio that is 0 beside others
    add(2, 3, (0.0, 0.0))  # and one side without any other
    add(4, 3, (-1.0, 1.5), (1.5, -1.0))  # the bounds themselves, just inside, and just outside
    add(2, 2, (2.0**-10 - 1, 1.5 - 2.0**-10), (-1 - 2.0**-10, 1.5 + 2.0**-10))
    add(3, 2, (-40.0, 40.0, -5.0), (7.0, -700.0))  # all of them clamped
    return rows


def token_examples_of(rng):
    rows = []
    for n, ratios in ((1, ()), (2, ()), (5, ()), (8, ()), (3, (0.0, 0.0, 0.0)), (4, (-1.0, 1.5)),
                      (3, (-1 - 2.0**-10, 1.5 + 2.0**-10)), (2, (-60.0, 60.0))):
        pol, ref, _ = tokens_of(rng, n, ratios)
        rows += [{"pol": pol, "ref": ref, "label": label} for label in (1, 0)]
    return rows


def side_of(pol, ref, logp2, name):
    """The tokens of a completion, whose policy log-probs are the variables (name, t)."""
    P = [variable(p, (name, t)) for t, p in enumerate(pol)]
    return Sample(P=P, u=[p - r for p, r in zip(P, ref)], P2=[F(p2) for p2 in logp2])


def token_slopes(loss, side, name):
    return [text(loss.slopes.get((name, t), mpf(0))) for t in range(len(side.P))]
