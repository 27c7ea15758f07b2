"""All workers of one start of a run: placed together, watched together, ended together."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import psutil
import ray
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.job import Job
from cluster.observer import WorkerStatus
from cluster.topology import Location, Seat, bundle, meeting_address, reserve, seats
from cluster.worker import Worker
from data_pipeline.config import BadInput, Corrupt, Preempted, Refused

START_SECONDS = 120.0
SILENCE_SECONDS = 120.0
"""A worker that answers for so long nothing at all is taken for lost: its machine is gone, or it was stopped."""
STATUS_SECONDS = 0.3
END_SECONDS = 2.0
"""Ray has so long to end a worker before it is killed without it."""
KILL_SECONDS = 20.0
GRACE_SECONDS = 1.0
"""One loss makes others; so long the rest is waited for, to find out which was the first."""


USER_ERRORS = (BadInput, Refused, Corrupt)
"""Trying again would end in the same."""


class WorkersLostError(Exception):
    """Some workers died or raised what no user can mend; the others may still be waiting for them."""

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = list(lines)


class WorkerDiedError(Exception):
    """The worker's process is gone."""


@dataclass
class Member:
    """A worker as the driver sees it."""

    seat: Seat
    actor: Any
    process: psutil.Process | None
    """Where it is on this machine."""
    result: Any
    """Of its training, to come."""
    answer: Any
    """Its next status, to come."""
    status: WorkerStatus
    asked_at: float = field(default_factory=time.monotonic)


class WorkerGroup:
    """Workers that train; leaving the context ends them, whatever they do."""

    def __init__(self, job: Job, workers: int, *, device: str) -> None:
        self.job = job
        self.actors: list[Any] = []
        self.members: list[Member] = []
        self.locations: list[Location] = []
        resources = bundle(device, workers)
        self.placement = reserve(resources, workers)
        try:
            self._start(resources, workers)
        except BaseException:
            self.end()
            raise

    def _start(self, resources: dict[str, float], workers: int) -> None:
        actor_class = ray.remote(max_restarts=0, concurrency_groups={"control": 1})(Worker)
        self.actors = [
            actor_class.options(
                num_cpus=resources["CPU"],
                num_gpus=resources.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self.placement, placement_group_bundle_index=index
                ),
            ).remote()
            for index in range(workers)
        ]
        try:
            self.locations = ray.get([actor.locate.remote() for actor in self.actors], timeout=START_SECONDS)
            seated = sorted(
                zip(seats(self.locations), self.actors, self.locations, strict=True), key=lambda s: s[0].rank
            )
            address = meeting_address([seat for seat, _, _ in seated])
            port = ray.get(seated[0][1].free_port.remote(address), timeout=START_SECONDS)
        except ray.exceptions.RayError as error:
            raise WorkersLostError([f"a worker did not start: {first_line(error)}"]) from error
        self.members = [
            Member(
                seat=seat,
                actor=actor,
                process=local_process(location),
                result=actor.train.remote(self.job, seat, address, port),
                answer=actor.status.remote(),
                status=WorkerStatus(seat.rank, location.pid, location.node, 0, "starting", None),
            )
            for seat, actor, location in seated
        ]

    def __enter__(self) -> "WorkerGroup":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()

    def poll(self) -> int | None:
        """Wait a moment; the last step once all workers are done. Raises WorkersLostError, or a worker's SegueError."""
        pending = [member.result for member in self.members]
        done, _ = ray.wait(pending, num_returns=len(pending), timeout=STATUS_SECONDS)
        failed = [self._failure(member) for member in self.members if member.result in done]
        if any(failed):
            ray.wait(pending, num_returns=len(pending), timeout=GRACE_SECONDS)
            self._raise_failures()
        if len(done) == len(pending):
            return int(ray.get(pending[0]))
        self._refresh()
        return None

    def statuses(self) -> list[WorkerStatus]:
        """By rank, as of their last answers."""
        return [member.status for member in self.members]

    def request_stop(self) -> None:
        for member in self.members:
            member.actor.request_stop.remote()

    def end(self) -> None:
        """End all workers now and give their places back."""
        for actor in self.actors:
            ray.kill(actor)
        remove_placement_group(self.placement)
        processes = [member.process for member in self.members if member.process is not None]
        _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
        for process in alive:  # stopped ones, for example, do not hear Ray
            process.kill()
        psutil.wait_procs(alive, timeout=KILL_SECONDS)

    def _refresh(self) -> None:
        """Take the statuses that have come, ask for the next, and miss those that do not come."""
        now = time.monotonic()
        answered, _ = ray.wait([m.answer for m in self.members], num_returns=len(self.members), timeout=0)
        for member in self.members:
            if member.answer in answered:
                try:
                    member.status = replace(ray.get(member.answer), rank=member.seat.rank, node=member.seat.node)
                except ray.exceptions.RayError:
                    continue  # its result tells
                member.answer, member.asked_at = member.actor.status.remote(), now
        silent = [member for member in self.members if now - member.asked_at > SILENCE_SECONDS]
        if silent:
            raise WorkersLostError(
                [f"{_name(member)} has not answered for {SILENCE_SECONDS:.0f} s" for member in silent]
            )

    def _failure(self, member: Member) -> Exception | None:
        """What the worker's training ended in, if it has ended badly: its own error, or WorkerDiedError."""
        done, _ = ray.wait([member.result], timeout=0)
        if not done:
            return None
        try:
            ray.get(member.result)
        except ray.exceptions.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except ray.exceptions.RayError as error:
            full = isinstance(error, ray.exceptions.OutOfMemoryError)
            return WorkerDiedError("was ended by Ray, for its machine's memory is nearly full" if full else "died")
        return None

    def _raise_failures(self) -> None:
        """A stop that was saved, else the dead (they make others fail), else what a user can mend, else the rest."""
        failures = [(member, error) for member in self.members if (error := self._failure(member)) is not None]
        errors = [error for _, error in failures]
        for error in errors:
            if isinstance(error, Preempted):
                raise error
        dead = [f"{_name(member)} {error}" for member, error in failures if isinstance(error, WorkerDiedError)]
        if dead:
            raise WorkersLostError(dead)
        for error in errors:
            if isinstance(error, USER_ERRORS):
                raise error
        raise WorkersLostError([f"{_name(member)} raised {first_line(error)}" for member, error in failures])


def local_process(location: Location) -> psutil.Process | None:
    """The worker's process, where it is on this machine and alive."""
    if location.node != ray.util.get_node_ip_address():
        return None
    try:
        return psutil.Process(location.pid)
    except psutil.NoSuchProcess:
        return None


def first_line(error: BaseException) -> str:
    """The kind of the error and the first line of its message."""
    message = str(error).strip().splitlines()
    return f"{type(error).__name__}: {message[0]}" if message else type(error).__name__


def _name(member: Member) -> str:
    return f"worker {member.seat.rank} (process {member.status.pid} on {member.seat.node})"
