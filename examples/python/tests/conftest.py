"""Small tensors, on machines that are often busy: one thread of PyTorch's is the fastest."""

try:
    import torch

    torch.set_num_threads(1)
except ModuleNotFoundError:
    pass
