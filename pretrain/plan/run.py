"""What a run will need, without allocating it: parameters, operations, memory of a worker by part, disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pretrain.experiment import Experiment
from pretrain.group import check_divides
from pretrain.plan.division import Division, divide
from pretrain.plan.memory import WorkerMemory
from pretrain.plan.subject import Subject


@dataclass(frozen=True, slots=True)
class Placement:
    """One way to compute the run."""

    workers: int
    zero_stage: int
    micro_batches_per_worker: int
    memory: WorkerMemory
    starting: int
    """Bytes before the first step, which may be more: every worker builds the model whole."""

    @property
    def most(self) -> int:
        return max(self.memory.total, self.starting)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will need."""

    name: str
    parameters: int
    embedding_parameters: int
    """Of the vocabulary (embedding, output layer where it has its own, biases) and learned positions."""
    unit: str
    """What counts are of: token, image or row."""
    count_per_step: int
    """Over all micro-batches and turns."""
    total_count: int
    flops_per_step: float
    """Matrix products of forward and backward, backward counted as twice the forward; no recomputation."""
    total_flops: float
    recomputed_flops_per_step: float
    """What backward computes again, beside `flops_per_step`."""
    precision: str
    zero_stage: int
    """The experiment's own."""
    activation_checkpointing: bool
    placements: tuple[Placement, ...]
    checkpoint_bytes: int
    """On disk: float32 weights and moments, buffers, the carry of all micro-batches, the probe's micro-batch."""
    disk_bytes: int
    """All checkpoints that are kept, and the one being written."""

    @property
    def non_embedding_parameters(self) -> int:
        return self.parameters - self.embedding_parameters

    def placement(self, workers: int, zero_stage: int | None = None) -> Placement:
        """That of so many workers, at the experiment's own stage unless another is given."""
        stage = self.zero_stage if zero_stage is None else zero_stage
        return next(p for p in self.placements if (p.workers, p.zero_stage) == (workers, stage))

    def to_json(self) -> dict[str, Any]:
        """Plain values, with the sums."""
        values = asdict(self) | {"non_embedding_parameters": self.non_embedding_parameters}
        for placed, placement in zip(values["placements"], self.placements, strict=True):
            placed["memory"]["total"] = placement.memory.total
            placed["most"] = placement.most
        return values


def plan(experiment: Experiment, workers: Sequence[int] | None = None) -> Plan:
    """For these numbers of workers, or for all that divide the micro-batches; BadInput for one that does not."""
    batch = experiment.batch
    if workers is None:
        workers = [number for number in range(1, batch.micro_batches + 1) if batch.micro_batches % number == 0]
    for number in workers:
        check_divides(number, batch.micro_batches)
    subject = Subject(experiment)
    return describe(subject, placements(subject, [divide(batch, number) for number in workers]))


def placements(subject: Subject, divisions: Iterable[Division]) -> Iterator[Placement]:
    """At every ZeRO stage at which the experiment could run."""
    for division in divisions:
        for stage in subject.stages():
            memory, start = subject.memory(division, stage), subject.starting(division, stage)
            yield Placement(division.workers, stage, division.each, memory, start)


def describe(subject: Subject, placed: Iterable[Placement] = ()) -> Plan:
    """What does not depend on where the run is computed, and these placements."""
    experiment, engine = subject.experiment, subject.experiment.engine
    given = divide(experiment.batch, 1)
    count = subject.count_per_step(given)
    flops = 3.0 * subject.model.flops_per_count() * count
    again = subject.model.recomputed_flops_per_count() if engine.activation_checkpointing else 0.0
    checkpoint_bytes = subject.checkpoint_bytes(given)
    return Plan(
        name=experiment.name,
        parameters=subject.parameters,
        embedding_parameters=subject.embedding_parameters,
        unit=subject.model.unit,
        count_per_step=count,
        total_count=count * experiment.steps,
        flops_per_step=flops,
        total_flops=flops * experiment.steps,
        recomputed_flops_per_step=again * count,
        precision=engine.precision,
        zero_stage=getattr(engine, "zero_stage", 0),
        activation_checkpointing=engine.activation_checkpointing,
        placements=tuple(placed),
        checkpoint_bytes=checkpoint_bytes,
        disk_bytes=checkpoint_bytes * experiment.checkpoint.most(experiment.steps),
    )
