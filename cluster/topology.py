"""Where workers run: a bundle of a placement group for each worker, and ranks in the order of nodes."""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import psutil

from data_pipeline.config import BadInput

PLACEMENT_SECONDS = 60.0
LOOK_SECONDS = 2.0
"""Between two looks at the nodes while room is waited for."""
CONNECT_SECONDS = 2.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Location:
    """Where Ray put a worker."""

    node: str
    """The node's address."""
    pid: int
    gpus: tuple[str, ...]
    node_id: str = ""
    """Ray's: several nodes may have one address."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place among the workers."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    gpus: tuple[str, ...]
    """Of all workers on the node, by local rank: each sees them all, as NCCL wants, and uses its own."""


def bundle(device: str, workers: int) -> dict[str, float]:
    """What one worker takes, where `auto` is a GPU each if the cluster has so many; BadInput where it lacks them."""
    import ray

    total: dict[str, float] = ray.cluster_resources()
    gpus = int(total.get("GPU", 0))
    if device != "cpu" and gpus < workers and (gpus or device == "cuda"):
        raise BadInput(
            f"engine.device is {device!r} with {workers} workers, but Ray sees {gpus} GPUs; "
            "use fewer workers, or engine.device=cpu"
        )
    if int(total.get("CPU", 0)) < workers:
        raise BadInput(f"workers={workers}: Ray's cluster has {int(total.get('CPU', 0))} CPUs; each worker needs one")
    return {"CPU": 1, "GPU": 1} if device != "cpu" and gpus >= workers else {"CPU": 1}


class NoRoomError(Exception):
    """The cluster has no place for so many workers."""


def room(resources: dict[str, float]) -> int:
    """How many bundles fit on the nodes that are there, whoever uses them now.

    A node is there if its port answers: Ray itself takes up to half a minute to miss one.
    """
    import ray

    alive = [node for node in ray.nodes() if node["Alive"]]
    with ThreadPoolExecutor(max_workers=64) as threads:
        answers = threads.map(lambda node: port_answers(node["NodeManagerAddress"], node["NodeManagerPort"]), alive)
        there = [node for node, answer in zip(alive, answers, strict=True) if answer]
    return sum(
        min(int(node["Resources"].get(name, 0.0) // amount) for name, amount in resources.items()) for node in there
    )


def port_answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def reserve(resources: dict[str, float], workers: int) -> Any:
    """A placement group with a bundle for each worker, on as few nodes as will do; raises NoRoomError."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([resources] * workers, strategy="PACK")
    deadline = time.monotonic() + PLACEMENT_SECONDS
    while not group.wait(LOOK_SECONDS):
        found = room(resources)
        if found < workers or time.monotonic() > deadline:
            remove_placement_group(group)
            raise NoRoomError(
                f"Ray found no room for {workers} times {resources} in {PLACEMENT_SECONDS:.0f} s"
                if found >= workers
                else f"Ray's nodes have room for {found} times {resources}, not for {workers}"
            )
    return group


def divisor_within(micro_batches: int, most: int) -> int:
    """The largest number of workers up to `most` that share the micro-batches equally; 0 where there is none.

    >>> divisor_within(12, 5), divisor_within(12, 0)
    (4, 0)
    """
    return max((size for size in range(1, most + 1) if micro_batches % size == 0), default=0)


def seats(locations: Sequence[Location]) -> list[Seat]:
    """The seat of each location, in their order: ranks go node by node, in the order that nodes appear.

    >>> a, b = Location("10.0.0.1", 7, ("0",)), Location("10.0.0.2", 7, ("0",))
    >>> [(seat.rank, seat.local_rank) for seat in seats([a, b, a])]
    [(0, 0), (2, 0), (1, 1)]
    """
    by_node: dict[str, list[int]] = defaultdict(list)
    for index, location in enumerate(locations):
        by_node[location.node].append(index)
    found: dict[int, Seat] = {}
    for node, indices in by_node.items():
        gpus = tuple(gpu for index in indices for gpu in locations[index].gpus)
        for local_rank, index in enumerate(indices):
            found[index] = Seat(len(found), len(locations), local_rank, node, gpus)
    return [found[index] for index in range(len(locations))]


def meeting_address(seated: Sequence[Seat]) -> str:
    """Where the workers' process group meets: on loopback if all are on one node, else at the leader's address."""
    nodes = Counter(seat.node for seat in seated)
    return LOOPBACK if len(nodes) == 1 else next(seat.node for seat in seated if seat.rank == 0)


def interface_of(address: str) -> str:
    """The network interface that has this address: gloo is to use it, and to listen on no other."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    raise BadInput(f"no network interface of {socket.gethostname()} has the address {address}")
