"""Whether the workers still hold the same: what is replicated must be equal in every bit.

A flipped bit in one worker's memory, or a miscomputed sum on one device, is found by comparing hashes. Nothing else
would tell: the worker goes on with its wrong weights, and its gradients spoil those of all.
"""

from torch import Tensor

from pretrain.checkpoint.sealed import bytes_of, hash_of
from pretrain.engines.engine import Engine


class ReplicasDifferError(Exception):
    """Some workers hold other values than the rest; the run has to go back to a checkpoint from before that."""


def check_replicas(engine: Engine, *, step: int) -> None:
    """Raise ReplicasDifferError, the same on every worker, naming workers and tensor, unless all replicas are equal.

    Collective. Named are the workers that differ from what most hold; where there is no majority, all of them.
    """
    if engine.group.world_size == 1:
        return
    digests = {name: digest(tensor) for name, tensor in engine.replicas()}
    whole = hash_of("".join(digests.values()).encode())
    if len(set(engine.group.gather(whole))) == 1:
        return
    by_worker: list[dict[str, str]] = engine.group.gather(digests)
    first = next(name for name in digests if len({found[name] for found in by_worker}) > 1)
    raise ReplicasDifferError(
        f"after step {step}, {named_workers([found[first] for found in by_worker])} "
        f"of {first}, which all workers must hold alike"
    )


def named_workers(values: list[str]) -> str:
    """Which workers hold something else than most.

    >>> named_workers(["a", "a", "b", "a"])
    'worker 2 holds other values than the rest'
    >>> named_workers(["a", "b"])
    'workers 0, 1 hold each other values'
    """
    most = max(set(values), key=values.count)
    if 2 * values.count(most) <= len(values):
        return f"workers {', '.join(map(str, range(len(values))))} hold each other values"
    odd = [str(rank) for rank, value in enumerate(values) if value != most]
    return f"worker{'s' * (len(odd) > 1)} {', '.join(odd)} hold{'s' * (len(odd) == 1)} other values than the rest"


def digest(tensor: Tensor) -> str:
    """32 hexadecimal digits, of the tensor's bytes."""
    return hash_of(bytes_of(tensor.detach().reshape(-1).cpu()))
