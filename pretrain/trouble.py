"""Numerical trouble: losses and gradients that are not finite, and losses that jump; seen alike by every worker.

A loss l is a spike where (l - median) / (1.4826 * MAD) > threshold, over the last `history` losses that were taken; MAD
is the median absolute deviation from the median, and 1.4826 * MAD estimates the standard deviation of a normal
distribution without being moved by outliers (Hampel 1974, https://doi.org/10.2307/2285666; rejection by it: Leys et al.
2013, https://doi.org/10.1016/j.jesp.2013.03.013). Rolling back and leaving the data out is what PaLM's authors did by
hand (Chowdhery et al. 2022, section 5.1, https://arxiv.org/abs/2204.02311).

A judgement depends on summed numbers alone, which are equal on all workers, so all judge alike; and on the losses
before, which are saved, so a resumed run judges as the undisturbed one does.
"""

import math
import statistics
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from data_pipeline.config import Config

NORMAL_CONSISTENCY = 1.4826
"""1 / (the third quartile of the standard normal distribution)."""

LEAST_SPREAD = 1e-6
"""Of a median; smaller deviations are rounding."""

Kind = Literal["not_finite", "spike"]
Policy = Literal["stop", "skip", "roll_back"]
DrawRange = tuple[int, int]
"""The first and the last of a range of draws from the stream."""


class TroubleConfig(Config):
    """What to do about numbers that are wrong; it changes what a run computes, so it belongs to its identity.

    Policies: `stop` gives up; `skip` moves nothing and goes on, the carry as it was, as if the data of that turn were
    not in the stream; `roll_back` goes on from before the trouble, without the data of the `window` draws up to it.
    """

    not_finite: Policy = "skip"
    """A loss or a gradient norm that is NaN or infinite."""
    spike: Policy | None = None
    """A loss above the median of the last ones by more than `threshold` robust standard deviations. None: not looked
    for."""
    history: int = Field(default=128, ge=8)
    """So many last losses are a loss compared with, once there are as many."""
    threshold: float = Field(default=10.0, gt=0.0)
    """In standard deviations, estimated as 1.4826 times the median absolute deviation."""
    window: int = Field(default=1, ge=1)
    """Draws (turns) whose data a roll-back leaves out, the one in trouble included."""
    max_skips: int = Field(default=10, ge=1)
    """Turns in a row that moved nothing, after which a run gives up."""
    max_roll_backs: int = Field(default=3, ge=1)
    """Of a whole run, after which it gives up."""

    def policy(self, kind: Kind) -> Policy:
        found = self.not_finite if kind == "not_finite" else self.spike
        assert found is not None
        return found

    @property
    def rolls_back(self) -> bool:
        return "roll_back" in (self.not_finite, self.spike)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One turn whose numbers are wrong."""

    kind: Kind
    policy: Policy
    step: int
    """That it belongs to, from 1."""
    player: str
    draw: int
    loss: float
    gradient_norm: float | None
    """None where the loss told before the gradient was looked at."""
    score: float | None
    """Of a spike: robust standard deviations above the median."""
    micro_batches: tuple[int, ...]
    """Those whose loss is not finite; all of them where that says nothing."""
    sample_ids: tuple[tuple[int, ...], ...]
    """Of the rows of these micro-batches."""

    def __str__(self) -> str:
        what = f"step {self.step}, {self.player}: loss {self.loss:.6g}"
        if self.score is not None:
            what += f" is {self.score:.1f} robust standard deviations above the last ones"
        if self.gradient_norm is not None:
            what += f", gradient norm {self.gradient_norm:.6g}"
        return what

    def details(self) -> dict[str, Any]:
        """For events.jsonl: plain values, numbers that JSON cannot say as text."""
        return {
            "message": str(self),
            "kind": self.kind,
            "policy": self.policy,
            "step": self.step,
            "player": self.player,
            "draw": self.draw,
            "loss": _json(self.loss),
            "gradient_norm": _json(self.gradient_norm),
            "score": _json(self.score),
            "micro_batches": list(self.micro_batches),
            "sample_ids": [list(row) for row in self.sample_ids],
        }


class InTroubleError(Exception):
    """Raised by the trainer, on every worker alike, where the policy is not to go on from here; nothing has moved."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(str(trouble))
        self.trouble = trouble


class Judge:
    """Tells trouble from progress by a player's losses so far."""

    def __init__(self, config: TroubleConfig, players: Iterable[str]) -> None:
        self.config = config
        self.losses: dict[str, deque[float]] = {player: deque(maxlen=config.history) for player in players}

    def of_loss(self, player: str, loss: float) -> tuple[Kind | None, float | None]:
        """What is wrong with a loss, and its score where it has one; changes nothing."""
        if not math.isfinite(loss):
            return "not_finite", None
        losses = self.losses[player]
        if self.config.spike is None or len(losses) < self.config.history:
            return None, None
        score = robust_score(loss, losses)
        return ("spike", score) if score > self.config.threshold else (None, score)

    def take(self, player: str, loss: float) -> None:
        """Remember the loss of a turn that moved something."""
        if self.config.spike is not None:
            self.losses[player].append(loss)

    def state(self) -> dict[str, list[float]]:
        """To be saved: the remembered losses by player."""
        return {player: list(losses) for player, losses in self.losses.items()}

    def restore(self, state: Mapping[str, Iterable[float]]) -> None:
        for player, losses in self.losses.items():
            losses.clear()
            losses.extend(state.get(player, ()))


def robust_score(value: float, values: Iterable[float]) -> float:
    """How many robust standard deviations `value` lies above the median of `values`.

    The deviation is taken to be a millionth of the median at least, for more than half of the values may be equal.

    >>> round(robust_score(8.0, [1.0, 2.0, 3.0, 4.0, 5.0]), 4)
    3.3725
    """
    known = list(values)
    median = statistics.median(known)
    spread = NORMAL_CONSISTENCY * statistics.median(abs(other - median) for other in known)
    return (value - median) / max(spread, LEAST_SPREAD * abs(median), sys.float_info.min)


def next_draw(draw: int, skipped: Iterable[DrawRange]) -> int:
    """The first draw from `draw` on that is not left out.

    >>> next_draw(4, [(7, 8), (4, 6)])
    9
    """
    for first, last in sorted(skipped):
        if first <= draw <= last:
            draw = last + 1
    return draw


def window_before(draw: int, length: int, skipped: Iterable[DrawRange]) -> DrawRange:
    """The `length` draws up to `draw` of those that are not left out already; never before the first.

    >>> window_before(9, 3, [(7, 8)])
    (5, 9)
    """
    left_out = {other for first, last in skipped for other in range(first, last + 1)}
    first, found = draw, 1
    while found < length and first > 0:
        first -= 1
        found += first not in left_out
    return first, draw


def _json(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
