"""All workers of one start of a run: placed together, watched together, ended together."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import psutil
import ray
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.job import Job
from cluster.losses import WorkersLostError, first_line, lost_worker, workers_lost
from cluster.observer import WorkerStatus
from cluster.out_of_memory import REMEDIES
from cluster.ray_session import Head
from cluster.storage import StorageCheck
from cluster.tables import bytes_text
from cluster.topology import ACCELERATOR, ANYWHERE, Location, Seat, Shape, answering, meeting_address, reserve, seats
from cluster.watchdog import START_SECONDS, Clock, Watched, all_have_started, hung, where
from cluster.worker import Worker
from data_pipeline.config import BadInput, Corrupt, GaveUp, Preempted, Refused
from pretrain.checkpoint import NotSaved
from pretrain.report import STARTING

STATUS_SECONDS = 0.3
WORKERS_A_SECOND = 300
"""So many are asked at most, that a driver of thousands is not busy with asking alone."""
ANSWER_SECONDS = 10.0
"""To fetch what Ray says is there; its node may go at this moment."""
END_SECONDS = 2.0
"""Ray has so long to end a worker before it is killed without it."""
KILL_SECONDS = 20.0
STORAGE_SECONDS = 15.0
"""A node has so long to read and write a token in the run's directory."""
GRACE_SECONDS = 1.0
"""One loss makes others; so long the rest is waited for, to find out which was the first."""

FINAL = (BadInput, Refused, Corrupt, GaveUp, NotSaved)
"""What a user has to mend, or has said to stop for; trying again would end in the same."""


class WorkerDiedError(Exception):
    """The worker's process is gone."""


class MemoryFullError(WorkerDiedError):
    """It was ended, for its machine's memory was nearly full."""


@dataclass
class Member:
    """A worker as the driver sees it."""

    seat: Seat
    node_id: str
    """Ray's."""
    actor: Any
    process: psutil.Process | None
    """Where it is on this machine."""
    result: Any
    """Of its training, to come."""
    watched: Watched
    """Its last status, and for how long it has stood still."""
    answer: Any = None
    """Its next status, to come; None while it is not asked."""
    asked_at: float = field(default_factory=time.monotonic)

    def take(self, status: WorkerStatus) -> None:
        """Its answer has come."""
        self.watched.status = replace(status, rank=self.seat.rank, node=self.seat.node)
        self.watched.stillness.see(status)


