"""What a worker holds at its fullest: by hand for each engine and stage, and against what a real step holds."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from pretrain import config
from pretrain.engines import DeepSpeedEngineConfig, EngineConfig, LocalEngineConfig
from pretrain.engines.local import LocalEngine
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.plan.division import divide
from pretrain.plan.gathering import Gathering
from pretrain.plan.ledger import Held, Ledger, Pass
from pretrain.plan.memory import WorkerMemory, fullest, starting
from pretrain.plan.moments import Place, Player, copied_together, waiting_sums
from pretrain.plan.subject import Subject

TINY = sorted({name for name in config.recipe_names() if name.startswith("tiny_")} - {"tiny_seq2seq"})
"""Pairs are as long as they happen to be."""

NOTHING = WorkerMemory(0, 0, 0, 0, 0, 0, 0, 0)

PLAYER = Player(
    in_order=(600, 300, 90, 10),
    groups=((600, 300), (90, 10)),
    passes=Pass(kept=50_000, early=0, late=50_100, backward=(Held(50_200, 0), Held(2500, 600), Held(300, 1000))),
    gathering=Gathering(gathered=1500, most_whole=700, small=10),
)
"""n = 1000. Backward holds most at its beginning."""

LIGHT = replace(PLAYER, passes=Pass(kept=50, early=0, late=60, backward=(Held(70, 0), Held(25, 600), Held(3, 1000))))
"""A pass that is small beside the weights."""


def local(**fields: Any) -> LocalEngineConfig:
    return LocalEngineConfig(kind="local", **fields)


def zero(stage: int, precision: str = "bfloat16", bucket: int = 10**6) -> DeepSpeedEngineConfig:
    return DeepSpeedEngineConfig(kind="deepspeed", zero_stage=stage, precision=precision, bucket_size=bucket)


def most(engine: EngineConfig, player: Player, *, workers: int, micro_batches: int) -> dict[str, int]:
    """What comes and goes, without the parts that are zero."""
    place = Place(engine, getattr(engine, "zero_stage", 0), workers, micro_batches)
    found = fullest(NOTHING, place, [player])
    parts = {name: getattr(found, name) for name in ("gradients", "activations", "working", "communication")}
    return {name: size for name, size in parts.items() if size}


@pytest.mark.parametrize(
    ("engine", "workers", "micro_batches", "expected"),
    [
        # of one micro-batch the gradients come while the activations go
        (local(), 1, 1, {"activations": 50_000, "working": 200}),
        # the second one meets all of the first one's gradients
        (local(), 1, 2, {"gradients": 4000, "activations": 50_000, "working": 200}),
        (zero(0), 1, 2, {"gradients": 4000, "activations": 50_000, "working": 200}),
        # gradients of stage 1 are there always
        (zero(1), 2, 2, {"gradients": 4000, "activations": 50_000, "working": 200}),
        # a share of them, and a bucket in bfloat16
        (zero(2), 2, 2, {"gradients": 2000, "activations": 50_000, "working": 200, "communication": 2000}),
        # a bucket of 100 is full in backward: it and the largest weight, copied in bfloat16 and in float32
        (zero(2, bucket=100), 2, 2, {"gradients": 2000, "activations": 50_000, "working": 200, "communication": 3800}),
        # whole weights, 700 in bfloat16, and a bucket in float32
        (zero(3), 2, 2, {"gradients": 2000, "activations": 50_000, "working": 1600, "communication": 4000}),
        (zero(3, bucket=100), 2, 2, {"gradients": 2000, "activations": 50_000, "working": 1600, "communication": 2800}),
        (zero(1, "float32"), 2, 2, {"activations": 50_000, "working": 200}),
        (zero(1, "float32"), 2, 4, {"gradients": 4000, "activations": 50_000, "working": 200}),
        (zero(2, "float32"), 2, 2, {"activations": 50_000, "working": 200, "communication": 4000}),
        (zero(2, "float32"), 2, 4, {"gradients": 2000, "activations": 50_000, "working": 200, "communication": 4000}),
    ],
)
def test_in_backward(engine: EngineConfig, workers: int, micro_batches: int, expected: dict[str, int]) -> None:
    assert most(engine, PLAYER, workers=workers, micro_batches=micro_batches) == expected


@pytest.mark.parametrize(
    ("engine", "workers", "expected"),
    [
        (local(), 1, {"gradients": 4000, "activations": 3}),  # at the end of backward
        (local(), 2, {"gradients": 4000, "communication": 4000}),  # and their flat copy
        (zero(0), 1, {"gradients": 4000, "communication": 4000}),
        (zero(1), 2, {"gradients": 4000, "communication": 4000}),
        (zero(2), 2, {"gradients": 2000, "communication": 8000}),  # bucket, its copy, and that in float32
        (zero(3), 2, {"gradients": 2000, "communication": 8000}),
        (zero(1, "float32"), 1, {"gradients": 4000, "communication": 4000}),
        (zero(1, "float32"), 2, {"gradients": 4000, "working": 2000, "communication": 4000}),
        (zero(2, "float32"), 2, {"gradients": 2000, "communication": 8000}),
    ],
)
def test_where_gradients_are_summed(engine: EngineConfig, workers: int, expected: dict[str, int]) -> None:
    found = most(engine, LIGHT, workers=workers, micro_batches=workers)
    assert sum(found.values()) == sum(expected.values())
    assert found == expected


def test_canonical_sums_wait_for_their_siblings() -> None:
    """Of 8 micro-batches those of 4, 2 and 1 wait when the last comes; it is taken off and flattened."""
    assert waiting_sums(8, 1) == (3, 1)
    assert waiting_sums(8, 2) == (2, 2)  # the other half comes to the own one
    found = most(local(reduction="canonical"), LIGHT, workers=1, micro_batches=8)
    assert found == {"gradients": 4 * 4000, "working": 4000}


def test_tensors_are_copied_together_up_to_a_limit() -> None:
    assert copied_together([7]) == 0, "one alone is not copied"
    assert copied_together([7, 2]) == 9
    assert copied_together([7, 2, 5, 4], limit=8) == 9, "7 + 2, then 5 + 4"
    assert copied_together([9, 2], limit=8) == 0, "9 alone, 2 alone"


@pytest.mark.parametrize(
    ("engine", "workers", "expected"),
    [
        (local(), 1, 4000),
        (local(precision="bfloat16"), 4, 8000),
        (zero(1), 4, 4000 + 2000 + 4000 + 1000),  # first weights, rounded ones, gradients, masters
        (zero(2), 4, 8000),  # first weights, twice
        (zero(2), 1, 4000 + 2000 + 4000 + 4000),
        (zero(3), 4, 8000),
        (zero(2, "float32"), 1, 4000 + 4000 + 4000),
        (zero(3, "float32"), 4, 4000),
    ],
)
def test_while_it_starts(engine: EngineConfig, workers: int, expected: int) -> None:
    assert starting(Place(engine, getattr(engine, "zero_stage", 0), workers, 8), 1000) == expected


def test_gpt2_under_zero_3_on_eight_workers() -> None:
    """n = 1,557,611,200, of which biases and norms are small: 2 d + 13 L d of width d = 1600 and L = 48 layers."""
    n, small = 1_557_611_200, 2 * 1600 + 13 * 48 * 1600
    subject = Subject(config.load(Experiment, config.recipe_path("gpt2_1558m")))
    memory = subject.memory(divide(subject.experiment.batch, 8), 3)
    assert memory.weights == 2 * ((n - small) // 8 + small)
    assert memory.gradients == 4 * n // 8
    assert memory.optimizer == (4 + 8) * n // 8
    assert memory.communication == 4 * (100_000_000 + 100_000_000), "a bucket, and its copy"
    assert memory.carry == 0
    assert memory.saving > 12 * n // 8
    assert subject.starting(divide(subject.experiment.batch, 8), 3) == 8 * n


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", TINY)
def test_a_real_step_holds_what_was_planned(kind: str, precision: str) -> None:
    """All storages of a step of the local engine, and not only those of a pass."""
    overrides = (f"engine.precision={precision}", "batch.micro_batches=2")
    experiment = config.load(Experiment, config.recipe_path(kind), overrides)
    subject = Subject(experiment)
    planned = subject.memory(divide(experiment.batch, 1), 0)
    trainer = experiment.trainer(Group())
    steps = trainer.steps()
    next(steps)
    engine = trainer.engine
    assert isinstance(engine, LocalEngine)
    states = [state for optimizer in engine.optimizers.values() for state in optimizer.state.values()]
    there = [*engine.masters.values(), *engine.model.parameters(), *engine.model.buffers()]
    there += [value for state in states for value in state.values()]
    carries = [value for carry in trainer.carries for value in (carry or {}).values()]
    ledger = Ledger()
    ledger.leave_out([*there, *carries])
    with ledger:
        next(steps)
    batches = experiment.batch.micro_batches * sum(t.nbytes for t in _tensors(trainer.stream.micro_batch(0, 0)))
    found = max(ledger.most.values())
    expected = planned.gradients + planned.activations + planned.working + planned.carry // 2
    assert found == pytest.approx(expected + batches, rel=0.15)


def _tensors(batch: Any) -> list[torch.Tensor]:
    return [getattr(batch, name) for name in batch.__slots__]
