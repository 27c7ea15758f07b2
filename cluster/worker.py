"""The actor that is one worker: a thread that trains, and a second one that answers the supervisor meanwhile."""

import os
import signal
import sys
import traceback
from datetime import timedelta
from pathlib import Path

import ray

from cluster.job import Job, work
from cluster.observer import Observer, WorkerStatus
from cluster.topology import LOOPBACK, Location, Seat, free_port, interface_of
from data_pipeline.redaction import redact_standard_streams

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""A worker waits so long for the others in one collective: more than the leader needs to save or evaluate alone."""


class Worker:
    """See `cluster.worker_group`, which makes actors of it."""

    def __init__(self) -> None:
        self.observer = Observer()
        # Ray would end the process; whoever signals all processes of a job means: save, then stop.
        signal.signal(signal.SIGTERM, lambda *_: self.observer.request_stop())

    def locate(self) -> Location:
        gpus = tuple(str(gpu) for gpu in ray.get_gpu_ids())
        return Location(ray.util.get_node_ip_address(), os.getpid(), gpus)

    def free_port(self, address: str) -> int:
        return free_port(address)

    def train(self, job: Job, seat: Seat, address: str, port: int) -> int:
        """Join the others at `address:port` and train to the end of the run; returns the last step."""
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

        from pretrain.group import join

        group = join(
            seat.rank,
            seat.world_size,
            seat.local_rank,
            address=address,
            port=port,
            timeout=COLLECTIVE_TIMEOUT,
            device=torch.device("cuda" if seat.gpus else "cpu"),
        )
        return work(job, group, self.observer)

    @ray.method(concurrency_group="control")
    def status(self) -> WorkerStatus:
        return self.observer.status()

    @ray.method(concurrency_group="control")
    def request_stop(self) -> None:
        self.observer.request_stop()


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