class WorkerGroup:
    """Workers that train; leaving the context ends them, whatever they do."""

    def __init__(
        self,
        job: Job,
        workers: int,
        *,
        resources: dict[str, float],
        hang_seconds: float,
        head: Head,
        shape: Shape = ANYWHERE,
        wait_seconds: float = 0.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.job, self.hang_seconds, self.head, self.shape = job, hang_seconds, head, shape
        self.clock = Clock()
        self.actors: list[Any] = []
        self.members: list[Member] = []
        self.locations: list[Location] = []
        self.placement = reserve(resources, shape, workers, seconds=wait_seconds, stopped=stopped, check=head.wait)
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
                resources={name: amount for name, amount in resources.items() if name.startswith(ACCELERATOR)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    self.placement, placement_group_bundle_index=self.shape.bundle_of(index)
                ),
            ).remote()
            for index in range(workers)
        ]
        try:
            self.locations = ray.get([actor.locate.remote() for actor in self.actors], timeout=START_SECONDS)
            seated = sorted(
                zip(seats(self.locations), self.actors, self.locations, strict=True), key=lambda s: s[0].rank
            )
            self._check_storage()
            address = meeting_address([seat for seat, _, _ in seated])
            port = ray.get(seated[0][1].listen.remote(address), timeout=START_SECONDS)
        except ray.exceptions.RayError as error:
            raise WorkersLostError([f"a worker did not start: {first_line(error)}"]) from error
        self.members = [
            Member(
                seat=seat,
                node_id=location.node_id,
                actor=actor,
                process=local_process(location),
                result=actor.train.remote(self.job, seat, address, port),
                watched=Watched(WorkerStatus(seat.rank, location.pid, location.node, 0, STARTING, None)),
            )
            for seat, actor, location in seated
        ]

    def _check_storage(self) -> None:
        """Raise Refused unless every node reads and writes the run's directory as the driver does."""
        by_node = {location.node_name: actor for location, actor in zip(self.locations, self.actors, strict=True)}
        with StorageCheck(self.job.directory) as check:
            asked = {
                node: actor.see_storage.remote(self.job.directory, check.token, node) for node, actor in by_node.items()
            }
            ready, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=STORAGE_SECONDS)
            silent = f"has not answered for {STORAGE_SECONDS:.0f} s: its storage hangs"
            answered = set(ready)
            check.judge({node: ray.get(task) if task in answered else silent for node, task in asked.items()})

    def __enter__(self) -> "WorkerGroup":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.end()

    def poll(self) -> int | None:
        """Wait a moment; the last step once all workers are done.

        Raises WorkersLostError, a worker's SegueError, or HeadLostError.
        """
        self.head.check()
        pending = [member.result for member in self.members]
        ready, _ = ray.wait(pending, num_returns=len(pending), timeout=STATUS_SECONDS)
        done = set(ready)
        failed = [self._failure(member) for member in self.members if member.result in done]
        if any(failed):
            ray.wait(pending, num_returns=len(pending), timeout=GRACE_SECONDS)
            self._raise_failures()
        if len(done) == len(pending):
            return int(ray.get(pending[0], timeout=ANSWER_SECONDS))
        self._refresh()
        self._accuse([member.watched for member in self.members if member.result not in done])
        return None

    def statuses(self) -> list[WorkerStatus]:
        """By rank, as of their last answers."""
        return [member.watched.status for member in self.members]

    def request_stop(self) -> None:
        for member in self.members:
            member.actor.request_stop.remote()

    def request_stop_at_save(self) -> None:
        for member in self.members:
            member.actor.request_stop_at_save.remote()

    def end(self) -> None:
        """End all workers now and give their places back."""
        if self.head.answers():
            for actor in self.actors:
                ray.kill(actor)
            remove_placement_group(self.placement)
        else:  # Ray would wait for its head, and then end this process
            for actor in self.actors:
                actor.leave.remote()
        processes = [member.process for member in self.members if member.process is not None]
        _, alive = psutil.wait_procs(processes, timeout=END_SECONDS)
        for process in alive:  # stopped ones, for example, do not hear Ray
            process.kill()
        psutil.wait_procs(alive, timeout=KILL_SECONDS)

    def _refresh(self) -> None:
        """Take the statuses that have come, and ask for the next."""
        now, elapsed = time.monotonic(), self.clock.elapsed()
        asked = [member.answer for member in self.members if member.answer is not None]
        answered = set(ray.wait(asked, num_returns=len(asked), timeout=0)[0]) if asked else set()
        interval = len(self.members) / WORKERS_A_SECOND
        for member in self.members:
            member.watched.stillness.pass_time(elapsed)
            if member.answer in answered:
                try:
                    member.take(ray.get(member.answer, timeout=ANSWER_SECONDS))
                except ray.exceptions.RayError:
                    continue  # its result tells
                member.answer = None
            if member.answer is None and now - member.asked_at >= interval:
                member.answer, member.asked_at = member.actor.status.remote(), now
        all_have_started([member.watched for member in self.members])

    def _accuse(self, training: list[Watched]) -> None:
        """Raise WorkersLostError for workers that answer nothing, or that hang."""
        silent = [worker for worker in training if worker.stillness.is_silent(self.hang_seconds)]
        if silent:
            raise workers_lost(
                [
                    lost_worker(
                        worker.status,
                        f"has not answered for {worker.stillness.silent_seconds:.0f} s; it was {where(worker.status)}",
                    )
                    for worker in silent
                ]
            )
        accused = hung(training, self.hang_seconds)
        if accused:
            raise workers_lost(
                [
                    lost_worker(
                        worker.status,
                        f"hangs: for {worker.stillness.seconds:.0f} s it has got on with nothing "
                        f"{where(worker.status)}",
                    )
                    for worker in accused
                ]
            )

    def _failure(self, member: Member) -> Exception | None:
        """What the worker's training ended in, if it has ended badly: its own error, or WorkerDiedError."""
        done, _ = ray.wait([member.result], timeout=0)
        if not done:
            return None
        try:
            ray.get(member.result, timeout=ANSWER_SECONDS)
        except ray.exceptions.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except ray.exceptions.RayError as error:
            full = isinstance(error, ray.exceptions.OutOfMemoryError)
            if not full:
                return WorkerDiedError("died")
            held = bytes_text(member.watched.status.memory_bytes)
            return MemoryFullError(
                f"was ended by Ray, for its machine's memory is nearly full; it held {held} when last seen; {REMEDIES}"
            )
        return None

    def _raise_failures(self) -> None:
        """A stop that was saved, else the dead (they make others fail), else what a user can mend, else the rest."""
        failures = [(member, self._failure(member)) for member in self.members]
        for _, error in failures:
            if isinstance(error, Preempted):
                raise error
        lost_nodes = self._lost_nodes()
        dead = []
        for member, error in failures:
            if member.node_id in lost_nodes and (error is None or type(error) is WorkerDiedError):
                dead.append(lost_worker(member.watched.status, "is gone with its node"))
            elif isinstance(error, WorkerDiedError):
                dead.append(lost_worker(member.watched.status, str(error)))
        if dead:
            raise workers_lost(dead)
        for _, error in failures:
            if isinstance(error, FINAL):
                raise error
        raise workers_lost(
            [lost_worker(m.watched.status, f"raised {first_line(error)}") for m, error in failures if error is not None]
        )

    def _lost_nodes(self) -> set[str]:
        """Nodes of workers that do not answer: Ray takes up to half a minute to say so, and the workers of others
        fail at once, for they wait for theirs."""
        if not self.head.answers():
            return set()
        used = {member.node_id for member in self.members}
        return used - {node["NodeID"] for node in answering([node for node in ray.nodes() if node["NodeID"] in used])}


def local_process(location: Location) -> psutil.Process | None:
    """The worker's process, where it is on this machine and alive."""
    if location.node != ray.util.get_node_ip_address():
        return None
    try:
        return psutil.Process(location.pid)
    except psutil.NoSuchProcess:
        return None
