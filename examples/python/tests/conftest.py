"""Small tensors, on machines that are often busy: one thread of PyTorch's is the fastest. PyTorch draws
from a seed that is printed where a test fails: PROSPECT_SEED=... draws the same again."""

import os
import time

import pytest

try:
    import torch

    torch.set_num_threads(1)
except ModuleNotFoundError:
    torch = None


@pytest.fixture(autouse=True)
def seeded():
    seed = int(os.environ.get("PROSPECT_SEED", time.time_ns() % 100000))
    print("PROSPECT_SEED", seed)
    if torch is not None:
        torch.manual_seed(seed)
