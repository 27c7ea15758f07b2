"""Where two runs part: the first step whose numbers differ, then the first tensor of the first checkpoint that differs.

Steps are ordered by their numbers, never by when they were computed. Times, rates and memory tell how a run was
computed, not what: they are left out.
"""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from cluster.comparison_result import CheckpointsComparison, NumberDifference, RunComparison, StepsComparison
from data_pipeline.config import BadInput, Corrupt
from pretrain import checkpoint, config
from pretrain.experiment import Experiment
from pretrain.metrics_log import read_rows
from pretrain.run_directory import changes, read_experiment

MEASURED = ("seconds", "_seconds", "_per_second", "_utilisation", "_bytes")
"""How the names of times, rates and memory end: two equal runs differ in them."""

KINDS = ("weights", "buffers")
"""Of tensors, in the order in which they are looked at; then come the optimizer's moments, then the carry."""


def compare_runs(a: Path, b: Path) -> RunComparison:
    """Find where two runs part; reads each tensor of their common checkpoints up to the first that differs.

    Raises BadInput where one is no run, or where they have neither a step nor a checkpoint in common.
    """
    experiments = read_experiment(a), read_experiment(b)
    steps = _compare_steps(a, b)
    saved = _compare_checkpoints(a, b, experiments[0])
    if not steps.num_shared and not saved.equal and saved.first is None and not saved.damaged:
        raise BadInput(f"{a} and {b} have neither a step nor a checkpoint in common: there is nothing to compare")
    manifest_a, manifest_b = _newest_manifest(a), _newest_manifest(b)
    both = (manifest_a, manifest_b) if manifest_a is not None and manifest_b is not None else None
    return RunComparison(
        experiment=changes(experiments[0].identity(), experiments[1].identity()),
        data=changes(both[0].data_fingerprint, both[1].data_fingerprint) if both else {},
        versions=changes(both[0].versions, both[1].versions) if both else {},
        steps=steps,
        checkpoints=saved,
    )


def _compare_steps(a: Path, b: Path) -> StepsComparison:
    rows_a, rows_b = ({int(row["step"]): row for row in read_rows(run)} for run in (a, b))
    shared = sorted(rows_a.keys() & rows_b.keys())
    first, numbers = None, []
    for step in shared:
        numbers = _different_numbers(rows_a[step], rows_b[step])
        if numbers:
            first = step
            break
    return StepsComparison(
        num_shared=len(shared),
        only_in_a=tuple(sorted(rows_a.keys() - rows_b.keys())),
        only_in_b=tuple(sorted(rows_b.keys() - rows_a.keys())),
        first=first,
        numbers=tuple(numbers),
    )


def _different_numbers(a: dict[str, Any], b: dict[str, Any]) -> list[NumberDifference]:
    found = config.differences(a, b)
    return [NumberDifference(name, *values) for name, values in found.items() if not _is_measured(name)]


def _is_measured(name: str) -> bool:
    """Whether a dotted name is that of a time, a rate or memory.

    >>> [_is_measured(name) for name in ("seconds.data", "tokens_per_second", "players.model.gradient_norm")]
    [True, True, False]
    """
    return any(part.endswith(MEASURED) for part in name.split("."))


def _compare_checkpoints(a: Path, b: Path, experiment: Experiment) -> CheckpointsComparison:
    found_a, found_b = (_checkpoints_by_step(run) for run in (a, b))
    equal: list[int] = []
    damaged: list[str] = []
    for step in sorted(found_a.keys() & found_b.keys()):
        try:
            compared = _compare_held(found_a[step].path, found_b[step].path)
        except Corrupt as error:
            damaged.append(str(error))
            continue
        if compared is None:
            continue
        if not compared.equal:
            different = [tensor for tensor in compared.tensors if tensor.verdict != "equal"]
            different.sort(key=_order(experiment))
            return CheckpointsComparison(tuple(equal), step, tuple(different), compared.numbers, tuple(damaged))
        equal.append(step)
    return CheckpointsComparison(tuple(equal), None, (), (), tuple(damaged))


def _compare_held(a: Path, b: Path) -> checkpoint.Comparison | None:
    """Both stay while they are read; None where a live run has removed one before that."""
    try:
        with (
            closing(checkpoint.CheckpointReader(a, hold=True)) as reader_a,
            closing(checkpoint.CheckpointReader(b, hold=True)) as reader_b,
        ):
            return checkpoint.compare(reader_a, reader_b)
    except (Corrupt, FileNotFoundError):
        if a.is_dir() and b.is_dir():
            raise
        return None


def _checkpoints_by_step(run: Path) -> dict[int, checkpoint.CheckpointInfo]:
    """Of a step that was saved more than once, the last."""
    return {info.step: info for info in checkpoint.list_checkpoints(run)}


def _order(experiment: Experiment) -> Callable[[checkpoint.TensorComparison], tuple[Any, ...]]:
    """The model's order: weights, buffers, then moments, each as the model defines its parameters; the carry last."""
    with torch.device("meta"):
        model = experiment.model.build()
    named = [*(name for name, _ in model.named_parameters()), *(name for name, _ in model.named_buffers())]
    place = {name: index for index, name in enumerate(named)}

    def key(tensor: checkpoint.TensorComparison) -> tuple[Any, ...]:
        kind, _, name = tensor.name.partition("/")
        rank = KINDS.index(kind) if kind in KINDS else len(KINDS) + (kind == "carry")
        return rank, kind, place.get(name, len(place)), name

    return key


def _newest_manifest(run: Path) -> checkpoint.Manifest | None:
    newest = checkpoint.latest(run)
    return None if newest is None else checkpoint.Manifest.read(newest)
