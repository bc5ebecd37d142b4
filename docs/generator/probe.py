"""What the library says of its losses when it is asked: parameters, what they read, values at the start
of a run, and curves. By name through the C API, so that nothing of it can be stale."""

import ctypes as c

from library import I32, U8, Completions, Pairs, rows

POINTS = 121
SUM, MEAN = 1, 0
# Rows that a few losses demand and the others refuse.
EXTRA = {"target": 0.0, "policy_third": -1.0}
EXTRA_COUNTS = {"third_tokens": 1}


class Layout(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("sequences", c.c_int64), ("length", c.c_int64),
                *rows("offsets", "begins", "ends")]


class Metrics(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("metric", c.c_void_p), ("capacity", c.c_int32),
                ("size", c.c_int32), ("total", c.c_double), ("first_nonfinite", c.c_int64)]


class TokenBatch(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32), ("reserved", c.c_int32),
                ("count", c.c_double), ("count_at", c.c_void_p), ("entropy_coef", c.c_double),
                ("layout", c.c_void_p),
                *rows("policy", "old_policy", "reference", "advantage", "token_advantage", "weight",
                      "entropy", "targets", "mask", "loss", "d_policy", "d_entropy")]


def near(a, b):
    """Of slopes and differences of values: what the steps below leave of a double's digits."""
    return abs(a - b) <= 1e-4 * max(abs(a), abs(b)) + 1e-9


class Probe:
    """One loss at its defaults. The subclasses say what a sample of its kind is: `defaults` of its
    columns, and `evaluate`, from samples to (loss, slope...) of each; `sides` names, for each slope,
    the column that it is along."""

    def __init__(self, library, name):
        self.library, self.name = library, name
        self.parameters = dict(self.read_parameters())

    def read_parameters(self):
        api, loss, value, index = self.library.api, self.library.loss(self.name, {}), c.c_double(), 0
        while parameter := api.prospect_loss_parameter(c.byref(loss), index):
            api.prospect_loss_get(c.byref(loss), parameter, c.byref(value), None)
            yield parameter.decode(), value.value
            index += 1

    def scale(self):
        """Between a log-ratio and a reward."""
        return self.parameters.get("beta", self.parameters.get("tau", 1.0)) or 1.0

    def at(self, **columns):
        return self.evaluate([{**self.defaults, **columns}])[0]

    def tells_apart(self, base, change):
        return any(self.evaluate([{**self.defaults, **one}])[0] !=
                   self.evaluate([{**self.defaults, **one, **change(one)}])[0] for one in base)

    def detaches(self, samples):
        """Whether a slope is not that of the value. Steps are small beside anything but kinks, and the
        samples stand on none."""
        step = 1e-6
        for sample in samples:
            slopes = self.at(**sample)[1:]
            for column, slope in zip(self.sides, slopes):
                there = {**self.defaults, **sample}
                up, down = (self.total({**there, column: there[column] + by}) for by in (step, -step))
                if not near((up - down) / (2 * step), slope):
                    return True
        return False

    def total(self, sample):
        return self.evaluate([sample])[0][0]

    def rows(self, function, struct, samples, counts, flags=()):
        """Calls with the columns of the samples; with rows that few demand where it is refused."""
        names = [name for name in samples[0] if name not in (*counts, *flags)]
        reals = self.library.reals({name: [s[name] for s in samples] for name in names})
        inputs = {**reals, **self.library.counts({name: [s[name] for s in samples] for name in counts}),
                  **{name: (U8, c.c_uint8, [s[name] for s in samples]) for name in flags}}
        outputs = ["loss", *(f"d_{side}" for side in self.sides)]

        def call(more):
            return self.library.call(function, self.library.loss(self.name, {}), struct(),
                                     {**inputs, **more}, outputs, len(samples))
        try:
            return list(zip(*call({})))
        except ValueError:
            fields = {field for field, _ in struct()._fields_}
            more = {**self.library.reals({name: [value] * len(samples)
                                          for name, value in EXTRA.items() if name in fields}),
                    **self.library.counts({name: [value] * len(samples)
                                           for name, value in EXTRA_COUNTS.items() if name in fields})}
            if not more:
                raise
            return list(zip(*call(more)))


