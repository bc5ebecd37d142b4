"""Metrics by the names that Hugging Face trainers log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Tuple

from prospect import _core
from prospect._losses import Loss, native


@dataclass(frozen=True)
class Metrics:
    """What a call counted.

    sums:             (sum, count) by name: add up over ranks and micro-batches, then divide.
    first_nonfinite:  the first example that is NaN or infinite, or -1.
    total:            the scalar loss.
    """

    sums: Dict[str, Tuple[float, float]]
    first_nonfinite: int
    total: float

    @property
    def means(self) -> Dict[str, float]:
        """Each metric's mean. What was not counted (an absent class) is absent, not 0."""
        return {name: total / count for name, (total, count) in self.sums.items() if count > 0}


def read(loss: Loss, array) -> Metrics:
    """The metrics that a call wrote into an array of `METRICS_SIZE` float64, now on the host."""
    handle = native(loss.name, loss.values, loss.score, loss.score_alpha, loss.averaging)
    return Metrics(*_core.read_metrics(handle, array))
