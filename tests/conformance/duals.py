"""The arithmetic of the vectors: dual numbers in 400 digits, the functions that formulas are made of, and
how inputs are drawn and results written."""

from mpmath import mp, mpf

mp.dps = 400
F = mpf  # parameters are doubles whose exact value is meant


class Dual:
    """A number and its derivatives by name."""

    def __init__(self, value, slopes=None):
        self.value, self.slopes = mpf(value), slopes or {}

    def chain(self, value, slope):
        return Dual(value, {k: slope * s for k, s in self.slopes.items()})

    def __neg__(self):
        return self.chain(-self.value, -1)

    def __add__(self, other):
        other = dual(other)
        names = self.slopes.keys() | other.slopes.keys()
        return Dual(self.value + other.value,
                    {k: self.slopes.get(k, 0) + other.slopes.get(k, 0) for k in names})

    def __mul__(self, other):
        other = dual(other)
        names = self.slopes.keys() | other.slopes.keys()
        return Dual(self.value * other.value,
                    {k: self.slopes.get(k, 0) * other.value + self.value * other.slopes.get(k, 0)
                     for k in names})

    def __sub__(self, other):
        return self + -dual(other)

    def __truediv__(self, other):
        other = dual(other)
        return self * other.chain(1 / other.value, -1 / other.value**2)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other):
        return -self + other

    def __rtruediv__(self, other):
        return dual(other) / self


def dual(x):
    return x if isinstance(x, Dual) else Dual(x)


def detached(x):
    """Through which no gradient passes."""
    return Dual(x.value)


FAR = mpf(10)**6  # e^-FAR is nothing beside 1, and below everything that is written


def exp(x):
    """Held at e^FAR: a score may be e^10000, and its exponential takes minutes."""
    value = mp.exp(min(max(dual(x).value, -FAR), FAR))
    return dual(x).chain(value, value)


def log(x):
    return dual(x).chain(mp.log(dual(x).value), 1 / dual(x).value)


def sigma(x):
    return 1 / (1 + exp(-x))


def log_sigma(x):
    return x if dual(x).value < -FAR else -log(1 + exp(-x))


def square(x):
    return x * x


def mean(xs):
    return sum(xs) / len(xs)


def relu(x):
    """The slope at the kink is 0."""
    return x if x.value > 0 else Dual(0)


def clamp(x, low, high):
    """The slope on a bound is 1."""
    return Dual(low) if x.value < low else Dual(high) if x.value > high else x


def grid(rng, low, high, step=64):
    """A multiple of 2^-6 or less, so that differences are exact in fp64."""
    return round(rng.uniform(low, high) * step) / step


class Sample:
    def __init__(self, **values):
        self.__dict__.update(values)


def variable(x, name):
    return Dual(x, {name: mpf(1)})


def text(x):
    """40 digits; what is below 1e-20000 is 0, and what is above 1e20000 is no larger than that."""
    if abs(x) > mpf(10)**20000:
        x = mp.sign(x) * mpf(10)**20000
    return "0" if abs(x) < mpf(10)**-20000 else mp.nstr(x, 40, strip_zeros=False, min_fixed=-1, max_fixed=0)


def answer(loss, names):
    return [text(loss.value), *(text(loss.slopes.get(name, mpf(0))) for name in names)]


def exact(params):
    return {k: F(v) if isinstance(v, float) else v for k, v in params.items()}


def formula(table, name):
    return table[max((stem for stem in table if name == stem or name.startswith(stem + "_")), key=len)]
