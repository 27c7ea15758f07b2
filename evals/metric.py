"""One measured number with everything needed to read it."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, and what it means."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"] | None
    """None: neither says that a model is better."""
    count: int
    """What the value is a mean over."""
    stderr: float | None
    """Of the value, as if the counted things were independent; None where it was not measured."""
    protocol: dict[str, Any]
    """How it was measured: plain values, equal for numbers that may be compared."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def mean_and_error(numbers: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and its standard error as if the numbers were independent (None of fewer than two)."""
    count = len(numbers)
    mean = math.fsum(numbers) / count
    if count < 2:
        return mean, None
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (count - 1)
    return mean, math.sqrt(variance / count)
