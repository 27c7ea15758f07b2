"""One run, started again and again at other sizes, and what is seen of its samples, noise and memory."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data_pipeline.config import Preempted
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.report import StepReport
from pretrain.run import Watch, run
from pretrain.trainer import Trainer

MICRO_BATCHES = 12
STEPS = 15


def experiment(stage: int | None) -> Experiment:
    """On the local engine where there is no stage; buckets and whole parameters small, so that the model is cut."""
    zero = f"{{kind: deepspeed, zero_stage: {stage}, device: cpu, bucket_size: 5000, whole_below: 100}}"
    return config.load(
        Experiment,
        config.recipe_path("tiny_transformer_xl"),
        (
            f"steps={STEPS}",
            f"batch={{micro_batches: {MICRO_BATCHES}, rows: 2}}",
            "evaluate.every=null",
            "model.initial_std=0.1",  # so that the memory matters from the beginning
            f"engine={'{kind: local, device: cpu}' if stage is None else zero}",
        ),
    )


@dataclass
class Seen:
    """What one start of a run was seen to do."""

    reports: list[StepReport] = field(default_factory=list)
    noise: dict[tuple[int, int], str] = field(default_factory=dict)
    """By (step, micro-batch): the random state that its first layer drew from."""
    memory_before: dict[int, str] = field(default_factory=dict)
    """By micro-batch, as the first step found it."""
    memory_after: dict[int, str] = field(default_factory=dict)


def start(
    stage: int | None,
    directory: Path,
    group: Group,
    *,
    until: int,
    after_restore: Callable[[Trainer], None] = lambda _: None,
) -> Seen:
    """Start or resume the run and stop it after `until` steps, as a signal would; what all workers saw."""
    seen, held = Seen(), []

    def watch_noise(trainer: Trainer) -> None:
        held.append(trainer)
        layer = next(iter(trainer.engine.model.blocks))
        layer.register_forward_pre_hook(lambda module, _: note_noise(trainer) if module.training else None)

    def note_noise(trainer: Trainer) -> None:
        micro_batch = trainer.share[sum(step == trainer.step for step, _ in seen.noise)]
        seen.noise[trainer.step, micro_batch] = digest(torch.get_rng_state())

    def at_moment(name: str, trainer: Trainer) -> None:
        if name != "data":
            return
        if not seen.memory_before:
            after_restore(trainer)
            seen.memory_before |= memory(trainer)
        if trainer.step + 1 == until:
            trainer.request_stop()

    watch = Watch(step=seen.reports.append, trainer=watch_noise, moment=at_moment)
    try:
        run(experiment(stage), directory, group, watch=watch)
    except Preempted:
        assert until < STEPS
    seen.memory_after |= memory(held[0])
    if stage is not None:
        held[0].engine.close()
    for mine in (seen.noise, seen.memory_before, seen.memory_after):
        for other in group.gather(mine):
            mine |= other
    return seen


def memory(trainer: Trainer) -> dict[int, str]:
    """A digest of each micro-batch's carry."""
    carries = zip(trainer.share, trainer.carries, strict=True)
    return {g: digest(*(value for _, value in sorted((carry or {}).items()))) for g, carry in carries}


def digest(*tensors: torch.Tensor) -> str:
    joined = b"".join(tensor.detach().contiguous().numpy().tobytes() for tensor in tensors)
    return hashlib.blake2b(joined, digest_size=16).hexdigest()


def forget_memory(trainer: Trainer) -> None:
    trainer.carries = [{k: torch.zeros_like(v) for k, v in (carry or {}).items()} for carry in trainer.carries]
