"""The C API of the shared library, as far as the conformance runs need it: losses by name, on the CPU, in
fp64 or fp32, through ctypes."""

import ctypes as c
import math

F32, F64, I32, U8 = 0, 1, 4, 6
MEAN, SUM, OVER = 0, 1, 2
PAIRED, UNPAIRED = 0, 1
OVER_TOKENS = 0  # how tokens are averaged
CROSS_CLASS, BATCH_MEAN = 1, 3  # reference points that are no number


class Row(c.Structure):
    _fields_ = [("data", c.c_void_p), ("size", c.c_int64), ("stride", c.c_int64),
                ("dtype", c.c_int32), ("reserved", c.c_int32)]


class Error(c.Structure):
    _fields_ = [("message", c.c_char * 512)]


class Loss(c.Structure):
    _fields_ = [("opaque", c.c_double * 128)]


def rows(*names):
    return [(name, Row) for name in names]


class Pairs(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32), ("reserved", c.c_int32),
                ("count", c.c_double), ("count_at", c.c_void_p),
                *rows("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected",
                      "chosen_tokens", "rejected_tokens", "policy", "reference", "tokens", "chosen",
                      "rejected", "weight", "margin", "loss", "d_policy_chosen",
                      "d_policy_rejected", "reward_chosen", "reward_rejected", "d_policy"),
                ("token_count", c.c_double), ("token_count_at", c.c_void_p),
                *rows("policy_third", "third_tokens", "third", "d_policy_third")]


class Completions(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32),
                ("reference_point", c.c_int32), ("count", c.c_double), ("count_at", c.c_void_p),
                ("z", c.c_double), ("z_raw", c.c_double), ("observed", c.c_void_p),
                *rows("policy", "reference", "desirable", "tokens", "weight", "mismatched_policy",
                      "mismatched_reference", "mismatched_tokens", "loss", "d_policy", "reward"),
                ("seen", c.c_void_p), *rows("target")]


class Values(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32), ("reserved", c.c_int32),
                ("count", c.c_double), ("count_at", c.c_void_p), ("cliprange_value", c.c_double),
                *rows("value", "old_value", "returns", "mask", "loss", "d_value")]


class Layout(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("sequences", c.c_int64), ("length", c.c_int64),
                *rows("offsets", "begins", "ends")]


class Advantages(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("advantage", c.c_int32), ("scale", c.c_int32),
                ("population", c.c_int32), ("reserved", c.c_int32), ("epsilon", c.c_double),
                ("groups", c.POINTER(Layout)), ("rewards", c.POINTER(Row)),
                ("components", c.c_int64), ("weights", c.POINTER(c.c_double)),
                *rows("advantages")]


class Observation(c.Structure):
    _fields_ = [("sum", c.c_double), ("count", c.c_double), ("nonfinite", c.c_double),
                ("first_nonfinite", c.c_int64)]


class Point(c.Structure):
    _fields_ = [("z", c.c_double), ("raw", c.c_double)]


class Tokens(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), *rows("targets", "mask", "inverse_temperatures"),
                ("layout", c.c_void_p), ("temperature", c.c_double), ("soft_cap", c.c_double),
                ("first_token", c.c_int64), ("vocabulary", c.c_int64),
                ("zero_padding", c.c_int32), ("reserved", c.c_int32)]


class Reducer(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), *rows("log_prob", "reference"),
                ("log_epsilon_P", c.c_double), ("log_epsilon_R", c.c_double),
                *rows("public_tokens"), ("ld_alpha", c.c_double), ("count_nonzero", c.c_int32),
                ("reserved", c.c_int32)]


class TokenBatch(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32), ("reserved", c.c_int32),
                ("count", c.c_double), ("count_at", c.c_void_p), ("entropy_coef", c.c_double),
                ("layout", c.POINTER(Layout)),
                *rows("policy", "old_policy", "reference", "advantage", "token_advantage", "weight",
                      "entropy", "targets", "mask", "loss", "d_policy", "d_entropy")]


