"""A worker that runs out of memory: what is said of it, with its peak and with what makes a run need less."""

import resource

import torch

from cluster.tables import bytes_text
from data_pipeline.config import GaveUp

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc")
"""Of torch's errors that have no class of their own."""
REMEDIES = (
    "more workers, engine.activation_checkpointing=true and a higher engine.zero_stage need less of each worker and "
    "change nothing of the run; `plan` says how much"
)


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether this, or what caused it, is an allocation that failed.

    >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"))
    True
    >>> is_out_of_memory(RuntimeError("the size of tensor a must match")), is_out_of_memory(None)
    (False, False)
    """
    while error is not None:
        if isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        if isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS):
            return True
        error = error.__cause__ or error.__context__
    return False


def explained(error: BaseException, rank: int) -> GaveUp:
    """What a user is told in its place: another start would end in the same."""
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    peak = f"{bytes_text(host)} of the machine's memory"
    if torch.cuda.is_available():
        peak = f"{bytes_text(torch.cuda.max_memory_allocated())} of its GPU's memory and {peak}"
    asked = str(error).strip().splitlines()
    detail = f": {asked[0][:200]}" if asked else ""
    return GaveUp(f"worker {rank} is out of memory{detail}; it held {peak} at most; {REMEDIES}")
