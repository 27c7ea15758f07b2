"""The loop on models small enough to know what each step must do."""

from typing import Any

import pytest
import torch
from torch import nn

from data_pipeline.batch import IGNORED, VectorBatch
from pretrain.contract import Carry, Loss, Model
from pretrain.engines.local import LocalEngineConfig
from pretrain.group import Group
from pretrain.optim import AdamWConfig
from pretrain.trainer import Plan, Trainer
from pretrain.trouble import InTroubleError, TroubleConfig


class Line(Model):
    """w x, descended; its gradient by w is the mean of x. The carry counts the turns; weights may be clipped.

    At step `bad_step` the loss is infinite, or only its gradient.
    """

    def __init__(self, *, bad_step: int | None = None, bad: str = "loss", largest: float | None = None) -> None:
        super().__init__()
        self.weight_1D = nn.Parameter(torch.full((1, 3), 0.5))
        self.bad_step, self.bad, self.largest = bad_step, bad, largest

    def initial_carry(self, rows: int) -> Carry:
        return {"turns": torch.zeros(rows)}

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        assert carry is not None
        total = (batch.values.to(self.weight_1D.dtype) * self.weight_1D).sum()
        if step == self.bad_step and self.bad == "loss":
            total = total * float("inf")
        elif step == self.bad_step:
            total = total + (self.weight_1D - self.weight_1D.detach()).abs().sqrt().sum()  # 0, of infinite slope
        return Loss(total=total, count=batch.rows, carry={"turns": carry["turns"] + 1})


class ClippedLine(Line):
    def after_turn(self, player: str, step: int) -> None:
        assert self.largest is not None
        with torch.no_grad():
            self.weight_1D.clamp_(-self.largest, self.largest)


class Ramp:
    """Micro-batch g of draw d has every value 1 + d + 10 g."""

    draws_per_epoch = 100

    def micro_batch(self, draw: int, micro_batch: int) -> VectorBatch:
        values = torch.full((2, 3), 1.0 + draw + 10 * micro_batch)
        return VectorBatch(values, torch.full((2,), IGNORED), torch.tensor([draw, micro_batch]))

    def fingerprint(self) -> dict[str, str | int]:
        return {}


def trainer(
    model: Model,
    *,
    precision: Any = "float32",
    steps: int = 3,
    clip: float | None = None,
    trouble: TroubleConfig | None = None,
) -> Trainer:
    optimizer = AdamWConfig(learning_rate=0.1, gradient_clip=clip)
    config = LocalEngineConfig(kind="local", precision=precision)
    engine = config.build(model, {"model": optimizer}, Group(), micro_batches=2)
    plan = Plan(seed=0, total_steps=steps, micro_batches=2, rows=2, trouble=trouble or TroubleConfig())
    return Trainer(engine=engine, stream=Ramp(), plan=plan, learning_rate=lambda player, step: 0.1 / (step + 1))


def test_loss_and_gradient_are_means_over_all_micro_batches() -> None:
    first, second, _ = trainer(Line()).steps()
    assert first.turns[0].count == 4
    assert first.loss == pytest.approx(3 * 0.5 * (1 + 11) / 2)
    assert first.turns[0].gradient_norm == pytest.approx((3 * 6.0**2) ** 0.5)
    assert first.turns[0].micro_batch_losses == pytest.approx((2 * 3 * 0.5 * 1, 2 * 3 * 0.5 * 11))
    assert first.turns[0].sample_ids == ((0, 0), (0, 1))
    assert second.turns[0].gradient_norm == pytest.approx((3 * 7.0**2) ** 0.5), "the next draw, and nothing left over"
    assert [first.turns[0].learning_rate, second.turns[0].learning_rate] == [0.1, 0.05]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_what_is_not_finite_moves_nothing_and_is_not_counted(bad: str, precision: str) -> None:
    run = trainer(Line(bad_step=1, bad=bad), precision=precision)
    steps, states = run.steps(), []
    for report in steps:
        states.append({piece.name: piece.tensor.clone() for piece in run.pieces()})
        trouble = report.turns[0].trouble
        assert (trouble is not None) == (report.step == 2)
        if trouble is not None:
            assert (trouble.kind, trouble.policy, trouble.step, trouble.draw) == ("not_finite", "skip", 2, 1)
            assert trouble.sample_ids == ((1, 0), (1, 1))
            assert (trouble.gradient_norm is None) == (bad == "loss")
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0]), "weights, moments and carry"
    assert not torch.equal(states[1]["weights/weight_1D"], states[2]["weights/weight_1D"])
    assert run.counters() == {"step": 3, "draws": 3, "updates/model": 2}


def test_left_out_draws_are_never_drawn() -> None:
    run = trainer(Line(), steps=4)
    run.skipped = [(1, 2), (4, 4)]
    drawn = [report.turns[0].sample_ids[0][0] for report in run.steps()]
    assert drawn == [0, 3, 5, 6]


def test_another_policy_than_to_skip_ends_the_steps_with_nothing_moved() -> None:
    run = trainer(Line(bad_step=1), trouble=TroubleConfig(not_finite="stop"))
    steps = run.steps()
    next(steps)
    before = {piece.name: piece.tensor.clone() for piece in run.pieces()}
    with pytest.raises(InTroubleError, match="step 2, model: loss inf"):
        next(steps)
    assert all(torch.equal(piece.tensor, before[piece.name]) for piece in run.pieces())
    assert run.counters() == {"step": 1, "draws": 1, "updates/model": 1}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_after_turn_changes_stays_changed(precision: str) -> None:
    run = trainer(ClippedLine(largest=0.25), precision=precision)
    for _ in run.steps():
        assert run.pieces()[0].tensor.abs().max() <= 0.25
        assert run.engine.model.weight_1D.abs().max() <= 0.25


def test_the_norm_is_that_before_clipping_and_the_update_that_after() -> None:
    """AdamW's first step is the sign of the gradient; its first moment shows what it was given."""
    run = trainer(Line(), steps=1, clip=1.0)
    (report,) = run.steps()
    assert report.turns[0].gradient_norm == pytest.approx(6.0 * 3**0.5)
    moment = next(piece.tensor for piece in run.pieces() if piece.name.startswith("exp_avg/"))
    assert moment.norm() == pytest.approx(0.1, rel=1e-4), "(1 - beta1) times a gradient of norm 1"


def test_a_stop_ends_the_run_after_the_step_in_hand() -> None:
    run = trainer(Line(), steps=10)
    seen = []
    for report in run.steps():
        seen.append(report)
        if report.step == 2:
            run.request_stop()
    assert [report.step for report in seen] == [1, 2, 3]
    assert [report.stop for report in seen] == [False, False, True]