class PairProbe(Probe):
    sides = ("policy_chosen", "policy_rejected")
    counts = ("chosen_tokens", "rejected_tokens")
    defaults = {"policy_chosen": -20.0, "policy_rejected": -23.0, "reference_chosen": -21.0,
                "reference_rejected": -21.5, "margin": 0.0, "chosen_tokens": 2, "rejected_tokens": 3}

    def evaluate(self, samples):
        if not self.takes_margin():
            samples = [{k: v for k, v in s.items() if k != "margin"} for s in samples]
        return self.rows(self.library.api.prospect_pairs_cpu, lambda: Pairs(normaliser=SUM), samples,
                         self.counts)

    def takes_margin(self):
        if not hasattr(self, "margin_taken"):
            self.margin_taken = True
            try:
                self.at(margin=0.5)
            except ValueError:
                self.margin_taken = False
        return self.margin_taken

    def samples(self):
        return [{"policy_chosen": -20.0 + shift, "reference_chosen": -21.0} for shift in (-9.25, 0.125, 11.75)]

    def reads(self):
        base = self.samples()
        read = set()
        if self.tells_apart(base, lambda one: {"reference_chosen": -30.0, "reference_rejected": -17.0}):
            read.add("reference")
        if self.tells_apart(base, lambda one: {**{side: self.defaults[side] - 3 for side in self.sides},
                                               "policy_chosen": one["policy_chosen"] - 3,
                                               "reference_chosen": -24.0, "reference_rejected": -24.5}):
            read.add("level")
        if self.takes_margin() and self.tells_apart(base, lambda one: {"margin": 0.7}):
            read.add("margin")
        if self.tells_apart(base, lambda one: {"chosen_tokens": 5, "rejected_tokens": 7}):
            read.add("tokens")
        return read

    def start(self, level):
        """(loss, slopes) where policy and reference, and both completions, are equally likely."""
        return self.at(policy_chosen=level, policy_rejected=level, reference_chosen=level,
                       reference_rejected=level, chosen_tokens=1, rejected_tokens=1)

    def curve(self, span, level):
        """The chosen completion rises by x / 2 as the rejected one falls: {side: (losses, slopes)}."""
        xs = [span * (2 * i / (POINTS - 1) - 1) for i in range(POINTS)]
        found = self.evaluate([{**self.defaults, "policy_chosen": level + x / 2,
                                "policy_rejected": level - x / 2, "reference_chosen": level,
                                "reference_rejected": level, "chosen_tokens": 1, "rejected_tokens": 1}
                               for x in xs])
        return [loss for loss, *_ in found], [d for _, d, _ in found], [d for *_, d in found]


class ThumbProbe(Probe):
    sides = ("policy",)
    counts = ("tokens",)
    defaults = {"policy": -20.0, "reference": -21.0, "tokens": 3, "desirable": 1}

    def evaluate(self, samples, z=0.0):
        return self.rows(self.library.api.prospect_completions_cpu,
                         lambda: Completions(normaliser=SUM, z=z), samples, self.counts, ("desirable",))

    def samples(self):
        return [{"policy": policy, "desirable": up} for policy in (-29.25, -19.875, -8.125) for up in (0, 1)]

    def reads(self):
        base = self.samples()
        read = set()
        if self.tells_apart(base, lambda one: {"reference": -14.0}):
            read.add("reference")
        if self.tells_apart(base, lambda one: {"policy": one["policy"] - 3, "reference": -24.0}):
            read.add("level")
        if self.tells_apart(base, lambda one: {"tokens": 7}):
            read.add("tokens")
        if any(self.evaluate([{**self.defaults, **one}]) != self.evaluate([{**self.defaults, **one}], 1.3)
               for one in base):
            read.add("z")
        return read

    def start(self, level):
        """Of a thumb up at z = 0, or where no reference is read, at the z of such completions."""
        z = 0.0 if "reference" in self.reads() else level
        return self.evaluate([{**self.defaults, "policy": level, "reference": level, "tokens": 1}], z)[0]

    def curve(self, span, level, desirable):
        """Over r - z."""
        z = 0.0 if "reference" in self.reads() else level
        xs = [span * (2 * i / (POINTS - 1) - 1) for i in range(POINTS)]
        found = self.evaluate([{**self.defaults, "policy": level + x, "reference": level, "tokens": 1,
                                "desirable": desirable} for x in xs], z)
        return [loss for loss, _ in found], [d for _, d in found]


