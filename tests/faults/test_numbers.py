"""Numbers go wrong on one worker: NaN, a spike, a flipped bit (rows 24, 25, 26 of the fault matrix)."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.config import GaveUp, Preempted
from pretrain import checkpoint, config
from pretrain.contract import Loss
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.replicas import ReplicasDifferError
from pretrain.report import StepReport
from pretrain.run import Watch, run
from pretrain.run_directory import read_events
from pretrain.trainer import Trainer
from tests.processes import run_workers

BAD = 13
"""The draw in trouble; as there is one turn a step, its step is the next number."""


def experiment(*overrides: str) -> Experiment:
    fixed = ("steps=24", "checkpoint.every=5", "checkpoint.keep=10", "evaluate.every=null", "log.tensorboard=false")
    history = ("trouble.history=8", "trouble.threshold=20")
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*fixed, *history, *overrides))


class Spoil:
    """Multiplies the loss of one draw on one worker, as a broken sum or a bad batch would."""

    def __init__(self, factor: float, *, rank: int, draw: int = BAD) -> None:
        self.factor, self.rank, self.draw = factor, rank, draw
        self.seen: list[tuple[tuple[int, ...], ...]] = []

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "restore" and trainer.engine.group.rank == self.rank:
            trainer.engine.model.register_forward_hook(self.spoil(trainer))

    def spoil(self, trainer: Trainer) -> Callable[..., Loss]:
        def hook(module: object, arguments: object, loss: Loss) -> Loss:
            return replace(loss, total=loss.total * self.factor) if trainer.draws == self.draw else loss

        return hook


class SpoilGradient(Spoil):
    """The loss is right; its gradient is not a number."""

    def spoil(self, trainer: Trainer) -> Callable[..., Loss]:
        def hook(module: torch.nn.Module, arguments: object, loss: Loss) -> Loss:
            weight = next(module.parameters())
            nothing = (weight - weight.detach()).abs().sqrt().sum().float()  # 0, of no slope
            return replace(loss, total=loss.total + nothing) if trainer.draws == self.draw else loss

        return hook


def leave_out(first: int, last: int) -> Callable[[str, Trainer], None]:
    """A stream that never had these draws."""

    def moment(name: str, trainer: Trainer) -> None:
        if name == "data":
            trainer.skipped = [(first, last)]

    return moment


class Seen:
    """The sample ids of every step, the last time that it was computed."""

    def __init__(self) -> None:
        self.ids: dict[int, Any] = {}

    def __call__(self, report: Any) -> None:
        self.ids[report.step] = report.turns[0].sample_ids


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def last(directory: Path) -> checkpoint.CheckpointReader:
    found = checkpoint.newest_good(directory, log=pytest.fail)
    assert found is not None
    return found


def told(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(directory) if event["event"] == kind]


def with_nan_on_worker_1(group: Group, directory: Path, overrides: tuple[str, ...]) -> dict[int, Any]:
    seen = Seen()
    watch = Watch(moment=Spoil(math.nan, rank=1), step=seen)
    run(experiment(*overrides), directory, group, watch=watch)
    return seen.ids


def test_24_nan_on_one_worker_is_skipped_by_all(tmp_path: Path) -> None:
    """Both let the step go; nothing moves, the memory stays, and the event names the samples of the bad micro-batch."""
    overrides = ("checkpoint.every=1", "checkpoint.keep=null")
    seen = run_workers(2, with_nan_on_worker_1, tmp_path, overrides)
    assert seen[0] == seen[1]
    (event,) = told(tmp_path, "trouble")
    assert (event["kind"], event["policy"], event["step"], event["draw"]) == ("not_finite", "skip", BAD + 1, BAD)
    assert event["micro_batches"] == [1]
    assert event["sample_ids"] == [list(seen[0][BAD + 1][1])]
    before, after = (checkpoint.CheckpointReader(tmp_path / "checkpoints" / f"step-{s:09d}") for s in (BAD, BAD + 1))
    assert [d for d in checkpoint.compare(before, after).differences if not d.startswith(("step:", "counters."))] == []
    assert after.manifest.counters["updates/model"] == before.manifest.counters["updates/model"]
    assert last(tmp_path).manifest.counters == {"step": 24, "draws": 24, "updates/model": 23}


BFLOAT16 = {
    "local": "engine={kind: local, device: cpu, precision: bfloat16}",
    "zero 2": "engine={kind: deepspeed, zero_stage: 2, device: cpu, precision: bfloat16, bucket_size: 5000}",
}
SPOILED: dict[str, Callable[[], Spoil]] = {
    "loss": lambda: Spoil(math.nan, rank=1),
    "gradient": lambda: SpoilGradient(math.nan, rank=1),
    "spike": lambda: Spoil(1e3, rank=1),
}
States = dict[int, dict[str, bytes]]
"""By step, bit by bit: what the worker holds alike with the others, and its own pieces of what is saved."""


def skipping(group: Group, directory: Path) -> dict[tuple[str, str], tuple[list[tuple[int, str]], States]]:
    """By engine and what is spoiled: (step, kind) of each turn in trouble, and the states."""
    return {
        (engine, what): skipping_one(group, directory / f"{engine} {what}", setting, spoil())
        for engine, setting in BFLOAT16.items()
        for what, spoil in SPOILED.items()
    }


def skipping_one(group: Group, directory: Path, engine: str, spoil: Spoil) -> tuple[list[tuple[int, str]], States]:
    held: list[Trainer] = []
    troubles: list[tuple[int, str]] = []
    states: States = {}

    def see(report: StepReport) -> None:
        troubles.extend((report.step, turn.trouble.kind) for turn in report.turns if turn.trouble)
        replicas = dict(held[0].engine.replicas())
        pieces = {f"{piece.name}:{piece.start}": piece.tensor for piece in held[0].pieces()}
        states[report.step] = {
            name: tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
            for name, tensor in (replicas | pieces).items()
        }

    if group.leads:
        directory.mkdir()
    group.barrier()
    settings = experiment("steps=16", "trouble.spike=skip", "checkpoint.every=100", engine)
    run(settings, directory, group, watch=Watch(moment=spoil, step=see, trainer=held.append))
    return troubles, states


def test_24_a_turn_that_is_skipped_moves_nothing_in_bfloat16_on_two_workers(tmp_path: Path) -> None:
    """Neither what is computed with, nor its float32 masters, moments or memory; of either engine, on any worker."""
    for found in run_workers(2, skipping, tmp_path):
        for (engine, what), (troubles, states) in found.items():
            assert troubles == [(BAD + 1, "spike" if what == "spike" else "not_finite")], (engine, what)
            before, after, later = states[BAD], states[BAD + 1], states[BAD + 2]
            assert {name.split("/")[0] for name in before} == {"computed", "weights", "exp_avg", "exp_avg_sq", "carry"}
            assert [name for name in before if before[name] != after[name]] == [], (engine, what)
            for kind in ("computed", "weights", "exp_avg", "exp_avg_sq", "carry"):
                assert any(after[name] != later[name] for name in after if name.startswith(f"{kind}/")), (engine, kind)


def test_24_stop_gives_up_with_nothing_moved_and_another_policy_goes_on(tmp_path: Path) -> None:
    watch = Watch(moment=Spoil(math.inf, rank=0))
    with pytest.raises(GaveUp, match=f"step {BAD + 1}, model: loss inf"):
        run(experiment("trouble.not_finite=stop"), tmp_path, Group(), watch=watch)
    assert last(tmp_path).step == 10
    allowed = ("trouble",)
    assert run(experiment("trouble.not_finite=skip"), tmp_path, Group(), watch=watch, allowed=allowed) == 24
    assert [event["policy"] for event in told(tmp_path, "trouble")] == ["stop", "skip"]


def rolled_back(group: Group, directory: Path) -> dict[int, Any]:
    seen = Seen()
    policy = experiment("trouble.spike=roll_back", "trouble.window=3")
    run(policy, directory, group, watch=Watch(moment=Spoil(1e3, rank=1), step=seen))
    return seen.ids


def never_there(group: Group, directory: Path) -> dict[int, Any]:
    seen = Seen()
    policy = experiment("trouble.spike=roll_back", "trouble.window=3")
    run(policy, directory, group, watch=Watch(moment=leave_out(BAD - 2, BAD), step=seen))
    return seen.ids


def test_25_a_spike_is_rolled_back_as_if_its_data_had_never_been_there(tmp_path: Path) -> None:
    """Equal in every bit, on two workers, to a run whose stream lacks the window; from a checkpoint before it."""
    seen = run_workers(2, rolled_back, made(tmp_path / "spike"))
    clean = run_workers(2, never_there, made(tmp_path / "clean"))
    assert seen == clean
    assert seen[0] == seen[1]
    assert checkpoint.compare(last(tmp_path / "spike"), last(tmp_path / "clean")).differences == []
    assert last(tmp_path / "spike").manifest.skipped == [(BAD - 2, BAD)]
    (back,) = told(tmp_path / "spike", "rolled back")
    assert back["skipped"] == [[BAD - 2, BAD]]
    assert back["to"] == "step-000000010", "draw 11 is the first to be left out, and that one has drawn 0 to 9"
    (trouble,) = told(tmp_path / "spike", "trouble")
    assert trouble["score"] > 20
    rows = [json.loads(line)["step"] for line in (tmp_path / "spike" / "metrics.jsonl").open()]
    assert rows == list(range(1, 25)), "every step once"


def test_25_the_skip_list_is_honoured_on_resume(tmp_path: Path) -> None:
    """Stopped after the roll-back and resumed, with the losses that a spike is told by: the same bits."""
    policy, spoil = experiment("trouble.spike=roll_back"), Spoil(1e3, rank=0)

    def stop_at_18(name: str, trainer: Trainer) -> None:
        spoil(name, trainer)
        if trainer.step == 18:
            trainer.request_stop()

    with pytest.raises(Preempted):
        run(policy, made(tmp_path / "stopped"), Group(), watch=Watch(moment=stop_at_18))
    resumed, whole = Seen(), Seen()
    run(policy, tmp_path / "stopped", Group(), watch=Watch(step=resumed))
    run(policy, made(tmp_path / "whole"), Group(), watch=Watch(step=whole, moment=spoil))
    assert resumed.ids == {step: ids for step, ids in whole.ids.items() if step > min(resumed.ids) - 1}
    stopped, undisturbed = last(tmp_path / "stopped"), last(tmp_path / "whole")
    assert stopped.manifest.skipped == undisturbed.manifest.skipped == [(BAD, BAD)]
    assert stopped.manifest.losses == undisturbed.manifest.losses
    assert len(stopped.manifest.losses["model"]) == 8
    assert checkpoint.compare(stopped, undisturbed).differences == []


def test_25_roll_backs_are_bounded(tmp_path: Path) -> None:
    """A loss that is infinite whatever the data: three times back, then the run gives up."""

    class Always(Spoil):
        def spoil(self, trainer: Trainer) -> Callable[..., Loss]:
            return lambda module, arguments, loss: (
                replace(loss, total=loss.total * math.inf) if trainer.step == BAD else loss
            )

    policy = experiment("trouble.not_finite=roll_back", "trouble.max_roll_backs=3")
    with pytest.raises(GaveUp, match=r"trouble\.max_roll_backs=3"):
        run(policy, tmp_path, Group(), watch=Watch(moment=Always(math.inf, rank=0)))
    assert [event["skipped"][-1] for event in told(tmp_path, "rolled back")] == [[13, 13], [14, 14], [15, 15]]


def test_24_skips_in_a_row_are_bounded(tmp_path: Path) -> None:
    def poison(name: str, trainer: Trainer) -> None:
        if trainer.step == 3:
            with torch.no_grad():
                next(trainer.engine.model.parameters()).fill_(math.nan)

    with pytest.raises(GaveUp, match="10 turns in a row moved nothing"):
        run(experiment("checkpoint.every=1000"), tmp_path, Group(), watch=Watch(moment=poison))
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "metrics.jsonl").open()]
    assert [row["loss"] for row in rows[3:]] == [None] * 10
    assert [event["step"] for event in told(tmp_path, "trouble")] == list(range(4, 14))
    assert checkpoint.latest(tmp_path) is None


def with_a_flipped_bit(group: Group, directory: Path, flip: bool) -> str | None:
    """A bit of a weight of worker 1 flips after step 7."""
    flipped = False

    def moment(name: str, trainer: Trainer) -> None:
        nonlocal flipped
        if flip and not flipped and group.rank == 1 and trainer.step == 7 and name == "data":
            flipped = True
            weights = list(trainer.engine.model.parameters())[3]
            weights.data.view(-1)[5:6].view(torch.int32).bitwise_xor_(1)

    settings = experiment("steps=12", "batch.micro_batches=3", "supervision.replica_check_every=2")
    try:
        run(settings, directory, group, watch=Watch(moment=moment))
    except ReplicasDifferError as error:
        return str(error)
    return None


def flipped_resumed_undisturbed(group: Group, flipped: Path, undisturbed: Path) -> tuple[str | None, int]:
    """What was said of the flipped bit, and the step of the last checkpoint then; then all runs go to their end."""
    said = with_a_flipped_bit(group, flipped, True)
    reached = last(flipped).step
    assert with_a_flipped_bit(group, flipped, False) is None
    assert with_a_flipped_bit(group, undisturbed, False) is None
    return said, reached


def test_26_a_flipped_bit_on_one_replica_is_found_and_its_worker_named(tmp_path: Path) -> None:
    """Found at the next comparison, before anything is saved of it; going on gives the bits of an undisturbed run."""
    runs = made(tmp_path / "flipped"), made(tmp_path / "undisturbed")
    found = run_workers(3, flipped_resumed_undisturbed, *runs)
    assert found == [found[0]] * 3
    said, reached = found[0]
    assert str(said).startswith("after step 8, worker 1 holds other values than the rest of ")
    assert reached == 5
    assert [last(directory).step for directory in runs] == [12, 12]
    assert checkpoint.compare(last(runs[0]), last(runs[1])).differences == []
