"""What happened in a step: plain numbers, equal on every worker."""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Literal, get_args

from pretrain.trouble import Trouble

Request = Literal["stop", "stop at save", "save", "join save"]
"""stop: save, and end; stop at save: end with the next checkpoint, whenever it is due; save: now, though no permanent
checkpoint is due; join save: the one in flight has failed."""

REQUESTS: tuple[Request, ...] = get_args(Request)


@dataclass(frozen=True, slots=True)
class TurnReport:
    """One player's move."""

    player: str
    loss: float
    """The objective per count: nats per token where the model has a likelihood."""
    count: int
    metrics: dict[str, float]
    gradient_norm: float | None
    """Before clipping; None where the loss told that it is not worth looking at."""
    learning_rate: float
    sample_ids: tuple[tuple[int, ...], ...]
    """The identity of every row's data, by micro-batch."""
    micro_batch_losses: tuple[float, ...]
    """Summed objective by micro-batch: with equal weights, equal only where data, noise and carry are."""
    trouble: Trouble | None = None
    """Why the turn moved nothing, where it did not."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of the run."""

    step: int
    """Steps done, this one included."""
    turns: tuple[TurnReport, ...]
    seconds: dict[str, float]
    """Wall time by phase: data, forward_backward and within it forward, update, reduce."""
    requests: frozenset[Request]
    """What some worker was asked for until the end of this step; the same on all."""

    @property
    def stop(self) -> bool:
        """All stop after this step."""
        return "stop" in self.requests

    @property
    def loss(self) -> float:
        """The last player's."""
        return self.turns[-1].loss

    @property
    def count(self) -> int:
        return sum(turn.count for turn in self.turns)

    @property
    def samples(self) -> str:
        """A digest of all rows' identities: equal where the step was computed of the same data in the same places."""
        ids = [turn.sample_ids for turn in self.turns]
        return hashlib.blake2b(json.dumps(ids).encode(), digest_size=8).hexdigest()


STARTING = "starting"
"""Before the first phase."""
BETWEEN = "between phases"


@dataclass(slots=True)
class Stopwatch:
    """Wall time by phase; `phase` is what this worker is doing now, for heartbeats: see STARTING and BETWEEN."""

    seconds: dict[str, float] = field(default_factory=dict)
    phase: str = STARTING
    ticks: int = 0
    """Phases begun and ended so far: all workers count alike, so the one that hangs has the lowest count."""
    on_phase: Callable[[str], None] = lambda _: None
    """Told of each phase as it begins."""
    totals: dict[str, float] = field(default_factory=dict)
    """As `seconds`, of all laps."""

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        before, self.phase, start = self.phase, phase, perf_counter()
        self.tick()
        self.on_phase(phase)
        try:
            yield
        finally:
            taken = perf_counter() - start
            self.seconds[phase] = self.seconds.get(phase, 0.0) + taken
            self.totals[phase] = self.totals.get(phase, 0.0) + taken
            self.phase = BETWEEN if before == STARTING else before
            self.tick()

    def tick(self) -> None:
        """Say that this worker is getting on, within a long phase."""
        self.ticks += 1

    def lap(self) -> dict[str, float]:
        """The seconds since the last lap, by phase."""
        taken, self.seconds = self.seconds, {}
        return taken
