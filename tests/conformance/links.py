"""Functions of a margin, which several losses share."""

from mpmath import mp

from duals import exp, log_sigma, sigma


def smoothed(m, eps):
    return -(1 - eps) * log_sigma(m) - eps * log_sigma(-m)


def robust(m, eps):
    return (-(1 - eps) * log_sigma(m) + eps * log_sigma(-m)) / (1 - 2 * eps)


def exo(m, eps):
    return (sigma(m) * (log_sigma(m) - mp.log(1 - eps)) +
            sigma(-m) * (log_sigma(-m) - mp.log(eps)))


def discopop(m, tau):
    return -log_sigma(m) * (1 - sigma(m / tau)) + exp(-m + log_sigma(m / tau))
