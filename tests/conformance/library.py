"""The C API of the shared library, as far as the conformance runs need it: losses by name, on the CPU, in
fp64 or fp32, through ctypes."""

import ctypes as c

F32, F64, I32, U8 = 0, 1, 4, 6
MEAN, SUM = 0, 1
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
                      "d_policy_rejected", "reward_chosen", "reward_rejected", "d_policy"),
                ("token_count", c.c_double), ("token_count_at", c.c_void_p),
                *rows("policy_third", "third_tokens", "third", "d_policy_third")]


class Completions(c.Structure):
    _fields_ = [("struct_size", c.c_size_t), ("normaliser", c.c_int32),
                ("reference_point", c.c_int32), ("count", c.c_double), ("count_at", c.c_void_p),
                ("z", c.c_double), ("z_raw", c.c_double), ("observed", c.c_void_p),
                *rows("policy", "reference", "desirable", "tokens", "weight", "mismatched_policy",
                      "mismatched_reference", "mismatched_tokens", "loss", "d_policy", "reward"),
                ("seen", c.c_void_p)]


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

    def call(self, function, loss, struct, inputs, outputs, n):
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
        self.check(function(c.byref(loss), c.byref(struct), None, None, c.byref(error)), error)
        return [list(written[name]) for name in outputs]

    def reals(self, columns):
        return {name: (self.dtype, self.real, values) for name, values in columns.items()}

    def counts(self, columns):
        return {name: (I32, c.c_int32, values) for name, values in columns.items()}

    def pairs(self, name, parameters, reals, counts, normaliser=SUM):
        """(loss, dL/dchosen, dL/drejected) for each pair, and dL/dthird where there is a third
        completion; neither summed nor averaged, unless the normaliser says so."""
        n = len(reals["policy_chosen"])
        outputs = ["loss", "d_policy_chosen", "d_policy_rejected"]
        if "policy_third" in reals:
            outputs.append("d_policy_third")
        return list(zip(*self.call(self.api.prospect_pairs_cpu, self.loss(name, parameters),
                                   Pairs(normaliser=normaliser),
                                   {**self.reals(reals), **self.counts(counts)}, outputs, n)))

    def pairs_apart(self, name, parameters, reals, counts):
        """The same, each pair as a batch of its own: what is a mean over tokens is one over the
        tokens of that pair."""
        return [self.pairs(name, parameters, {k: [v[i]] for k, v in reals.items()},
                           {k: [v[i]] for k, v in counts.items()}, MEAN)[0]
                for i in range(len(reals["policy_chosen"]))]

    def completions(self, name, parameters, z, reals, counts, desirable):
        """(loss, dL/dpolicy) for each completion."""
        n = len(reals["policy"])
        return list(zip(*self.call(self.api.prospect_completions_cpu, self.loss(name, parameters),
                                   Completions(normaliser=SUM, z=z),
                                   {**self.reals(reals), **self.counts(counts),
                                    "desirable": (U8, c.c_uint8, desirable)},
                                   ["loss", "d_policy"], n)))
