"""What a comparison of two runs found: for people in lines, for programs in JSON."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pretrain import checkpoint

SHOWN = 5
"""Of the numbers, and of the tensors, that differ in one place."""


@dataclass(frozen=True, slots=True)
class NumberDifference:
    """One number of a step in both runs; None where a run has not got it, or where it was not finite."""

    name: str
    a: Any
    b: Any

    @property
    def relative(self) -> float | None:
        """|a - b| / max(|a|, |b|); None where one is no number."""
        if not all(isinstance(value, int | float) for value in (self.a, self.b)):
            return None
        return abs(self.a - self.b) / max(abs(self.a), abs(self.b))

    def __str__(self) -> str:
        relative = "" if self.relative is None else f", relative difference {self.relative:.3g}"
        return f"{self.name}: {self.a!r} in a, {self.b!r} in b{relative}"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "a": self.a, "b": self.b, "relative_difference": self.relative}


@dataclass(frozen=True, slots=True)
class StepsComparison:
    """The rows of both metrics.jsonl."""

    num_shared: int
    only_in_a: tuple[int, ...]
    only_in_b: tuple[int, ...]
    first: int | None
    """The first step that both have and in which any number differs."""
    numbers: tuple[NumberDifference, ...]
    """That differ in that step, in the row's order."""

    def lines(self) -> list[str]:
        if self.first is None:
            found = [f"steps: all numbers of {self.num_shared} steps are equal"] if self.num_shared else []
        else:
            found = [f"steps: the first that differs is {self.first}", *_shortened(self.numbers)]
        for name, steps in (("a", self.only_in_a), ("b", self.only_in_b)):
            if steps:
                found.append(f"steps only in {name}: {_ranges(steps)}")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "num_shared": self.num_shared,
            "only_in_a": list(self.only_in_a),
            "only_in_b": list(self.only_in_b),
            "first_different": self.first,
            "numbers": [number.to_json() for number in self.numbers],
        }


@dataclass(frozen=True, slots=True)
class CheckpointsComparison:
    """The checkpoints of steps at which both runs have one."""

    equal: tuple[int, ...]
    """Steps, up to the first that differs."""
    first: int | None
    """The first step whose checkpoints differ."""
    tensors: tuple[checkpoint.TensorComparison, ...]
    """That differ there: weights in the model's order, buffers, moments, carry."""
    numbers: tuple[str, ...]
    """Counters and scalars that differ there."""
    damaged: tuple[str, ...]
    """Checkpoints that could not be compared, and why."""

    def lines(self) -> list[str]:
        found = [f"checkpoint left out: {problem}" for problem in self.damaged]
        if self.equal:
            found.append(f"checkpoints: equal in every bit at {_steps(self.equal)}")
        if self.first is not None:
            found.append(f"checkpoints: the first that differs is that of step {self.first}")
            found += [f"  {line}" for line in self.numbers]
            found += _shortened(self.tensors)
        elif not self.equal:
            found.append("checkpoints: there is no step of which both runs have one")
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "equal": list(self.equal),
            "first_different": self.first,
            "numbers": list(self.numbers),
            "tensors": [_tensor_json(tensor) for tensor in self.tensors],
            "damaged": list(self.damaged),
        }


@dataclass(frozen=True, slots=True)
class RunComparison:
    """All that was compared; a dotted key -> (in a, in b) for what tells of both runs."""

    experiment: dict[str, tuple[Any, Any]]
    """Keys of the experiments' identity."""
    data: dict[str, tuple[Any, Any]]
    """Parts of the data's fingerprint, as the newest checkpoints say."""
    versions: dict[str, tuple[Any, Any]]
    """Of packages, as the newest checkpoints say; they alone make no difference."""
    steps: StepsComparison
    checkpoints: CheckpointsComparison

    @property
    def equal(self) -> bool:
        """Whether both compute the same, have the same steps, and nothing that both have differs."""
        steps, saved = self.steps, self.checkpoints
        unequal = (self.experiment, self.data, steps.numbers, steps.only_in_a, steps.only_in_b, saved.damaged)
        return not any(unequal) and saved.first is None

    def lines(self) -> list[str]:
        found = []
        for what, keys in (("experiment", self.experiment), ("data", self.data), ("version", self.versions)):
            found += [f"{what} {key}: {a!r} in a, {b!r} in b" for key, (a, b) in keys.items()]
        found += [*self.steps.lines(), *self.checkpoints.lines()]
        return [*found, self._verdict()]

    def _verdict(self) -> str:
        if self.equal:
            return "equal"
        parted = [step for step in (self.steps.first, self.checkpoints.first) if step is not None]
        if not parted:
            return "different, but equal as far as both go"
        if self.checkpoints.first is None and self.checkpoints.equal and self.checkpoints.equal[-1] >= parted[0]:
            return f"different in what was logged; all checkpoints up to step {self.checkpoints.equal[-1]} are equal"
        before = [step for step in self.checkpoints.equal if step < min(parted)]
        after = f"after step {before[-1]}" if before else "after the start"
        return f"different: they part {after} and by step {min(parted)}"

    def to_json(self) -> dict[str, Any]:
        pairs = {
            name: {key: {"a": a, "b": b} for key, (a, b) in keys.items()}
            for name, keys in (("experiment", self.experiment), ("data", self.data), ("versions", self.versions))
        }
        return {
            "equal": self.equal,
            **pairs,
            "steps": self.steps.to_json(),
            "checkpoints": self.checkpoints.to_json(),
        }


def _shortened(found: Sequence[object]) -> list[str]:
    more = [f"  and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
    return [*(f"  {one}" for one in found[:SHOWN]), *more]


def _steps(steps: Sequence[int]) -> str:
    return f"step{'' if len(steps) == 1 else 's'} {_ranges(steps)}"


def _ranges(steps: Sequence[int]) -> str:
    """Ascending numbers, those that follow each other as a range.

    >>> _ranges([1, 2, 3, 7])
    '1 to 3, 7'
    """
    runs = [list(run) for _, run in groupby(enumerate(steps), key=lambda numbered: numbered[1] - numbered[0])]
    return ", ".join(str(run[0][1]) if len(run) == 1 else f"{run[0][1]} to {run[-1][1]}" for run in runs)


def _tensor_json(tensor: checkpoint.TensorComparison) -> dict[str, Any]:
    largest = tensor.max_difference
    return {
        "name": tensor.name,
        "verdict": tensor.verdict,
        "num_different": tensor.num_different,
        "first_index": tensor.first_different,
        "max_difference": largest if math.isfinite(largest) else None,
        "detail": tensor.detail.removeprefix(": "),
    }
