"""One measured number with everything needed to read it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A number, and what it means."""

    name: str
    value: float
    unit: str
    better: Literal["lower", "higher"]
    count: int
    """What the value is a mean over."""
    stderr: float | None
    """Of the value, as if the counted things were independent; None where it was not measured."""
    protocol: dict[str, Any]
    """How it was measured: plain values, equal for numbers that may be compared."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
