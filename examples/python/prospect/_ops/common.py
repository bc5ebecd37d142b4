"""What all operators share: types, where a call runs, and that they are differentiated once."""

import contextlib
from typing import Dict, Optional

import torch
from torch import Tensor

from prospect._evaluate import COUNTS


def wide(*rows: Optional[Tensor]) -> torch.dtype:
    """What is computed in: float64 if one of the rows is, else float32."""
    return torch.float64 if any(r is not None and r.dtype == torch.float64 for r in rows) else torch.float32


def given(**rows: Optional[Tensor]) -> Dict[str, Tensor]:
    """Those that there are, by name, for the library, whose counts are int32."""
    return {name: _narrow(name, row) if name in COUNTS and row.dtype == torch.int64 else row.detach()
            for name, row in rows.items() if row is not None}


def _narrow(name: str, counts: Tensor) -> Tensor:
    narrow = counts.clamp(-(2**31), 2**31 - 1).to(torch.int32)
    # On a device nothing waits for an answer: a count that is too large is the largest there.
    if not counts.is_cuda and not torch.equal(narrow.long(), counts):
        raise ValueError(f"prospect: {name} has a count that is no int32")
    return narrow


def bare(row: Optional[Tensor]) -> Optional[Tensor]:
    return None if row is None else row.detach()


@contextlib.contextmanager
def placed(tensor: Tensor):
    """Keywords of a call beside this tensor: on a device, its current stream and memory of its allocator."""
    if not tensor.is_cuda:
        yield {}
        return
    with torch.cuda.device(tensor.device):
        yield {
            "stream": torch.cuda.current_stream().cuda_stream,
            "allocate": lambda size: torch.empty(size, dtype=torch.uint8, device=tensor.device),
        }


def differentiated_once(op, what: str) -> None:
    """Makes a backward pass through this operator of a backward pass an error that says so."""

    def backward(ctx, *gradients):
        raise RuntimeError(f"prospect: {what} is differentiated once, and has no second derivative here")

    op.register_autograd(backward)
