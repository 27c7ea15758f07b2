"""What this machine can do at most, for utilisation: dense matrix products per second."""

from functools import cache
from time import perf_counter

import torch

from pretrain.accelerators import ACCELERATORS


def known_peak(device_name: str, precision: str) -> float | None:
    """The data sheet's figure (`pretrain.accelerators`), or None for a device that the table lacks."""
    for accelerator in ACCELERATORS.values():
        if accelerator.device in device_name:
            return accelerator.peaks[precision]
    return None


@cache
def peak_flops(device_type: str, precision: str, threads: int) -> float | None:
    """FLOP/s of one worker: the data sheet's for an accelerator, measured for the CPU; None where it is not known."""
    if device_type == "cuda":
        return known_peak(torch.cuda.get_device_name(), precision)
    return _measured_cpu(precision) if device_type == "cpu" else None


def _measured_cpu(precision: str, size: int = 512, repeats: int = 8) -> float:
    """The best of a few square matrix products with the threads torch has now."""
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(size, size, generator=generator).to(getattr(torch, precision))
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        a @ a
        best = min(best, perf_counter() - start)
    return 2.0 * size**3 / best


def resident_bytes() -> int:
    """This process's memory on the accelerator at its peak, or its resident size."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import psutil

    return int(psutil.Process().memory_info().rss)
