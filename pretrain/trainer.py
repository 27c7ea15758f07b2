"""The one loop: a step is a list of turns, a turn is G micro-batches and one update.

Nothing here depends on how many workers there are: the seed of a micro-batch, its data and its carry follow from its
number, and every worker computes its share of the numbers.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from data_pipeline.batch import Batch
from data_pipeline.streams import Stream
from pretrain.carry import carry_pieces, initial_carries, restore_carries
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Loss
from pretrain.engines.engine import Engine
from pretrain.report import StepReport, Stopwatch, TurnReport
from pretrain.rng import seed_everything

PROBE = "probe"
AFTER_TURN = "after turn"


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers that fix a run's steps."""

    seed: int
    total_steps: int
    micro_batches: int
    """G: of each turn, over all workers."""
    rows: int
    """Of each micro-batch."""


class Trainer:
    """Takes steps until the plan is done or a worker was asked to stop."""

    def __init__(
        self, *, engine: Engine, stream: Stream, plan: Plan, learning_rate: Callable[[str, int], float]
    ) -> None:
        self.engine, self.stream, self.plan, self.learning_rate = engine, stream, plan, learning_rate
        self.share = engine.group.share(plan.micro_batches)
        self.carries = initial_carries(engine.model, self.share, plan.rows, plan.seed)
        self.step = 0
        self.draws = 0
        """Turns taken: the position in the stream."""
        self.updates = dict.fromkeys(engine.model.players, 0)
        """Of each player's parameters: turns whose gradient was finite."""
        self.stop_requested = False
        self.stopwatch = Stopwatch()

    def steps(self) -> Iterator[StepReport]:
        """Train, one report a step; state may be saved between two."""
        while self.step < self.plan.total_steps:
            turns = [self._turn(index, player) for index, player in enumerate(self.engine.model.turns(self.step))]
            self.step += 1
            with self.stopwatch("reduce"):
                asked = self.engine.group.all_reduce_sum(torch.tensor(float(self.stop_requested)))
            report = StepReport(self.step, tuple(turns), self.stopwatch.lap(), stop=bool(asked > 0))
            yield report
            if report.stop:
                return

    def _turn(self, turn: int, player: str) -> TurnReport:
        model = self.engine.model
        with self.stopwatch("data"):
            batches = [self.stream.micro_batch(self.draws, micro_batch) for micro_batch in self.share]
            counted = torch.tensor(float(sum(model.count(batch) for batch in batches)), dtype=torch.float64)
        with self.stopwatch("reduce"):  # apart: waiting for the others is no work of this worker's
            count = int(self.engine.group.all_reduce_sum(counted))
        self.engine.begin_turn(player)
        losses = []
        for index, (micro_batch, batch) in enumerate(zip(self.share, batches, strict=True)):
            with self.stopwatch("forward_backward"):
                losses.append(self._accumulate(turn, player, index, micro_batch, batch, 1.0 / count))
        rate = self.learning_rate(player, self.step)
        with self.stopwatch("update"):
            norm = self.engine.update(player, rate)
            seed_everything(self.plan.seed, self.step, turn, AFTER_TURN)
            model.after_turn(player, self.step)
        self.draws += 1
        if math.isfinite(norm):
            self.updates[player] += 1
        with self.stopwatch("reduce"):
            return self._report(player, batches, losses, count, norm, rate)

    def _accumulate(self, turn: int, player: str, index: int, micro_batch: int, batch: Batch, scale: float) -> Loss:
        seed_everything(self.plan.seed, self.step, turn, micro_batch)
        last = micro_batch == self.share[-1]
        loss = self.engine.accumulate(batch, self.carries[index], player=player, step=self.step, scale=scale, last=last)
        self.carries[index] = loss.carry
        return loss

    def _report(
        self, player: str, batches: list[Batch], losses: list[Loss], count: int, norm: float, rate: float
    ) -> TurnReport:
        """Sums by micro-batch travel in rows that only their worker fills, so adding them up rounds nothing."""
        names = sorted(losses[0].metrics)
        sums_GX = self._by_micro_batch(
            [torch.stack([loss.total, *(loss.metrics[name] for name in names)]).detach() for loss in losses]
        )
        ids_GR = self._by_micro_batch([batch.sample_ids for batch in batches])
        total, *metrics = (sums_GX.sum(0) / count).tolist()
        return TurnReport(
            player=player,
            loss=total,
            count=count,
            metrics=dict(zip(names, metrics, strict=True)),
            gradient_norm=norm,
            learning_rate=rate,
            sample_ids=tuple(tuple(int(sample) for sample in row) for row in ids_GR.tolist()),
            micro_batch_losses=tuple(sums_GX[:, 0].tolist()),
        )

    def _by_micro_batch(self, rows: list[Tensor]) -> Tensor:
        """[G, X] float64: every worker's rows at the places of its micro-batches."""
        table = torch.zeros(self.plan.micro_batches, rows[0].numel(), dtype=torch.float64)
        table[self.share.start : self.share.stop] = torch.stack(rows).double().cpu()
        return self.engine.group.all_reduce_sum(table)

    def probe(self) -> float:
        """The objective of the run's first micro-batch with a fresh carry, in nats: a fingerprint of the weights."""
        player = self.engine.model.players[-1]
        (carry,) = initial_carries(self.engine.model, [0], self.plan.rows, self.plan.seed)
        seed_everything(self.plan.seed, PROBE)
        return float(self.engine.score(self.stream.micro_batch(0, 0), carry, player=player, step=0).total)

    def counters(self) -> dict[str, int]:
        """All state that is neither a tensor nor the plan."""
        return {"step": self.step, "draws": self.draws} | {f"updates/{p}": n for p, n in self.updates.items()}

    def pieces(self) -> list[Piece]:
        """This worker's part of the state."""
        return self.engine.pieces() + carry_pieces(self.carries, self.share, self.plan.micro_batches)

    def restore(self, reader: Reader, counters: dict[str, int]) -> None:
        """Continue where the saved run was."""
        self.step, self.draws = counters["step"], counters["draws"]
        self.updates = {player: counters[f"updates/{player}"] for player in self.updates}
        self.engine.restore(reader, self.updates)
        self.carries = restore_carries(self.carries, self.share, reader)

    def request_stop(self) -> None:
        """Ask all workers to stop after the step in hand; safe from a signal handler or another thread."""
        self.stop_requested = True

    def carry(self) -> list[Carry | None]:
        """The carries of this worker's micro-batches, in their order."""
        return list(self.carries)
