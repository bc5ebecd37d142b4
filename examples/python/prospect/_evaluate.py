"""Losses by name for arrays in the host's memory: NumPy's, or anything that speaks DLPack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Collection, Dict, Tuple, Union

import numpy as np

from prospect import _core, _metrics
from prospect._losses import Loss, chosen_loss, kind_of, native, normaliser_of, number, require_of_kind

_ROWS = {"paired": _core.PAIRED_ROWS, "unpaired": _core.UNPAIRED_ROWS, "token": _core.TOKEN_ROWS}
COUNTS = ("tokens", "chosen_tokens", "rejected_tokens", "third_tokens", "mismatched_tokens")
_MASKS = ("bool", "uint8", "int32", "float32")  # what the library reads; of anything else, what is not 0


@dataclass(frozen=True)
class Result:
    """What a loss makes of a batch; arrays are float64 if a log-probability was, else float32.

    total:      the scalar loss, after the normaliser.
    loss:       of each example, times its weight, never reduced.
    gradients:  dL/dP of the scalar loss by each policy row, under the row's name; of pairs by index, under
                policy_chosen and policy_rejected, one for each pair.
    rewards:    beta x log-ratio, under "chosen" and "rejected", or "reward".
    metrics:    means by the names Hugging Face trainers log; what was not counted is absent.
    sums:       the same as (sum, count), to be added up over ranks and micro-batches.
    first_nonfinite:  the first example that is NaN or infinite, or -1.
    """

    total: float
    loss: np.ndarray
    gradients: Dict[str, np.ndarray]
    rewards: Dict[str, np.ndarray]
    metrics: Dict[str, float]
    sums: Dict[str, Tuple[float, float]]
    first_nonfinite: int


def _array(name: str, value: Any) -> Any:
    """As it is if it is an array, else what NumPy makes of a list of numbers."""
    if np.ma.is_masked(value):
        raise ValueError(f"prospect: {name} has masked entries, which would be read: give the values, and a mask")
    if hasattr(value, "__dlpack__") or hasattr(value, "__array_interface__"):
        # PyTorch's negative view has its sign in a bit that DLPack does not know.
        array = value.resolve_neg() if hasattr(value, "resolve_neg") else value
    else:
        array = np.asarray(value)
        if array.dtype == object:
            raise ValueError(f"prospect: {name} is neither an array nor a list of numbers")
    # Counts are int32 in the library, and int64 wherever somebody summed a mask.
    if name in COUNTS and _type_of(array) == "int64":
        counts = array if isinstance(array, np.ndarray) else np.from_dlpack(array)
        array = counts.astype(np.int32)
        if not np.array_equal(array, counts):
            raise ValueError(f"prospect: {name} has a count that is no int32")
    if name == "mask" and _type_of(array) not in _MASKS:
        array = array != 0
    return array


def _type_of(array: Any) -> str:
    """The name of its type of numbers, whoever's array it is."""
    return str(getattr(array, "dtype", "")).rpartition(".")[2]


def check_tokens(rows: Dict[str, Any], packed: bool) -> None:
    """Refuses rows of tokens that are not of the policy's shape: they would be read in another order."""
    shape = tuple(rows["policy"].shape)
    if len(shape) not in (1, 2) or (len(shape) == 1) != packed:
        raise ValueError("prospect: policy must be [batch, length], or [tokens] with offsets")
    for name, row in rows.items():
        if row is not None and name != "advantage" and tuple(row.shape) != shape:
            raise ValueError(f"prospect: {name} is {list(row.shape)}, and policy is {list(shape)}")


