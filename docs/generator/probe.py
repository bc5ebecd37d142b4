"""What the library says of its losses when it is asked: parameters, what they read, values at the start
of a run, and curves. By name through the C API, so that nothing of it can be stale."""

import ctypes as c

from library import SUM, U8, Completions, Pairs

POINTS = 121


def across(span):
    """The places of a chart."""
    return [span * (2 * i / (POINTS - 1) - 1) for i in range(POINTS)]


def near(a, b):
    """Of slopes and differences of values: what is left of a double's digits."""
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b)) + 1e-9


class Probe:
    """One loss, at its defaults but for what is `changed`. A sample is a value for each of some columns; the subclasses have
    `defaults` for the others, `sides`, the columns along which there are slopes, and `evaluate`, which
    makes (loss, slope along each side) of each sample."""

    def __init__(self, library, name, changed={}):
        self.library, self.name, self.changed = library, name, changed
        self.parameters = dict(self.read_parameters())
        self.demanded = {}
        self.settle()

    def read_parameters(self):
        api, loss, value, index = self.library.api, self.library.loss(self.name, {}), c.c_double(), 0
        while parameter := api.prospect_loss_parameter(c.byref(loss), index):
            api.prospect_loss_get(c.byref(loss), parameter, c.byref(value), None)
            yield parameter.decode(), value.value
            index += 1

    def settle(self):
        """Finds out which of the columns that few losses know this one does."""

    def takes(self, **columns):
        try:
            self.at(**columns)
        except ValueError:
            return False
        return True

    def takes_scores(self):
        try:
            self.library.loss(self.name, {}, ("js_divergence", 0.0))
        except ValueError:
            return False
        return True

    def scale(self):
        """Between a log-ratio and a reward."""
        return self.parameters.get("beta") or self.parameters.get("tau") or 1.0

    def at(self, **columns):
        return self.evaluate([columns])[0]

    def total(self, **columns):
        return self.at(**columns)[0]

    def complete(self, sample):
        return {**self.defaults, **self.demanded, **sample}

    def differs(self, change):
        """Whether `change`, which makes other columns of a sample, makes another result."""
        return any(self.at(**one) != self.at(**one, **change(self.complete(one))) for one in self.samples())

    def detaches(self):
        """Whether a slope is not that of the value. No sample stands on a kink."""
        step = 1e-6
        for sample in map(self.complete, self.samples()):
            for side, slope in zip(self.sides, self.at(**sample)[1:]):
                up, down = (self.total(**{**sample, side: sample[side] + by}) for by in (step, -step))
                if not near((up - down) / (2 * step), slope):
                    return True
        return False

    def run(self, function, struct, samples, counts, flags=()):
        samples = [self.complete(sample) for sample in samples]
        columns = {name: [sample[name] for sample in samples] for name in samples[0]}
        real = {name: column for name, column in columns.items() if name not in (*counts, *flags)}
        count = {name: column for name, column in columns.items() if name in counts}
        flag = {name: (U8, c.c_uint8, columns[name]) for name in flags}
        return list(zip(*self.library.call(
            function, self.library.loss(self.name, self.changed), struct,
            {**self.library.reals(real), **self.library.counts(count), **flag},
            ["loss", *(f"d_{side}" for side in self.sides)], len(samples))))


class PairProbe(Probe):
    sides = ("policy_chosen", "policy_rejected")
    defaults = {"policy_chosen": -20.0, "policy_rejected": -23.0, "reference_chosen": -21.0,
                "reference_rejected": -21.5, "chosen_tokens": 2, "rejected_tokens": 3}

    def settle(self):
        if not self.takes():
            self.demanded = {"policy_third": -18.0, "third_tokens": 4}
        self.margin = self.takes(margin=0.5)

    def evaluate(self, samples):
        return self.run(self.library.api.prospect_pairs_cpu, Pairs(normaliser=SUM), samples,
                        ("chosen_tokens", "rejected_tokens", "third_tokens"))

    def samples(self):
        return [{"policy_chosen": policy} for policy in (-29.25, -19.875, -8.25)]

    def reads(self):
        found = {"third": bool(self.demanded), "margin": self.margin,
                 "reference": self.differs(lambda _: {"reference_chosen": -30.0}) or
                 self.differs(lambda _: {"reference_rejected": -17.0}),
                 "level": any(self.at(**one) != self.at(**self.lower(one)) for one in self.samples()),
                 "tokens": self.differs(lambda _: {"chosen_tokens": 5, "rejected_tokens": 7})}
        return {what for what, is_read in found.items() if is_read}

    def lower(self, sample):
        """The same log-ratios of less likely completions, one more than the other."""
        return {name: value - (3 if name.endswith("chosen") else 5)
                for name, value in self.complete(sample).items() if name.startswith(("policy", "reference"))}

    def even(self, level, x=0.0):
        return {"policy_chosen": level + x / 2, "policy_rejected": level - x / 2,
                "reference_chosen": level, "reference_rejected": level,
                "chosen_tokens": 1, "rejected_tokens": 1}

    def start(self, level):
        """Where policy and reference, and both completions, are equally likely."""
        return self.at(**self.even(level))

    def curve(self, span, level):
        """The chosen completion rises by x / 2 as the rejected one falls: losses, and slopes of each."""
        return list(zip(*self.evaluate([self.even(level, x) for x in across(span)])))


