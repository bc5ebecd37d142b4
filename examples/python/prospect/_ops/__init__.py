"""The torch.library operators: prospect::pairs, ::completions, ::token_losses, ::log_probs, ::head_log_probs
and what their backward passes call. Each has a fake kernel, so that torch.compile traces through it, and is
differentiated once: a second derivative is refused by name.

`prospect.torch` is what users call; here tensors are rows and matrices already.
"""

from prospect._ops.head import head_log_probs
from prospect._ops.sequences import completions, pairs, token_losses
from prospect._ops.tokens import STATISTICS, log_probs

__all__ = ["STATISTICS", "completions", "head_log_probs", "log_probs", "pairs", "token_losses"]