def evaluate(
    loss: Union[str, Loss],
    *,
    normaliser: Union[str, float] = "mean",
    tokens_over: float = 0.0,
    z: Union[None, float, str] = None,
    offsets: Any = None,
    entropy_coef: float = 0.0,
    **rows_and_parameters: Any,
) -> Result:
    """Losses, gradients, rewards and metrics of a batch.

    loss:        a name of `losses()`, with its parameters as keywords, or a `Loss`.
    normaliser:  what the sum is divided by: "mean" (the counted examples), "sum" (nothing) or a count,
                 e.g. one over ranks and micro-batches.
    tokens_over: the same count of tokens, for paired losses with a next-token term, beside a count.

    A paired loss takes rows of n summed log-probabilities in nats: policy_chosen, policy_rejected and, if
    it reads them, reference_chosen, reference_rejected; chosen_tokens, rejected_tokens (scored tokens);
    weight, margin; policy_third, third_tokens. Or policy, reference, tokens of any number of sequences, and
    indices chosen, rejected, third of each pair.

    An unpaired loss takes policy, reference, desirable (bool), tokens, weight, target and a reference point:
    `z` in nats, or mismatched_policy and mismatched_reference (each prompt with another's completion), whose
    clamped mean log-ratio it then is (of those with mismatched_tokens above 0, if given), or z="cross_class"
    (SimpleKTO's). bco and kto_surprisal, whose points are never clamped, take a number. kto_zero and others that
    read none take none.

    A token loss takes policy, old_policy, reference, advantage (one a sequence) or token_advantage, weight,
    entropy, targets, mask: [batch, length], or [tokens] with `offsets` ([batch + 1], cu_seqlens).
    `entropy_coef` times the mean entropy is subtracted.

    Rows may be float32, float64, bfloat16 or float16, strided, and differ; they lie on the host. Counts are
    int32 or int64, masks of anything, of which 0 is not scored. The lock of the interpreter is released
    meanwhile. ValueError names the argument; nothing is written before all are checked.
    """
    what = kind_of(loss)
    rows = {name: _array(name, rows_and_parameters.pop(name)) for name in _ROWS[what]
            if rows_and_parameters.get(name) is not None}
    for name in _ROWS[what]:
        rows_and_parameters.pop(name, None)
    for other, names in _ROWS.items():
        for name in rows_and_parameters:
            if name in names:
                raise ValueError(f"prospect: {name} is a row of {other} losses, and this is one of {what} ones")
    chosen = chosen_loss(loss, rows_and_parameters)
    handle = native(chosen.name, chosen.values, chosen.score, chosen.score_alpha, chosen.averaging)
    how, count = normaliser_of(normaliser)
    tokens_over, entropy_coef = number("tokens_over", tokens_over), number("entropy_coef", entropy_coef)

    first = "policy_chosen" if what == "paired" and "policy_chosen" in rows else "policy"
    if first not in rows:
        raise ValueError(f"prospect: {first} is missing")
    shape = tuple(rows[first].shape)
    if what != "token" and len(shape) != 1:
        raise ValueError(f"prospect: {first} must have 1 dimension, and has {len(shape)}")
    wide = any(_type_of(row) == "float64" for name, row in rows.items() if "policy" in name or "reference" in name)
    kind_of_number = np.float64 if wide else np.float32
    metrics = np.zeros(_core.METRICS_SIZE)

    def empty(size: int) -> np.ndarray:
        return np.empty(size, kind_of_number)

    require_of_kind(what, tokens_over, z, offsets, entropy_coef)

    if what == "paired":
        n = shape[0] if first == "policy_chosen" else int(np.prod(rows["chosen"].shape)) if "chosen" in rows else 0
        results = {name: empty(n) for name in ("loss", "d_policy_chosen", "d_policy_rejected", "reward_chosen",
                                               "reward_rejected")}
        if "policy_third" in rows or "third" in rows:
            results["d_policy_third"] = empty(n)
        _core.pairs(handle, rows, results, metrics, how, count, tokens_over)
    elif what == "unpaired":
        n = shape[0]
        results = {name: empty(n) for name in ("loss", "d_policy", "reward")}
        point, at = reference_point(chosen, z, rows)
        _core.completions(handle, rows, results, metrics, point, at, how, count)
    else:
        check_tokens(rows, offsets is not None)
        sequences, length = shape if len(shape) == 2 else (0, 0)
        rows = {name: row if name == "advantage" or len(shape) == 1 else row.reshape(-1) for name, row in rows.items()}
        size = int(np.prod(shape))
        results = {name: empty(size) for name in ("loss", "d_policy")}
        if entropy_coef:
            results["d_entropy"] = empty(size)
        held = None if offsets is None else _array("offsets", offsets)
        _core.token_losses(handle, rows, results, metrics, sequences, length, held, entropy_coef, how, count)
        results = {name: row.reshape(shape) for name, row in results.items()}

    seen = _metrics.read(chosen, metrics)
    return Result(
        total=seen.total,
        loss=results["loss"],
        gradients={name[2:]: row for name, row in results.items() if name.startswith("d_")},
        rewards={name[7:] or "reward": row for name, row in results.items() if name.startswith("reward")},
        metrics=seen.means,
        sums=seen.sums,
        first_nonfinite=seen.first_nonfinite,
    )


# Losses of thumbs that read no reference point: a test asks the library whether these are all.
_WITHOUT_POINT = ("kto_zero", "a2po")
# Whose points are no clamped mean log-ratio: bco's is a running mean of rewards, kto_surprisal's a mean of
# log-probabilities a token, below 0.
_UNCLAMPED = ("bco", "kto_surprisal")


def must_observe(loss: Loss, name: str) -> None:
    """Refuses an observation, a clamped mean log-ratio, where the loss's point is none, or there is none."""
    if loss.name in _WITHOUT_POINT:
        raise ValueError(f"prospect: {loss.name} reads no reference point, and {name} gives one")
    if loss.name in _UNCLAMPED:
        raise ValueError(f"prospect: {name} gives a point that is clamped at 0, and {loss.name}'s is not: give z as a "
                         "number of nats")


def reference_point(loss: Loss, z: Union[None, float, str], rows: Collection[str]) -> Tuple[str, float]:
    """("given" | "cross_class" | "batch_mean", z) of what a caller gave; `rows` are the names of those given."""
    mismatched = [name for name in ("mismatched_policy", "mismatched_reference", "mismatched_tokens") if name in rows]
    if mismatched:
        if z is not None:
            raise ValueError(f"prospect: z and {mismatched[0]} are two reference points: give one")
        if mismatched[0] != "mismatched_policy":
            raise ValueError(f"prospect: {mismatched[0]} is read beside mismatched_policy, which is missing")
        must_observe(loss, "mismatched_policy")
        return "batch_mean", 0.0
    if isinstance(z, str) and z == "cross_class":
        must_observe(loss, 'z="cross_class"')
        return "cross_class", 0.0
    if z is None:
        if loss.name in _WITHOUT_POINT:
            return "given", 0.0
        raise ValueError(
            f'prospect: {loss.name} is measured against a reference point: give z (nats), "cross_class", or '
            "mismatched_policy and mismatched_reference"
        )
    if isinstance(z, str):
        raise ValueError(f'prospect: z must be a number of nats or "cross_class", and is {z!r}')
    return "given", number("z", z)