class Metrics(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("metric", c.c_void_p), ("capacity", c.c_int32),
                ("size", c.c_int32), ("total", c.c_double), ("first_nonfinite", c.c_int64)]


REALS = {"fp64": (F64, c.c_double), "fp32": (F32, c.c_float)}


class Library:
    """`type` is what rows are stored in and arithmetic is done in: "fp64" or "fp32"."""

    def __init__(self, path, type="fp64"):
        self.api = c.CDLL(str(path))
        self.api.prospect_loss_name.restype = c.c_char_p
        self.api.prospect_loss_parameter.restype = c.c_char_p
        self.dtype, self.real = REALS[type]

    def names(self):
        return [self.api.prospect_loss_name(i).decode() for i in range(self.api.prospect_loss_count())]

    def check(self, status, error):
        if status != 0:
            raise ValueError(error.message.decode())

    def loss(self, name, parameters, score=None, averaging=None):
        """`score` is the name of a divergence and its alpha; `averaging` where it is not the loss's."""
        loss, error = Loss(), Error()
        self.check(self.api.prospect_loss_init(c.byref(loss), name.encode(), c.byref(error)), error)
        for parameter, value in parameters.items():
            self.check(self.api.prospect_loss_set(c.byref(loss), parameter.encode(),
                                                  c.c_double(value), c.byref(error)), error)
        if score:
            self.check(self.api.prospect_loss_set_score(c.byref(loss), score[0].encode(),
                                                        c.c_double(score[1]), c.byref(error)), error)
        if averaging is not None:
            self.made(self.api.prospect_loss_set_averaging, c.byref(loss), averaging)
        return loss

    def row(self, values, dtype, element):
        data = (element * len(values))(*values)
        row = Row(c.cast(data, c.c_void_p), len(values), 1, dtype, 0)
        row.keep = data
        return row

    def read(self, values):
        """A row of real numbers."""
        return self.row(values, self.dtype, self.real)

    def made(self, function, *arguments):
        error = Error()
        self.check(function(*arguments, c.byref(error)), error)

    def values(self, cliprange_value, reals, mask):
        """(loss, dL/dvalue) for each value estimate."""
        struct = Values(normaliser=SUM, cliprange_value=cliprange_value)
        n = len(mask)
        return list(zip(*self.call(self.api.prospect_value_loss_cpu, None, struct,
                                   {**self.reals(reals), "mask": (U8, c.c_uint8, mask)},
                                   ["loss", "d_value"], n)))

    def advantages(self, rewards, group_size, weights=None, **options):
        """`rewards` is a list of rows, each of all groups one after the other."""
        n = len(rewards[0])
        layout = Layout(c.sizeof(Layout), n // group_size, group_size)
        given = [self.read(row) for row in rewards]
        out = self.read([float("nan")] * n)
        struct = Advantages(c.sizeof(Advantages), groups=c.pointer(layout),
                            rewards=(Row * len(given))(*given), components=len(given),
                            advantages=out, **options)
        if weights:
            struct.weights = (c.c_double * len(weights))(*weights)
        self.made(self.api.prospect_advantages_cpu, c.byref(struct), None, None)
        return list(out.keep)

    def aot_margins(self, name, parameters, reals):
        struct = Pairs(struct_size=c.sizeof(Pairs), **{k: self.read(v) for k, v in reals.items()})
        margin = self.read([float("nan")] * len(reals["policy_chosen"]))
        self.made(self.api.prospect_aot_margins_cpu, c.byref(self.loss(name, parameters)),
                  c.byref(struct), margin, None)
        return list(margin.keep)

    def aot_pairs(self, reals, chosen, rejected):
        """Which sequences meet each other, as two lists."""
        def index(values):
            return self.row(values, I32, c.c_int32)

        struct = Pairs(struct_size=c.sizeof(Pairs), **{k: self.read(v) for k, v in reals.items()},
                       chosen=index(chosen), rejected=index(rejected))
        out = index([-1] * len(chosen)), index([-1] * len(chosen))
        self.made(self.api.prospect_aot_pairs_cpu, c.byref(struct), *out, None)
        return [list(row.keep) for row in out]

    def log_ratios(self, policy, reference):
        seen = Observation()
        self.made(self.api.prospect_mismatched_kl_cpu, self.read(policy), self.read(reference),
                  Row(stride=1), c.byref(seen), None)
        return seen

    def batch_mean(self, policy, reference):
        """z: the mean log-ratio, not below 0; 0 of none."""
        if not policy:
            return 0.0
        point = Point()
        self.made(self.api.prospect_reference_point_from, self.log_ratios(policy, reference),
                  c.byref(point))
        return point.z

    def running_mean(self, mean, seen):
        """Adds to `mean`, a pair of doubles, and returns the point."""
        point = Point()
        self.made(self.api.prospect_running_mean_add, c.byref(mean), seen)
        self.made(self.api.prospect_running_mean_point, c.byref(mean), c.byref(point))
        return point.z

    def call(self, function, loss, struct, inputs, outputs, n, metrics=None):
        """Fills `struct` from `inputs` (name: (dtype, element, values)), runs, returns the outputs."""
        struct.struct_size = c.sizeof(struct)
        kept = []
        for name, (dtype, element, values) in inputs.items():
            row = self.row(values, dtype, element)
            kept.append(row)
            setattr(struct, name, row)
        written = {}
        for name in outputs:
            row = self.row([float("nan")] * n, self.dtype, self.real)
            kept.append(row)
            written[name] = row.keep
            setattr(struct, name, row)
        error = Error()
        first = [c.byref(loss)] if loss else []
        self.check(function(*first, c.byref(struct), metrics and c.byref(metrics), None,
                            c.byref(error)), error)
        return [list(written[name]) for name in outputs]

    def reals(self, columns):
        return {name: (self.dtype, self.real, values) for name, values in columns.items()}

    def counts(self, columns):
        return {name: (I32, c.c_int32, values) for name, values in columns.items()}

    def pairs(self, name, parameters, reals, counts, normaliser=SUM, score=None):
        """(loss, dL/dchosen, dL/drejected) for each pair, and dL/dthird where there is a third
        completion; neither summed nor averaged, unless the normaliser says so."""
        n = len(reals["policy_chosen"])
        outputs = ["loss", "d_policy_chosen", "d_policy_rejected"]
        if "policy_third" in reals:
            outputs.append("d_policy_third")
        return list(zip(*self.call(self.api.prospect_pairs_cpu,
                                   self.loss(name, parameters, score), Pairs(normaliser=normaliser),
                                   {**self.reals(reals), **self.counts(counts)}, outputs, n)))

    def pairs_apart(self, name, parameters, reals, counts, score=None):
        """The same, each pair as a batch of its own: what is a mean over tokens is one over the
        tokens of that pair."""
        return [self.pairs(name, parameters, {k: [v[i]] for k, v in reals.items()},
                           {k: [v[i]] for k, v in counts.items()}, MEAN, score)[0]
                for i in range(len(reals["policy_chosen"]))]

    def completions(self, name, parameters, z, reals, counts, desirable, reference_point=0):
        """(loss, dL/dpolicy) for each completion. The reference point is z, or as `reference_point`
        says: of BATCH_MEAN, `reals` has the mismatched rows as well."""
        n = len(reals["policy"])
        struct = Completions(normaliser=SUM, reference_point=reference_point, z=z)
        return list(zip(*self.call(self.api.prospect_completions_cpu, self.loss(name, parameters),
                                   struct,
                                   {**self.reals(reals), **self.counts(counts),
                                    "desirable": (U8, c.c_uint8, desirable)},
                                   ["loss", "d_policy"], n)))

    def tokens(self, name, parameters, batch, count=None, averaging=None):
        """A padded batch of `logp`, `old`, `ref` and `mask` [B][T] and `adv` [B] or [B][T]: the loss, and
        for each token its value and dL/dlogp. Divided by `count`, or the mean of what is there."""
        size, length = len(batch["logp"]), len(batch["logp"][0])
        layout = Layout(c.sizeof(Layout), size, length)
        struct = TokenBatch(normaliser=MEAN if count is None else OVER, count=count or 0,
                            layout=c.pointer(layout))
        flat = {key: [x for row in rows for x in row] if isinstance(rows[0], list) else rows
                for key, rows in batch.items()}
        by_token = len(flat["adv"]) != size
        metrics = Metrics(c.sizeof(Metrics))
        value, d_policy = self.call(
            self.api.prospect_token_losses_cpu,
            self.loss(name, parameters, averaging=averaging), struct,
            {**self.reals({"policy": flat["logp"], "old_policy": flat["old"], "reference": flat["ref"],
                           "token_advantage" if by_token else "advantage": flat["adv"]}),
             "mask": (U8, c.c_uint8, [int(m) for m in flat["mask"]])},
            ["loss", "d_policy"], size * length, metrics)
        rows_of = lambda flat: [flat[i * length:(i + 1) * length] for i in range(size)]
        return {"loss": metrics.total, "value": rows_of(value), "d_logp": rows_of(d_policy)}

class Sequences:
    """Sequences of tokens, all of them scored, one behind the other; `library` is a Library."""

    def __init__(self, library, lengths):
        self.library, self.lengths = library, lengths
        offsets = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
        self.kept = [library.row([0] * offsets[-1], I32, c.c_int32),
                     library.row(offsets, I32, c.c_int32)]
        layout = Layout(c.sizeof(Layout), offsets=self.kept[1])
        self.kept.append(layout)
        self.tokens = Tokens(c.sizeof(Tokens), targets=self.kept[0],
                             layout=c.cast(c.pointer(layout), c.c_void_p))

    def run(self, name, *arguments):
        error = Error()
        function = getattr(self.library.api, f"prospect_{name}_cpu")
        self.library.check(function(*arguments, None, c.byref(error)), error)

    def reals(self, values):
        """A row of tokens, in the library's type, of a list of lists."""
        return self.library.row([x for one in values for x in one], self.library.dtype,
                                self.library.real)

    def doubles(self, values=None):
        return self.library.row(values or [math.nan] * len(self.lengths), F64, c.c_double)

    def counts(self, values=None):
        return self.library.row(values or [-1] * len(self.lengths), I32, c.c_int32)

    def reducer(self, log_prob, reference=None, public_tokens=None, **numbers):
        by = Reducer(c.sizeof(Reducer), log_prob=self.reals(log_prob), **numbers)
        if reference is not None:
            by.reference = self.reals(reference)
        if public_tokens is not None:
            by.public_tokens = self.counts(public_tokens)
        return by

    def sums(self, by):
        """The sum of each sequence, and its count."""
        sums, counts = self.doubles(), self.counts()
        self.run("reduced_sums", c.byref(self.tokens), c.byref(by), sums, counts)
        return list(sums.keep), list(counts.keep)

    def spread(self, by, d):
        """A list of coefficients for each sequence."""
        d_token = self.reals([[math.nan] * n for n in self.lengths])
        self.run("reduced_spread", c.byref(self.tokens), c.byref(by), self.doubles(d), d_token)
        tokens = iter(d_token.keep)
        return [[next(tokens) for _ in range(n)] for n in self.lengths]

    def public_tokens(self):
        """Of pairs whose chosen sequences are the first half."""
        public = self.counts()
        self.run("public_tokens", self.counts(self.lengths), Row(), Row(), public)
        return list(public.keep)

    def wpo_weights(self, log_prob, sum_squares):
        """The weight of each such pair."""
        weight = self.doubles()
        self.run("wpo_weights", c.byref(self.tokens), self.reals(log_prob),
                 self.reals(sum_squares), weight)
        of_pairs = self.doubles([math.nan] * (len(self.lengths) // 2))
        self.run("pair_weights", weight, Row(), Row(), of_pairs)
        return list(of_pairs.keep)
