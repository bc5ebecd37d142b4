"""Losses by name: which there are, their parameters, and a loss with its parameters chosen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, List, Optional, Tuple, Union

from prospect import _core

_DEFAULTS: Dict[str, Dict[str, float]] = {name: _core.Loss(name).parameters for name in _core.loss_names()}
_KINDS: Dict[str, str] = {name: _core.Loss(name).kind for name in _core.loss_names()}


def _known(name: str) -> str:
    if name not in _KINDS:
        raise ValueError(f"prospect: there is no loss {name!r}; there are {', '.join(_KINDS)}")
    return name


def losses(kind: Optional[str] = None) -> List[str]:
    """The names of the built-in losses: of one kind ("paired", "unpaired" or "token"), or of all."""
    if kind not in (None, "paired", "unpaired", "token"):
        raise ValueError(f'prospect: kind must be "paired", "unpaired" or "token", and is {kind!r}')
    return [name for name in _KINDS if kind in (None, _KINDS[name])]


def kind(name: str) -> str:
    """What a loss takes: "paired" (chosen and rejected), "unpaired" (thumbs) or "token"."""
    return _KINDS[_known(name)]


def parameters(name: str) -> Dict[str, float]:
    """The hyper-parameters of a loss and their defaults, in the loss's order."""
    return dict(_DEFAULTS[_known(name)])


@dataclass(frozen=True)
class Loss:
    """A loss and its hyper-parameters. Wherever a name is taken, one of these is as well.

    name:       one of `losses()`.
    values:     of its parameters, in the order of `parameters(name)`; see `Loss.of`.
    score:      for losses of a difference of log-ratios, the f-divergence that holds the policy to its
                reference: "reverse_kl", "forward_kl", "js_divergence" or "alpha_divergence". "" is
                the log-ratio itself.
    score_alpha: of "alpha_divergence".
    averaging:  for losses of tokens: "tokens", "sequence_means" or "sequence_sums". "" is the loss's own.

    Made by `Loss.of("dpo", beta=0.2, score="forward_kl")`. ValueError names what is not possible.
    """

    name: str
    values: Tuple[float, ...]
    score: str = ""
    score_alpha: float = 0.0
    averaging: str = ""

    @staticmethod
    def of(name: str, *, score: str = "", score_alpha: float = 0.0, averaging: str = "", **parameters: float) -> Loss:
        values = dict(_DEFAULTS[_known(name)])
        for parameter, value in parameters.items():
            if parameter not in values:
                there = ", ".join(values) if values else "none"
                raise ValueError(f"prospect: {name} has no parameter {parameter!r}; it has {there}")
            values[parameter] = number(parameter, value)
        return Loss(name, tuple(values.values()), score, number("score_alpha", score_alpha), averaging)

    @property
    def kind(self) -> str:
        """"paired", "unpaired" or "token"."""
        return _KINDS[self.name]

    @property
    def parameters(self) -> Dict[str, float]:
        """Its hyper-parameters by name."""
        return dict(zip(_DEFAULTS[self.name], self.values))


@lru_cache(maxsize=256)
def native(name: str, values: Tuple[float, ...], score: str, alpha: float, averaging: str):
    """The library's loss; what it has no use for, and values outside their domain, are refused here."""
    if len(values) != len(_DEFAULTS[_known(name)]):
        raise ValueError(f"prospect: values must be those of {', '.join(_DEFAULTS[name]) or 'no parameter'}, in this "
                         f"order, and are {len(values)}")
    if alpha and score != "alpha_divergence":
        raise ValueError(f'prospect: score_alpha is of score="alpha_divergence", and score is {score!r}')
    return _core.Loss(name, dict(zip(_DEFAULTS[name], values)), score, alpha, averaging)


def chosen_loss(loss: Union[str, Loss], parameters: Dict[str, float]) -> Loss:
    """A loss from what a caller gave: its name and parameters, or a Loss and none."""
    if isinstance(loss, Loss):
        if parameters:
            raise ValueError(f"prospect: {next(iter(parameters))} is no argument where a Loss is given")
        return loss
    if not isinstance(loss, str):
        raise ValueError(f"prospect: loss must be a name or a prospect.Loss, and is a {type(loss).__name__}")
    return Loss.of(loss, **parameters)


def kind_of(loss: Union[str, Loss]) -> str:
    """The kind of what a caller gave as `loss`."""
    return loss.kind if isinstance(loss, Loss) else kind(loss)


def number(name: str, value: Any) -> float:
    """A number that a caller gave, NumPy's and PyTorch's of one element too. No gradient goes to it."""
    if isinstance(value, (int, float)):
        return float(value)
    if getattr(value, "requires_grad", False):
        raise ValueError(f"prospect: {name} requires a gradient, and none passes through it: detach() it")
    try:
        return float(value.item())
    except (AttributeError, TypeError, ValueError, RuntimeError):  # RuntimeError: PyTorch's, of several elements
        raise ValueError(f"prospect: {name} must be a number, and is a {type(value).__name__}") from None


def normaliser_of(normaliser: Union[str, float]) -> Tuple[str, float]:
    """("mean" | "sum" | "over", count) of what a caller gave."""
    if isinstance(normaliser, str):
        if normaliser not in ("mean", "sum"):
            raise ValueError(f'prospect: normaliser must be "mean", "sum" or a count, and is {normaliser!r}')
        return normaliser, 0.0
    return "over", number("normaliser", normaliser)


def require_of_kind(what: str, tokens_over: float, z: object, offsets: object, entropy_coef: float) -> None:
    """Refuses arguments that losses of this kind do not read."""
    if what != "paired" and tokens_over:
        raise ValueError("prospect: tokens_over is for paired losses with a next-token term")
    if what != "unpaired" and z is not None:
        raise ValueError("prospect: z is for losses of thumbs, and this is none")
    if what != "token" and (offsets is not None or entropy_coef):
        raise ValueError("prospect: offsets and entropy_coef are for losses of tokens, and this is none")
