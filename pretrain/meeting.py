"""Where the workers of a run first meet: a store at an address that the leader listens on before it is told."""

import socket
from datetime import timedelta

import torch.distributed as dist

from data_pipeline.config import BadInput, GaveUp

JOIN_TIMEOUT = timedelta(minutes=5)
"""A worker waits so long for the others to come; they may have to read their libraries from slow storage."""


def listen(address: str, port: int = 0) -> socket.socket:
    """A socket that listens on this address only; port 0 takes a free one. Raises BadInput where the port is taken."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        listener.close()
        raise BadInput(
            f"port {port} of {address} cannot be listened on ({error}); choose another, or 0 for one that is free"
        ) from error
    return listener


def meet(
    rank: int, world_size: int, *, address: str, port: int, timeout: timedelta, listener: socket.socket | None = None
) -> dist.TCPStore:
    """Wait at `address:port` until all workers are there; the leader (rank 0) serves, on `listener` if it has one.

    Raises GaveUp, naming the address and who is missing, once `timeout` is over; BadInput where the port is taken.
    """
    place = f"{address}:{port}"
    try:
        if rank == 0:
            # torch's own socket would listen on every interface.
            descriptor = (listener or listen(address, port)).detach()
            store = dist.TCPStore(
                address, port, world_size, True, timeout, wait_for_workers=False, master_listen_fd=descriptor
            )
        else:
            store = dist.TCPStore(address, port, world_size, False, timeout, wait_for_workers=False)
    except dist.DistError as error:
        raise GaveUp(
            f"worker {rank} does not reach the leader at {place} within {_seconds(timeout)}: "
            "is it alive, and may the nodes reach each other's ports?"
        ) from error
    store.set(_key(rank), "here")
    _wait_for_all(store, rank, world_size, place, timeout)
    return store


def _wait_for_all(store: dist.TCPStore, rank: int, world_size: int, place: str, timeout: timedelta) -> None:
    try:
        store.wait([_key(other) for other in range(world_size)], timeout)
    except dist.DistError as error:
        try:
            missing = [other for other in range(world_size) if not store.check([_key(other)])]
        except dist.DistError:  # the leader has gone meanwhile
            missing = [0]
        raise GaveUp(
            f"worker {rank} waited {_seconds(timeout)} at {place} and worker(s) {', '.join(map(str, missing))} of "
            f"{world_size} did not come: are they alive, and may the nodes reach each other's ports?"
        ) from error


def _key(rank: int) -> str:
    return f"here/{rank}"


def _seconds(duration: timedelta) -> str:
    return f"{duration.total_seconds():.0f} s"
