"""Slow workers: who takes longer for its own work than the others, over windows of steps.

Steps end together, so a slow worker shows in nobody's step time; it shows in the phases in which no worker waits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from cluster.observer import OWN_WORK, Work, WorkerStatus

WINDOW_STEPS = 20
WINDOW_SECONDS = 1.0
"""A window lasts for so much of the slowest worker's own work at least: in less, any pause of its machine decides."""


@dataclass(frozen=True, slots=True)
class Straggler:
    """One slow worker in one window."""

    worker: int
    node: str
    step: int
    """The window's last."""
    phase: str
    """Where it loses most."""
    factor: float
    """Its own work's seconds a step, over the workers' median."""


class Stragglers:
    """Compares the workers of one start, window by window; a worker is named once for as long as it stays slow."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.begun: dict[int, Work] = {}
        """By rank, at the window's first step."""
        self.known: set[int] = set()

    def see(self, statuses: Sequence[WorkerStatus]) -> list[Straggler]:
        """Those that have become stragglers; none while the window lasts."""
        if any(status.work.step == 0 for status in statuses):
            return []
        if not self.begun:
            self._begin(statuses)
        if any(status.work.step < self.begun[status.rank].step + WINDOW_STEPS for status in statuses):
            return []
        if max(_seconds(status.work) - _seconds(self.begun[status.rank]) for status in statuses) < WINDOW_SECONDS:
            return []
        found = self._compare(statuses)
        self._begin(statuses)
        new = [straggler for straggler in found if straggler.worker not in self.known]
        self.known = {straggler.worker for straggler in found}
        return new

    def _begin(self, statuses: Sequence[WorkerStatus]) -> None:
        self.begun = {status.rank: status.work for status in statuses}

    def _compare(self, statuses: Sequence[WorkerStatus]) -> list[Straggler]:
        """The lower median: of two workers, the faster is the measure."""
        rates = {status.rank: _by_phase(self.begun[status.rank], status.work) for status in statuses}
        usual = {phase: median_low([rate[phase] for rate in rates.values()]) for phase in OWN_WORK}
        median = median_low([sum(rate.values()) for rate in rates.values()])
        return [
            Straggler(
                worker=status.rank,
                node=status.node,
                step=status.work.step,
                phase=max(OWN_WORK, key=lambda phase: rates[status.rank][phase] - usual[phase]),
                factor=round(sum(rates[status.rank].values()) / median, 2),
            )
            for status in statuses
            if sum(rates[status.rank].values()) > self.factor * median
        ]


def _by_phase(begun: Work, now: Work) -> dict[str, float]:
    """Seconds a step."""
    return {phase: (now.seconds[phase] - begun.seconds[phase]) / (now.step - begun.step) for phase in OWN_WORK}


def _seconds(work: Work) -> float:
    """Of own work."""
    return sum(work.seconds[phase] for phase in OWN_WORK)
