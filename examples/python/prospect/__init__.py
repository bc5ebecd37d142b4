"""Preference-alignment losses (KTO, DPO, IPO, GRPO and their relatives) for NumPy and PyTorch.

    result = prospect.evaluate("dpo", policy_chosen=..., policy_rejected=...,
                               reference_chosen=..., reference_rejected=..., beta=0.1)
    result.total, result.gradients["policy_chosen"], result.metrics["rewards/margins"]

Here are losses by name for arrays in the host's memory. `prospect.torch` has the same for tensors, with
autograd, and the ways there from logits and from hidden states. `include_dir()` and
`cmake_prefix_path()` are for C++: the library is installed inside the package.
"""

from prospect._core import shutdown
from prospect._evaluate import Result, evaluate
from prospect._losses import Loss, kind, losses, parameters
from prospect._paths import cmake_prefix_path, include_dir
from prospect import _core

__version__ = _core.version()

__all__ = [
    "Loss",
    "Result",
    "cmake_prefix_path",
    "evaluate",
    "has_cuda",
    "include_dir",
    "kind",
    "losses",
    "parameters",
    "shutdown",
]


def has_cuda() -> bool:
    """Whether this package was built with device code, which `prospect.torch` takes for CUDA tensors."""
    return _core.has_cuda()


def __getattr__(name: str):
    # PyTorch is imported when it is asked for: NumPy alone is enough for everything else.
    if name != "torch":
        raise AttributeError(f"module 'prospect' has no attribute {name!r}")
    import importlib

    return importlib.import_module("prospect.torch")
