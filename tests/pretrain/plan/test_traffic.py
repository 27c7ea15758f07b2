"""Bytes sent in a step: against those counted by hand, and against the collectives of real workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pretrain import config
from pretrain.engines import DeepSpeedEngineConfig, LocalEngineConfig, deepspeed
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.plan.division import divide
from pretrain.plan.gathering import Gathering
from pretrain.plan.subject import Subject
from pretrain.plan.traffic import Traffic, turn_traffic
from tests.processes import run_workers

SEEN = Gathering(gathered=1600, most_whole=990, small=10)


def zero(stage: int, **fields: Any) -> DeepSpeedEngineConfig:
    return DeepSpeedEngineConfig(
        kind="deepspeed", zero_stage=stage, precision="bfloat16", **{"whole_below": 10, **fields}
    )


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, Traffic(gradients=2 * 3 * 1000, weights=0)),  # 2 (N - 1)/N 4 n
        (1, Traffic(gradients=2 * 3 * 1000, weights=3 * 500)),  # and (N - 1)/N 2 n
        (2, Traffic(gradients=5 * 2 * 3 * 1000, weights=3 * 500)),  # gradients of each of 5 micro-batches
        (3, Traffic(gradients=5 * 3 * 1000, weights=3 * (5 * 1600 + 10) // 2)),  # and weights for each, small ones once
    ],
)
def test_four_workers_with_five_micro_batches_each(stage: int, expected: Traffic) -> None:
    assert turn_traffic(1000, zero(stage), stage, 4, 20, SEEN) == expected


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_one_worker_sends_nothing(stage: int) -> None:
    assert turn_traffic(1000, zero(stage), stage, 1, 20, SEEN).total == 0


def test_the_local_engine_sums_once() -> None:
    engine = LocalEngineConfig(kind="local")
    assert turn_traffic(1000, engine, 0, 4, 20) == Traffic(2 * 3 * 1000, 0)


def test_canonical_sums_are_broadcast_one_by_one() -> None:
    """Two workers have one node of the tree each; of three with two leaves of six each, [0] [1], [2] [3] and [4, 5]."""
    engine = LocalEngineConfig(kind="local", reduction="canonical")
    assert turn_traffic(1000, engine, 0, 2, 4) == Traffic(2 * 4000 // 2, 0)
    assert turn_traffic(1000, engine, 0, 2, 6) == Traffic(2 * 4000 // 2, 0)
    assert turn_traffic(1000, engine, 0, 3, 6) == Traffic(round(5 * 4000 * 2 / 3), 0)


SENT = {
    "all_reduce": lambda tensor, *_: 2 * nbytes(tensor),
    "broadcast": lambda tensor, *_: nbytes(tensor),
    "all_gather_into_tensor": lambda output, *_: nbytes(output),
    "reduce_scatter_tensor": lambda output, given, *_: nbytes(given),
}
"""What each worker sends times N/(N - 1)."""


def nbytes(tensor: Tensor) -> int:
    """0 of the trainer's losses and counts (float64) and of norms and flags."""
    return 0 if tensor.dtype == torch.float64 or tensor.numel() <= 16 else tensor.numel() * tensor.element_size()


@contextmanager
def counted(sent: list[int]) -> Iterator[None]:
    """Collectives are carried out, and what they send is noted."""

    def noting(name: str, real: Any) -> Any:
        def collective(*arguments: Any, **keywords: Any) -> Any:
            tensors = [*arguments, *(v for v in keywords.values() if isinstance(v, Tensor))]
            sent.append(SENT[name](*tensors) * (dist.get_world_size() - 1) // dist.get_world_size())
            return real(*arguments, **keywords)

        return collective

    with patch.multiple(dist, **{name: noting(name, getattr(dist, name)) for name in SENT}):
        yield


def bytes_of_third_step(group: Group, recipe: str, overrides: tuple[str, ...], distance: int) -> int:
    """By then DeepSpeed has seen in which order weights are used. It keeps the collectives that it finds at first."""
    deepspeed.REUSE_DISTANCE = distance
    experiment = config.load(Experiment, config.recipe_path(recipe), overrides)
    sent: list[int] = []
    with counted(sent):
        steps = experiment.trainer(group).steps()
        next(steps)
        next(steps)
        sent.clear()
        next(steps)
        return sum(sent)


ENGINES = {
    "local": "engine={kind: local, precision: bfloat16, device: cpu}",
    "canonical": "engine={kind: local, precision: float32, device: cpu, reduction: canonical}",
    **{
        f"zero {stage} {precision}": f"engine={{kind: deepspeed, zero_stage: {stage}, precision: {precision}, "
        "device: cpu, whole_below: 100}"
        for stage in (0, 1, 2, 3)
        for precision in ("float32", "bfloat16")
    },
}


@pytest.mark.parametrize("engine", ENGINES)
def test_two_workers_send_what_was_planned(engine: str) -> None:
    check(ENGINES[engine], deepspeed.REUSE_DISTANCE)


@pytest.mark.parametrize(
    ("recomputes", "bucket", "distance"), [("false", 500, 1000), ("true", 500, 40_000), ("false", 10_000, 40_000)]
)
def test_weights_that_are_far_from_their_next_use_are_sent_again(
    recomputes: str, bucket: int, distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.plan.gathering.REUSE_DISTANCE", distance)
    settings = f"bucket_size: {bucket}, activation_checkpointing: {recomputes}"
    check(f"engine={{kind: deepspeed, zero_stage: 3, device: cpu, whole_below: 100, {settings}}}", distance, layers=8)


def check(engine: str, distance: int, *, layers: int = 2) -> None:
    overrides = (engine, "batch.micro_batches=6", f"model.num_layers={layers}")
    experiment = config.load(Experiment, config.recipe_path("tiny_gpt"), overrides)
    stage = getattr(experiment.engine, "zero_stage", 0)
    planned = Subject(experiment).traffic(divide(experiment.batch, 2), stage).total
    found = run_workers(2, bytes_of_third_step, "tiny_gpt", overrides, distance)
    assert found == pytest.approx([planned] * 2, rel=0.01)
