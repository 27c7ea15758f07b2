"""A run on more and more accelerators of a kind: what fits, how fast, what travels, how long a checkpoint takes."""

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from data_pipeline.config import BadInput
from pretrain.accelerators import Accelerator
from pretrain.experiment import Experiment
from pretrain.models.vectors import VectorModelConfig
from pretrain.plan.division import Division, divide
from pretrain.plan.memory import WorkerMemory
from pretrain.plan.run import Plan, describe
from pretrain.plan.subject import Subject
from pretrain.plan.traffic import Traffic

ALL_SIZES = tuple(2**power for power in range(15))
"""1 to 16,384."""

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One worker at one ZeRO stage."""

    zero_stage: int
    memory: WorkerMemory
    starting: int
    """Bytes before the first step."""
    fits: bool
    """On the accelerator, whose host holds the copy that is being saved."""
    checkpoint_bytes: int
    """Of what the leader writes, which is as much as any worker does."""
    traffic: Traffic
    link_seconds: float
    """Of a step, at the full bandwidth of the links and without their latency."""

    @property
    def most(self) -> int:
        """Bytes on the accelerator."""
        return max(self.memory.on_device, self.starting)


@dataclass(frozen=True, slots=True)
class Size:
    """The run on so many accelerators, one worker on each."""

    nodes: int
    division: Division
    stages: tuple[Stage, ...]
    zero_stage: int
    """Of the other numbers: the experiment's own where it fits, else the lowest that fits, else the highest."""
    count_per_step: int
    steps: int
    """That come to the recipe's count in all."""
    compute_seconds: float
    """Of a step: all operations, recomputation among them, at the utilisation that was given."""
    checkpoint_bytes: int

    @property
    def fits_from(self) -> int | None:
        """The lowest ZeRO stage that fits; None: no stage does."""
        return next((stage.zero_stage for stage in self.stages if stage.fits), None)

    @property
    def stage(self) -> Stage:
        return next(stage for stage in self.stages if stage.zero_stage == self.zero_stage)

    @property
    def step_seconds(self) -> float:
        """At best: what travels does so while the accelerators compute, so that a step takes the longer of the two."""
        return max(self.compute_seconds, self.stage.link_seconds)

    @property
    def rate(self) -> float:
        """Counts per second."""
        return self.count_per_step / self.step_seconds

    @property
    def days(self) -> float:
        return self.steps * self.step_seconds / DAY

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        values = asdict(self) | {"accelerators": self.division.workers, "fits_from": self.fits_from}
        values |= {"step_seconds": self.step_seconds, "counts_per_second": self.rate, "days": self.days}
        for plain, stage in zip(values["stages"], self.stages, strict=True):
            plain["memory"] |= {"total": stage.memory.total, "on_device": stage.memory.on_device}
            plain["most"] = stage.most
            plain["traffic"]["total"] = stage.traffic.total
        return values


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """A run on one kind of accelerator, by number."""

    run: Plan
    accelerator: Accelerator
    utilisation: float
    storage_bandwidth: float
    """Bytes/s at which all workers together write a checkpoint."""
    checkpoint_every: int
    """Steps."""
    sizes: tuple[Size, ...]

    def checkpoint_seconds(self, size: Size) -> float:
        return size.checkpoint_bytes / self.storage_bandwidth

    def to_json(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        run = self.run.to_json()
        del run["placements"]
        return {
            "run": run,
            "accelerator": asdict(self.accelerator),
            "utilisation": self.utilisation,
            "storage_bandwidth": self.storage_bandwidth,
            "sizes": [size.to_json() | {"checkpoint_seconds": self.checkpoint_seconds(size)} for size in self.sizes],
        }


def plan_cluster(
    experiment: Experiment,
    accelerator: Accelerator,
    sizes: Sequence[tuple[int, int]],
    *,
    utilisation: float,
    storage_bandwidth: float,
) -> ClusterPlan:
    """For each pair of accelerators and nodes.

    Raises BadInput for a utilisation that is not above 0 and at most 1, and for a bandwidth that is not above 0.
    """
    if not 0.0 < utilisation <= 1.0:
        raise BadInput(
            f"--utilisation {utilisation:g}: must be above 0 and at most 1, the share of the accelerator's peak that "
            "the run reaches; large language models reach 0.3 to 0.5"
        )
    if not (0.0 < storage_bandwidth < math.inf):
        raise BadInput(f"--storage-bandwidth {storage_bandwidth / 1e9:g}: must be above 0, in GB/s")
    subject = Subject(experiment, on_gpu=True)
    run = describe(subject)
    operations = run.flops_per_step + run.recomputed_flops_per_step
    rate = accelerator.peaks[run.precision] * utilisation
    config = experiment.model
    fewest = config.fewest_rows if isinstance(config, VectorModelConfig) else 1

    def size(number: int, nodes: int) -> Size:
        division = divide(experiment.batch, number, fewest_rows=fewest)
        count = subject.count_per_step(division)
        stages = tuple(_stage(subject, division, stage, accelerator, nodes) for stage in subject.stages())
        fitting = [stage.zero_stage for stage in stages if stage.fits]
        return Size(
            nodes=nodes,
            division=division,
            stages=stages,
            zero_stage=run.zero_stage if run.zero_stage in fitting else min(fitting, default=stages[-1].zero_stage),
            count_per_step=count,
            steps=-(-run.total_count // count),
            compute_seconds=operations * (count / run.count_per_step) / (number * rate),
            checkpoint_bytes=subject.checkpoint_bytes(division),
        )

    return ClusterPlan(
        run=run,
        accelerator=accelerator,
        utilisation=utilisation,
        storage_bandwidth=storage_bandwidth,
        checkpoint_every=experiment.checkpoint.every,
        sizes=tuple(size(number, nodes) for number, nodes in sizes),
    )


def _stage(subject: Subject, division: Division, zero_stage: int, accelerator: Accelerator, nodes: int) -> Stage:
    memory, traffic = subject.memory(division, zero_stage), subject.traffic(division, zero_stage)
    start = subject.starting(division, zero_stage)
    return Stage(
        zero_stage=zero_stage,
        memory=memory,
        starting=start,
        fits=max(memory.on_device, start) <= accelerator.memory,
        checkpoint_bytes=subject.worker_checkpoint_bytes(division, zero_stage),
        traffic=traffic,
        link_seconds=traffic.total / accelerator.bandwidth(division.workers, nodes),
    )


def sizes_of(
    accelerator: Accelerator, *, accelerators: Sequence[str] = (), nodes: Sequence[str] = ()
) -> list[tuple[int, int]]:
    """(accelerators, nodes) of each size asked for, in order; 1 to 16,384 by doubling where none was.

    Accelerators fill as few nodes as will do. Raises BadInput where both are given, or what is no count or range.
    """
    if accelerators and nodes:
        raise BadInput(
            f"--accelerators and --nodes are two ways to say one thing: a node has {accelerator.per_node} of "
            f"{accelerator.name}; give one of them"
        )
    if nodes:
        return [(number * accelerator.per_node, number) for number in _counts("--nodes", nodes)]
    numbers = _counts("--accelerators", accelerators) if accelerators else list(ALL_SIZES)
    return [(number, -(-number // accelerator.per_node)) for number in numbers]


def _counts(option: str, given: Sequence[str]) -> list[int]:
    """Each once, in order."""
    found: set[int] = set()
    for text in given:
        match = re.fullmatch(r"([1-9]\d{0,8})(?:-([1-9]\d{0,8}))?", text.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise BadInput(
                f"{option} {text}: must be a whole number above 0 such as 64, or a range such as 8-1024, doubled from "
                "its first number up to its last"
            )
        while first <= last:
            found.add(first)
            first *= 2
    return sorted(found)
