"""The one loop: a step is a list of turns, a turn is G micro-batches and one update.

Nothing here depends on how many workers there are: the seed of a micro-batch, its data and its carry follow from its
number, and every worker computes its share of the numbers.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from data_pipeline.batch import Batch
from data_pipeline.streams import Stream
from pretrain.carry import carry_pieces, initial_carries, restore_carries
from pretrain.checkpoint.piece import Piece, Reader
from pretrain.contract import Carry, Loss
from pretrain.engines.engine import Engine
from pretrain.report import REQUESTS, Request, StepReport, Stopwatch, TurnReport
from pretrain.rng import seed_everything
from pretrain.trouble import DrawRange, InTroubleError, Judge, Kind, Trouble, TroubleConfig, next_draw

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
    trouble: TroubleConfig = field(default_factory=TroubleConfig)


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a turn's forward passes, over all workers."""

    loss: float
    """Per count."""
    losses: tuple[float, ...]
    """Summed, by micro-batch."""
    metrics: dict[str, float]
    sample_ids: tuple[tuple[int, ...], ...]


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
        self.skipped: list[DrawRange] = []
        """Draws that roll-backs leave out of the stream."""
        self.judge = Judge(plan.trouble, engine.model.players)
        self.requests: set[Request] = set()
        self.stopwatch = Stopwatch()
        engine.forward = partial(self.stopwatch, "forward")
        self.before_change: Callable[[], None] = lambda: None
        """Called before anything that belongs to the state changes: a save may still be copying it."""

    def steps(self) -> Iterator[StepReport]:
        """Train, one report a step; state may be saved between two.

        Raises InTroubleError, on every worker alike and with nothing moved by that turn, where a turn's numbers are
        wrong and the policy is not to skip it.
        """
        while self.step < self.plan.total_steps:
            turns = [self._turn(index, player) for index, player in enumerate(self.engine.model.turns(self.step))]
            self.step += 1
            requests = self._exchange_requests()
            report = StepReport(self.step, tuple(turns), self.stopwatch.lap(), requests)
            yield report
            if report.stop:
                return

    def _exchange_requests(self) -> frozenset[Request]:
        """What any worker has asked for until now."""
        with self.stopwatch("reduce"):
            asked = self.engine.group.all_reduce_sum(torch.tensor([float(r in self.requests) for r in REQUESTS]))
        found = frozenset(request for request, count in zip(REQUESTS, asked.tolist(), strict=True) if count)
        self.requests -= found
        return found

    def _turn(self, turn: int, player: str) -> TurnReport:
        model = self.engine.model
        self.draws = next_draw(self.draws, self.skipped)
        with self.stopwatch("data"):
            batches = [self.stream.micro_batch(self.draws, micro_batch) for micro_batch in self.share]
            counted = torch.tensor(float(sum(model.count(batch) for batch in batches)), dtype=torch.float64)
        with self.stopwatch("reduce"):  # apart: waiting for the others is no work of this worker's
            count = int(self.engine.group.all_reduce_sum(counted))
        self.engine.begin_turn(player)
        carries_before, losses = list(self.carries), []
        for index, (micro_batch, batch) in enumerate(zip(self.share, batches, strict=True)):
            with self.stopwatch("forward_backward"):
                losses.append(self._accumulate(turn, player, index, micro_batch, batch, 1.0 / count))
        with self.stopwatch("reduce"):
            sums = self._sums(batches, losses, count)
        kind, score = self.judge.of_loss(player, sums.loss)
        rate = self.learning_rate(player, self.step)
        norm = None
        self.before_change()
        with self.stopwatch("update"):
            if kind is None:
                norm = self.engine.update(player, rate)
                kind = None if math.isfinite(norm) else "not_finite"
            else:
                self.engine.drop(player)
            if kind is None:
                seed_everything(self.plan.seed, self.step, turn, AFTER_TURN)
                model.after_turn(player, self.step)
        trouble = None
        if kind is None:
            self.judge.take(player, sums.loss)
            self.updates[player] += 1
        else:
            self.carries = carries_before
            trouble = self._trouble(kind, player, sums, norm, score)
        self.draws += 1
        return TurnReport(player, sums.loss, count, sums.metrics, norm, rate, sums.sample_ids, sums.losses, trouble)

    def _trouble(self, kind: Kind, player: str, sums: "Sums", norm: float | None, score: float | None) -> Trouble:
        """What is told of a turn that moved nothing; raises InTroubleError where the policy is not to skip it."""
        bad = [g for g, loss in enumerate(sums.losses) if not math.isfinite(loss)] or list(range(len(sums.losses)))
        trouble = Trouble(
            kind=kind,
            policy=self.plan.trouble.policy(kind),
            step=self.step + 1,
            player=player,
            draw=self.draws,
            loss=sums.loss,
            gradient_norm=norm,
            score=score,
            micro_batches=tuple(bad),
            sample_ids=tuple(sums.sample_ids[g] for g in bad),
        )
        if trouble.policy != "skip":
            raise InTroubleError(trouble)
        return trouble

    def _accumulate(self, turn: int, player: str, index: int, micro_batch: int, batch: Batch, scale: float) -> Loss:
        seed_everything(self.plan.seed, self.step, turn, micro_batch)
        last = micro_batch == self.share[-1]
        loss = self.engine.accumulate(batch, self.carries[index], player=player, step=self.step, scale=scale, last=last)
        self.carries[index] = loss.carry
        return loss

    def _sums(self, batches: list[Batch], losses: list[Loss], count: int) -> "Sums":
        """Sums by micro-batch travel in rows that only their worker fills, so adding them up rounds nothing."""
        names = sorted(losses[0].metrics)
        sums_GX = self._by_micro_batch(
            [torch.stack([loss.total, *(loss.metrics[name] for name in names)]).detach() for loss in losses]
        )
        ids_GR = self._by_micro_batch([batch.sample_ids for batch in batches])
        total, *metrics = (sums_GX.sum(0) / count).tolist()
        return Sums(
            loss=total,
            losses=tuple(sums_GX[:, 0].tolist()),
            metrics=dict(zip(names, metrics, strict=True)),
            sample_ids=tuple(tuple(int(sample) for sample in row) for row in ids_GR.tolist()),
        )

    def _by_micro_batch(self, rows: list[Tensor]) -> Tensor:
        """[G, X] float64: every worker's rows at the places of its micro-batches."""
        table = torch.zeros(self.plan.micro_batches, rows[0].numel(), dtype=torch.float64)
        table[self.share.start : self.share.stop] = torch.stack(rows).double().cpu()
        return self.engine.group.all_reduce_sum(table)

    def probe(self, batch: Batch) -> dict[str, float]:
        """The objective of each player on one micro-batch with a fresh carry, in nats: a fingerprint of the weights."""
        found = {}
        for player in self.engine.model.players:
            (carry,) = initial_carries(self.engine.model, [0], self.plan.rows, self.plan.seed)
            seed_everything(self.plan.seed, PROBE)
            found[player] = float(self.engine.score(batch, carry, player=player, step=0).total)
        return found

    def counters(self) -> dict[str, int]:
        """All state that is neither a tensor nor the plan."""
        return {"step": self.step, "draws": self.draws} | {f"updates/{p}": n for p, n in self.updates.items()}

    def pieces(self) -> list[Piece]:
        """This worker's part of the state."""
        return self.engine.pieces() + carry_pieces(self.carries, self.share, self.plan.micro_batches)

    def restore(
        self,
        reader: Reader,
        counters: dict[str, int],
        *,
        skipped: Iterable[DrawRange] = (),
        losses: Mapping[str, Iterable[float]] | None = None,
    ) -> None:
        """Continue where the saved run was."""
        self.before_change()
        self.step, self.draws = counters["step"], counters["draws"]
        self.updates = {player: counters[f"updates/{player}"] for player in self.updates}
        self.engine.restore(reader, self.updates)
        self.carries = restore_carries(self.carries, self.share, reader)
        self.skipped = list(skipped)
        self.judge.restore(losses or {})

    def request(self, request: Request) -> None:
        """Ask all workers, who hear of it after the step in hand; safe from a signal handler or another thread."""
        self.requests.add(request)

    def request_stop(self) -> None:
        """Ask all workers to stop after the step in hand."""
        self.request("stop")

    def request_stop_at_save(self) -> None:
        """Ask all workers to stop with the next checkpoint, whenever it is due."""
        self.request("stop at save")

    def carry(self) -> list[Carry | None]:
        """The carries of this worker's micro-batches, in their order."""
        return list(self.carries)
