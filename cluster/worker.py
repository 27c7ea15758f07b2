"""The actor that is one worker: a thread that trains, and a second one that answers the supervisor meanwhile."""

import os
import signal
import socket
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import ray

from cluster.job import Job, work
from cluster.observer import Observer, WorkerStatus
from cluster.storage import answer
from cluster.topology import LOOPBACK, Location, Seat, interface_of
from data_pipeline.redaction import redact_standard_streams

COLLECTIVE_SECONDS = 60.0
"""A worker waits for the others in one collective so much longer than a hang or a start may take: the driver, which
knows who hangs, comes first."""
UNWATCHED_SECONDS = 120.0
"""So much longer than a hang or a start may take a worker may stand still if no driver has ended it."""


class Worker:
    """See `cluster.worker_group`, which makes actors of it."""

    def __init__(self) -> None:
        self.observer = Observer()
        self.listener: socket.socket | None = None
        # Ray would end the process; whoever signals all processes of a job means: save, then stop.
        signal.signal(signal.SIGTERM, lambda *_: self.observer.request_stop())

    def locate(self) -> Location:
        gpus = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        context = ray.get_runtime_context()
        return Location(ray.util.get_node_ip_address(), os.getpid(), gpus, context.get_node_id())

    def see_storage(self, directory: Path, token: str, node: str) -> str | None:
        """What is wrong with the run's directory as this node, with this name, sees it; or None."""
        return answer(directory, token, node)

    def listen(self, address: str) -> int:
        """Be the leader: listen at this address, on a free port, for the others; returns the port."""
        from pretrain.meeting import listen

        self.listener = listen(address)
        return int(self.listener.getsockname()[1])

    def train(self, job: Job, seat: Seat, address: str, port: int) -> int:
        """Join the others at `address:port` and train to the end of the run; returns the last step."""
        self.observer.train_here()
        redirect_output(log_path(job.directory, seat.rank))
        try:
            return self._train(job, seat, address, port)
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()

    def _train(self, job: Job, seat: Seat, address: str, port: int) -> int:
        os.chdir(job.working_directory)
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(seat.gpus)
        os.environ["GLOO_SOCKET_IFNAME"] = interface_of(LOOPBACK if address == LOOPBACK else seat.node)
        import torch

        from cluster.watchdog import START_SECONDS, Watchdog
        from pretrain.group import join
        from pretrain.run_directory import read_experiment

        longest = max(read_experiment(job.directory).supervision.hang_minutes * 60.0, START_SECONDS)
        with Watchdog(self.observer, job.directory, limit=longest + UNWATCHED_SECONDS, rank=seat.rank):
            group = join(
                seat.rank,
                seat.world_size,
                seat.local_rank,
                address=address,
                port=port,
                timeout=timedelta(seconds=longest + COLLECTIVE_SECONDS),
                device=torch.device("cuda" if seat.gpus else "cpu"),
                listener=self.listener,
            )
            return work(job, group, self.observer)

    @ray.method(concurrency_group="control")
    def status(self) -> WorkerStatus:
        return self.observer.status()

    @ray.method(concurrency_group="control")
    def request_stop(self) -> None:
        self.observer.request_stop()

    @ray.method(concurrency_group="control")
    def request_stop_at_save(self) -> None:
        self.observer.request_stop_at_save()

    @ray.method(concurrency_group="control")
    def leave(self) -> None:
        """End this process now; for a driver whose Ray has lost its head and can end no worker."""
        os._exit(1)


def log_path(directory: Path, rank: int) -> Path:
    """Where a worker's standard output and error go, all its starts one after another."""
    return directory / "logs" / f"worker-{rank}.log"


def redirect_output(path: Path) -> None:
    """Let this process, and what it starts, append to the file, without secrets, all that would go to the terminal."""
    path.parent.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(descriptor, stream.fileno())
    os.close(descriptor)
    redact_standard_streams()