class ThumbProbe(Probe):
    sides = ("policy",)
    defaults = {"policy": -20.0, "reference": -21.0, "tokens": 3, "desirable": 1}

    def settle(self):
        if not self.takes():
            self.demanded = {"target": 0.0}

    def evaluate(self, samples, z=0.0):
        return self.run(self.library.api.prospect_completions_cpu, Completions(normaliser=SUM, z=z),
                        samples, ("tokens",), ("desirable",))

    def samples(self):
        return [{"policy": policy, "desirable": up} for policy in (-29.25, -19.875, -8.125) for up in (0, 1)]

    def reads(self):
        found = {"target": bool(self.demanded),
                 "z": self.evaluate(self.samples(), 0.0) != self.evaluate(self.samples(), 1.5),
                 "reference": self.differs(lambda _: {"reference": -14.0}),
                 "level": any(self.at(**one) != self.at(**{**one, "policy": one["policy"] - 3,
                                                           "reference": -24.0}) for one in self.samples()),
                 "tokens": self.differs(lambda _: {"tokens": 7})}
        return {what for what, is_read in found.items() if is_read}

    def z(self, level):
        """Of policies that are the reference; or where none is read, of completions this likely."""
        return 0.0 if "reference" in self.reads() else level

    def start(self, level):
        return self.evaluate([{"policy": level, "reference": level, "tokens": 1}], self.z(level))[0]

    def curve(self, span, level, desirable):
        """Over r - z."""
        return list(zip(*self.evaluate([{"policy": level + x, "reference": level, "tokens": 1,
                                         "desirable": desirable} for x in across(span)], self.z(level))))


class TokenProbe(Probe):
    """A sample is one token, and what the policy says of the `other` token of its sequence."""
    sides = ("policy",)
    defaults = {"policy": -1.7, "old": -1.8, "reference": -1.6, "advantage": 1.0, "other": -1.1}

    def tokens(self, logp, old, ref, adv, count=1, mask=None):
        return self.library.tokens(self.name, self.changed, {
            "logp": logp, "old": old, "ref": ref, "adv": adv, "mask": mask or [[1] * len(r) for r in logp]},
            count)

    def sequence(self, sample):
        return self.tokens([[sample["policy"], sample["other"]]], [[sample["old"], -1.2]],
                           [[sample["reference"], -1.15]], [sample["advantage"]])

    def evaluate(self, samples):
        """The loss of the token, and the slope of the loss of its sequence."""
        found = [self.sequence(self.complete(sample)) for sample in samples]
        return [(one["value"][0][0], one["d_logp"][0][0]) for one in found]

    def total(self, **columns):
        return self.sequence(self.complete(columns))["loss"]

    def samples(self):
        return [{"policy": policy, "advantage": advantage}
                for policy in (-4.9, -2.9, -1.7, -0.6) for advantage in (1.3, -0.7)]

    def reads(self):
        changes = {"old": {"old": -1.4}, "reference": {"reference": -2.4}, "sequence": {"other": -1.35}}
        found = {what for what, change in changes.items() if self.differs(lambda _: change)}
        return found | ({"advantage"} if self.at(advantage=1.0) != self.at(advantage=0.25) else set())

    def averaging(self):
        """Which average of the losses of a sequence of one token and one of three the total is."""
        found = self.tokens([[-1.0, 0, 0], [-2.0] * 3], [[-1.0, 0, 0], [-2.0] * 3],
                            [[-1.25, 0, 0], [-3.0] * 3], [1.0, 2.0], None, [[1, 0, 0], [1, 1, 1]])
        first, second = found["value"][0][0], sum(found["value"][1])
        averages = {"the tokens of the batch": (first + second) / 4,
                    "each sequence's tokens, then over sequences": (first + second / 3) / 2,
                    "sequences, of sums over their tokens": (first + second) / 2}
        return next(what for what, average in averages.items() if near(average, found["loss"]))

    def alone(self, logp, level, advantage):
        """Sequences of one token, sampled at `level`, which is the reference's too: losses and slopes."""
        found = self.tokens([[x] for x in logp], [[level]] * len(logp), [[level]] * len(logp),
                            [advantage] * len(logp))
        return [x for x, in found["value"]], [x for x, in found["d_logp"]]

    def start(self, level):
        losses, slopes = self.alone([level], level, 1.0)
        return losses[0], slopes[0]

    def curve(self, span, level, advantage):
        return self.alone([level + x for x in across(span)], level, advantage)


# By the kinds of losses.def.
PROBES = {"paired": PairProbe, "unpaired": ThumbProbe, "token": TokenProbe}
