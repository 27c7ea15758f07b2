"""Where workers run: a Ray session, a bundle of a placement group for each worker, and ranks in the order of nodes."""

import logging
import os
import shutil
import socket
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psutil

from data_pipeline.config import BadInput, GaveUp

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Despite its name (Ray 2.60): 0 leaves 127.0.0.1 as it is, so that every server of the session listens there only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Workers set CUDA_VISIBLE_DEVICES themselves.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by Ray when it is imported, and handed on to its processes; it has no other switch for these."""

OBJECT_STORE_BYTES = 80 * 2**20
"""Close to Ray's least: workers send each other nothing through it."""

START_ATTEMPTS = 3
PLACEMENT_SECONDS = 60.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Location:
    """Where Ray put a worker."""

    node: str
    """The node's address."""
    pid: int
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seat:
    """A worker's place among the workers."""

    rank: int
    world_size: int
    local_rank: int
    node: str
    gpus: tuple[str, ...]
    """Of all workers on the node, by local rank: each sees them all, as NCCL wants, and uses its own."""


@contextmanager
def ray_session(workers: int) -> Iterator[None]:
    """A Ray on loopback that ends with the context; or the one that this process has joined already, left as it is."""
    os.environ.update(RAY_ENVIRONMENT)
    import ray

    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # what the variable above does where Ray was imported before
    # Ray tells every death of a worker in a paragraph, whatever its log level; the supervisor tells it in a line.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    if ray.is_initialized():
        yield
        return
    _apart_from_signals()
    directory = tempfile.mkdtemp(prefix="segue-", dir="/tmp")  # Ray's sockets are below it; their paths must be short
    try:
        _start(directory, workers)
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def _apart_from_signals() -> None:
    """Start Ray's servers in sessions of their own: a SIGTERM to the driver's whole process group (timeout, systemd,
    Slurm) must not end them before the workers have saved. Checked with Ray 2.60."""
    from ray._private import services

    if services.ConsolePopen.__name__ != "OwnSession":

        class OwnSession(services.ConsolePopen):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, start_new_session=True, **options)

        services.ConsolePopen = OwnSession


def _start(directory: str, workers: int) -> None:
    """Start Ray on this machine; once more where its servers took longer than it waits (30 s, no switch)."""
    import ray

    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=directory,
            )
            return
        except Exception as error:  # Ray raises just this
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                raise GaveUp(f"Ray does not start on this machine, in {START_ATTEMPTS} attempts: {error}") from error


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


def reserve(resources: dict[str, float], workers: int) -> Any:
    """A placement group with a bundle for each worker, on as few nodes as will do."""
    from ray.util.placement_group import placement_group, remove_placement_group

    group = placement_group([resources] * workers, strategy="PACK")
    if not group.wait(PLACEMENT_SECONDS):
        remove_placement_group(group)
        raise BadInput(
            f"workers={workers}: Ray found no room for {workers} times {resources} in {PLACEMENT_SECONDS:.0f} s"
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


def free_port(address: str) -> int:
    """A port of this interface that nobody listens on now; another process may still take it first."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def interface_of(address: str) -> str:
    """The network interface that has this address: gloo is to use it, and to listen on no other."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(entry.address == address for entry in addresses):
            return name
    raise BadInput(f"no network interface of {socket.gethostname()} has the address {address}")