class TokenProbe(Probe):
    """A sample is one token, and the policy's log-probability of the `other` token of its sequence."""
    sides = ("policy",)
    defaults = {"policy": -1.7, "old_policy": -1.8, "reference": -1.6, "advantage": 1.0, "other": -1.1}

    def batch(self, lengths, columns, normaliser):
        """(losses, slopes, total) of sequences of these lengths, which have an advantage each."""
        layout = Layout(sequences=len(lengths))
        layout.struct_size = c.sizeof(Layout)
        layout.offsets = self.library.row([sum(lengths[:i]) for i in range(len(lengths) + 1)],
                                          I32, c.c_int32)
        metrics = Metrics(struct_size=c.sizeof(Metrics))

        def call(loss, batch, *rest):
            *_, context, error = rest
            return self.library.api.prospect_token_losses_cpu(loss, batch, c.byref(metrics), context, error)

        losses, slopes = self.library.call(
            call, self.library.loss(self.name, {}),
            TokenBatch(normaliser=normaliser, layout=c.addressof(layout)), self.library.reals(columns),
            ["loss", "d_policy"], sum(lengths))
        return losses, slopes, metrics.total

    def pair(self, sample):
        return self.batch([2], {"policy": [sample["policy"], sample["other"]],
                                "old_policy": [sample["old_policy"], -1.2],
                                "reference": [sample["reference"], -1.15],
                                "advantage": [sample["advantage"]]}, SUM)

    def evaluate(self, samples):
        """The loss of the token, and dL/dlogp of its sequence's loss."""
        return [(losses[0], slopes[0]) for losses, slopes, _ in map(self.pair, samples)]

    def total(self, sample):
        return self.pair(sample)[2]

    def samples(self):
        return [{"policy": policy, "advantage": advantage}
                for policy in (-2.9, -1.7, -0.6) for advantage in (1.3, -0.7)]

    def reads(self):
        base = self.samples()
        return {what for what, change in {
            "old": {"old_policy": -1.4}, "reference": {"reference": -2.4}, "advantage": {"advantage": 0.3},
            "sequence": {"other": -1.35}}.items() if self.tells_apart(base, lambda one: change)}

    def averaging(self):
        """Which of three averages of the losses the total is."""
        losses, _, total = self.batch([1, 3], {"policy": [-1.0] * 4, "old_policy": [-1.0] * 4,
                                               "reference": [-1.2, -1.5, -1.5, -1.5],
                                               "advantage": [1.0, 2.0]}, MEAN)
        first, second = losses[0], sum(losses[1:])
        if near(first, second / 3):
            first, second, total = self.unlike()
        averages = {"the tokens of the batch": (first + second) / 4,
                    "each sequence's tokens, then over sequences": (first + second / 3) / 2,
                    "sequences, of sums over their tokens": (first + second) / 2}
        return next(what for what, average in averages.items() if near(average, total))

    def unlike(self):
        """The same for a loss that reads nothing but the policy."""
        losses, _, total = self.batch([1, 3], {"policy": [-1.0, -2.0, -2.0, -2.0],
                                               "old_policy": [-1.0, -2.0, -2.0, -2.0],
                                               "reference": [-1.0, -2.0, -2.0, -2.0],
                                               "advantage": [1.0, 2.0]}, MEAN)
        return losses[0], sum(losses[1:]), total

    def alone(self, policy, level, advantage):
        """(loss, slope) of sequences of one token, sampled at `level`, which is the reference's too."""
        n = len(policy)
        losses, slopes, _ = self.batch([1] * n, {"policy": policy, "old_policy": [level] * n,
                                                 "reference": [level] * n, "advantage": [advantage] * n},
                                       SUM)
        return losses, slopes

    def start(self, level):
        losses, slopes = self.alone([level], level, 1.0)
        return losses[0], slopes[0]

    def curve(self, span, level, advantage):
        return self.alone([level + span * (2 * i / (POINTS - 1) - 1) for i in range(POINTS)], level,
                          advantage)


# By the kinds of losses.def.
PROBES = {"paired": PairProbe, "unpaired": ThumbProbe, "token": TokenProbe}
