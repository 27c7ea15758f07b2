"""Where workers run: a bundle of a placement group for each worker, and ranks in the order of nodes."""

import socket
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import psutil

from data_pipeline.config import BadInput

LEAST_PLACEMENT_SECONDS = 20.0
"""Ray takes so long to give back the places of workers that have just ended."""
LOOK_SECONDS = 2.0
"""Between two looks at the nodes while room is waited for."""
ACCELERATOR = "accelerator_type:"
"""How the names of Ray's resources for accelerators by type begin; each node has one of such a resource."""
ACCELERATOR_AMOUNT = 0.001
UNBOUNDED = 10**9
CONNECT_SECONDS = 2.0
PROBES = 64
"""At a time: a node that is gone takes CONNECT_SECONDS to tell."""
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

    @property
    def node_name(self) -> str:
        """The address, and what tells it from other nodes with that address."""
        return f"{self.node}-{self.node_id[:8]}"


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place among the workers."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    gpus: tuple[str, ...]
    """Of all workers on the node, by local rank: each sees them all, as NCCL wants, and uses its own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How many workers a run is asked to have, and where."""

    workers: int = 1
    per_node: int | None = None
    """So many on each node; None: wherever there is room, on as few nodes as will do."""
    accelerator: str | None = None
    """Of nodes of this accelerator only, by Ray's name for it, such as `H100`."""

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise BadInput(f"workers={self.workers}: a run needs one or more")
        if self.per_node is not None and (self.per_node < 1 or self.workers % self.per_node):
            raise BadInput(f"workers={self.workers} are not a whole number of nodes with {self.per_node} each")

    @classmethod
    def of_nodes(cls, nodes: int, per_node: int, accelerator: str | None = None) -> "Shape":
        """So many workers on each of so many nodes."""
        for name, value in {"nodes": nodes, "workers-per-node": per_node}.items():
            if value < 1:
                raise BadInput(f"--{name} {value}: must be 1 or more")
        return cls(nodes * per_node, per_node, accelerator)

    def size_within(self, micro_batches: int, most: int) -> int:
        """The largest number of workers up to `most` that share the micro-batches equally, on whole nodes where nodes
        were asked for; 0 where there is none.

        >>> Shape(8).size_within(12, 5), Shape(8, per_node=2).size_within(12, 5), Shape(8).size_within(12, 0)
        (4, 4, 0)
        """
        each = self.per_node or 1
        return max((size for size in range(each, most + 1, each) if micro_batches % size == 0), default=0)

    def bundles(self, resources: dict[str, float], workers: int) -> list[dict[str, float]]:
        """What Ray is to keep together for so many workers: a bundle for each of them, or for each node."""
        if self.per_node is None:
            return [resources] * workers
        node = {name: amount * self.per_node for name, amount in resources.items()}
        return [node] * (workers // self.per_node)

    def bundle_of(self, index: int) -> int:
        """The bundle that the worker with this index is placed in."""
        return index if self.per_node is None else index // self.per_node


ANYWHERE = Shape()
"""One worker, wherever there is room."""


def bundle(device: str, shape: Shape, *, waits: bool = False) -> dict[str, float]:
    """What one worker takes of the cluster that this process has joined.

    BadInput says what the cluster lacks, unless the run `waits` for nodes that may come.
    """
    import ray

    total: dict[str, float] = ray.cluster_resources()
    resources = worker_resources(device, shape, total)
    if not waits:
        lacks(resources, shape, total, ray.available_resources())
    return resources


def worker_resources(device: str, shape: Shape, total: Mapping[str, float]) -> dict[str, float]:
    """What one worker takes: a processor, and a GPU each if there are any, unless the device is the processor.

    >>> worker_resources("auto", Shape(2, accelerator="H100"), {"CPU": 8, "GPU": 8})
    {'CPU': 1, 'GPU': 1, 'accelerator_type:H100': 0.001}
    """
    wants_gpus = device == "cuda" or (device != "cpu" and (shape.accelerator is not None or total.get("GPU", 0) >= 1))
    resources: dict[str, float] = {"CPU": 1, "GPU": 1} if wants_gpus else {"CPU": 1}
    if shape.accelerator is not None:
        resources[f"{ACCELERATOR}{shape.accelerator}"] = ACCELERATOR_AMOUNT
    return resources


def lacks(resources: dict[str, float], shape: Shape, total: Mapping[str, float], free: Mapping[str, float]) -> None:
    """Raise BadInput, saying what is missing, where the cluster could never hold the run."""
    lacking = missing(resources, shape, total, free)
    if lacking:
        on_cpu = ", or set engine.device=cpu" if "GPU" in resources and shape.accelerator is None else ""
        raise BadInput(
            f"workers={shape.workers}: {lacking}; use fewer workers{on_cpu}, or let the run wait for nodes that are "
            "to come: supervision.wait_minutes=60"
        )


def missing(
    resources: dict[str, float], shape: Shape, total: Mapping[str, float], free: Mapping[str, float]
) -> str | None:
    """Which of a cluster's resources are too few for the run, in words; None where all are enough.

    >>> missing({"CPU": 1, "GPU": 1}, Shape(8), {"CPU": 64, "GPU": 6}, {"CPU": 60, "GPU": 2})
    'the run needs 8 GPUs, the cluster has 6, 2 free'
    """
    for name, amount in resources.items():
        if name.startswith(ACCELERATOR):
            if not total.get(name):
                there = sorted(found.removeprefix(ACCELERATOR) for found in total if found.startswith(ACCELERATOR))
                return (
                    f"the run needs {name.removeprefix(ACCELERATOR)} accelerators, the cluster has "
                    f"{'only ' + ', '.join(there) if there else 'none of a known type'}"
                )
        elif total.get(name, 0.0) < amount * shape.workers:
            return _needs(name, amount * shape.workers, total, free)
    return None


def _needs(name: str, amount: float, total: Mapping[str, float], free: Mapping[str, float]) -> str:
    return (
        f"the run needs {amount:g} {name}s, the cluster has {total.get(name, 0.0):g}, "
        f"{max(free.get(name, 0.0), 0.0):g} free"
    )


class NoRoomError(Exception):
    """The cluster has no place for so many workers."""


def room(resources: dict[str, float], shape: Shape) -> int:
    """How many workers fit on the nodes that are there, whoever uses them now.

    A node is there if its port answers: Ray itself takes up to half a minute to miss one.
    """
    import ray

    return room_on([node["Resources"] for node in answering(ray.nodes())], resources, shape)


def answering(nodes: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of Ray's nodes that are alive and whose port answers, asked many at a time."""
    alive = [node for node in nodes if node["Alive"]]
    with ThreadPoolExecutor(max_workers=PROBES) as threads:
        answers = threads.map(lambda node: port_answers(node["NodeManagerAddress"], node["NodeManagerPort"]), alive)
        return [node for node, answer in zip(alive, answers, strict=True) if answer]


def room_on(nodes: Sequence[Mapping[str, float]], resources: dict[str, float], shape: Shape) -> int:
    """How many workers fit on nodes that have so much of each resource.

    >>> nodes = [{"CPU": 3.0}, {"CPU": 2.0}]
    >>> room_on(nodes, {"CPU": 1.0}, Shape(5)), room_on(nodes, {"CPU": 1.0}, Shape(4, per_node=2))
    (5, 4)
    """
    fitting = [
        min(
            int(node.get(name, 0.0) > 0) * UNBOUNDED
            if name.startswith(ACCELERATOR)
            else int(node.get(name, 0.0) // amount)
            for name, amount in resources.items()
        )
        for node in nodes
    ]
    each = shape.per_node
    return sum(fitting) if each is None else each * sum(fits >= each for fits in fitting)


def free_room(resources: dict[str, float], shape: Shape) -> int:
    """How many more workers would find their places free now."""
    from ray._private.state import available_resources_per_node

    return room_on(list(available_resources_per_node().values()), resources, shape)


def address_answers(address: str) -> bool:
    """Whether somebody listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    return port_answers(host.strip("[]"), int(port))


def port_answers(address: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def reserve(
    resources: dict[str, float],
    shape: Shape,
    workers: int,
    *,
    seconds: float,
    stopped: Callable[[], bool] = lambda: False,
    check: Callable[[], None] = lambda: None,
) -> Any:
    """A placement group for so many workers, on as few nodes as will do or on as many as were asked for.

    Raises NoRoomError, which says what is missing, once it was waited for so long, or at once where the nodes that
    are there could never hold them; and what `check` raises, which is called before each question to Ray's head.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    strategy = "PACK" if shape.per_node is None else "STRICT_SPREAD"
    group = placement_group(shape.bundles(resources, workers), strategy=strategy)
    deadline = time.monotonic() + max(seconds, LEAST_PLACEMENT_SECONDS)
    while not group.wait(LOOK_SECONDS):
        check()
        found = room(resources, shape)
        if (found < workers and not seconds) or time.monotonic() > deadline or stopped():
            remove_placement_group(group)
            total, free = ray.cluster_resources(), ray.available_resources()
            lacking = missing(resources, replace(shape, workers=workers), total, free)
            scarce = "GPU" if "GPU" in resources else "CPU"
            raise NoRoomError(
                lacking
                or f"{_needs(scarce, resources[scarce] * workers, total, free)}"
                + (f", and its nodes have room for {found} workers" if found < workers else "")
                + (f" with {shape.per_node} on each node" if shape.per_node else "")
            )
    return group


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
