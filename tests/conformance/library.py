"""The C API of the shared library, as far as the conformance runs need it: losses by name, on the CPU, in
fp64 or fp32, through ctypes."""

import ctypes as c

F32, F64, I32, U8 = 0, 1, 4, 6
MEAN, SUM, OVER = 0, 1, 2
PAIRED, UNPAIRED = 0, 1
GIVEN_POINT, CROSS_CLASS = 0, 1


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
                      "d_policy_rejected", "reward_chosen", "reward_rejected", "d_policy")]


class Completions(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32),
                ("reference_point", c.c_int32), ("count", c.c_double), ("count_at", c.c_void_p),
                ("z", c.c_double), ("z_raw", c.c_double), ("observed", c.c_void_p),
                *rows("policy", "reference", "desirable", "tokens", "weight", "mismatched_policy",
                      "mismatched_reference", "mismatched_tokens", "loss", "d_policy", "reward"),
                ("seen", c.c_void_p)]


class Layout(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("sequences", c.c_int64), ("length", c.c_int64),
                *rows("offsets", "begins", "ends")]


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

    def loss(self, name, parameters):
        loss, error = Loss(), Error()
        self.check(self.api.prospect_loss_init(c.byref(loss), name.encode(), c.byref(error)), error)
        for parameter, value in parameters.items():
            self.check(self.api.prospect_loss_set(c.byref(loss), parameter.encode(),
                                                  c.c_double(value), c.byref(error)), error)
        return loss

    def row(self, values, dtype, element):
        data = (element * len(values))(*values)
        row = Row(c.cast(data, c.c_void_p), len(values), 1, dtype, 0)
        row.keep = data
        return row

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
        self.check(function(c.byref(loss), c.byref(struct), metrics and c.byref(metrics), None,
                            c.byref(error)), error)
        return [list(written[name]) for name in outputs]

    def reals(self, columns):
        return {name: (self.dtype, self.real, values) for name, values in columns.items()}

    def counts(self, columns):
        return {name: (I32, c.c_int32, values) for name, values in columns.items()}

    def pairs(self, name, parameters, reals, counts):
        """(loss, dL/dchosen, dL/drejected) for each pair; neither summed nor averaged."""
        n = len(reals["policy_chosen"])
        return list(zip(*self.call(self.api.prospect_pairs_cpu, self.loss(name, parameters),
                                   Pairs(normaliser=SUM),
                                   {**self.reals(reals), **self.counts(counts)},
                                   ["loss", "d_policy_chosen", "d_policy_rejected"], n)))

    def completions(self, name, parameters, z, reals, counts, desirable):
        """(loss, dL/dpolicy) for each completion."""
        n = len(reals["policy"])
        return list(zip(*self.call(self.api.prospect_completions_cpu, self.loss(name, parameters),
                                   Completions(normaliser=SUM, z=z),
                                   {**self.reals(reals), **self.counts(counts),
                                    "desirable": (U8, c.c_uint8, desirable)},
                                   ["loss", "d_policy"], n)))

    def tokens(self, name, parameters, batch, count=None):
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
            self.api.prospect_token_losses_cpu, self.loss(name, parameters), struct,
            {**self.reals({"policy": flat["logp"], "old_policy": flat["old"], "reference": flat["ref"],
                           "token_advantage" if by_token else "advantage": flat["adv"]}),
             "mask": (U8, c.c_uint8, [int(m) for m in flat["mask"]])},
            ["loss", "d_policy"], size * length, metrics)
        rows_of = lambda flat: [flat[i * length:(i + 1) * length] for i in range(size)]
        return {"loss": metrics.total, "value": rows_of(value), "d_logp": rows_of(d_policy)}
