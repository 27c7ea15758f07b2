"""When a run saves, and what it does when a save fails: by policy, at the next step, on all workers alike."""

import errno
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.config import BadInput, Corrupt, Preempted, Refused
from pretrain import checkpoint, config
from pretrain.checkpoint import NotSaved, Piece, background
from pretrain.checkpoint.host_copy import HostCopy
from pretrain.checkpoint.layout import Place
from pretrain.contract import Loss
from pretrain.experiment import Experiment
from pretrain.group import Group
from pretrain.replicas import ReplicasDifferError
from pretrain.restoring import restore_newest
from pretrain.run import Watch, run
from pretrain.run_directory import read_events
from pretrain.saving import Saving
from pretrain.trainer import Trainer
from tests.processes import run_workers

NEVER = "checkpoint.every=1000"


def experiment(*overrides: str) -> Experiment:
    fixed = ("steps=16", "checkpoint.every=4", "checkpoint.keep=null", "evaluate.every=null", "log.tensorboard=false")
    return config.load(Experiment, config.recipe_path("tiny_transformer_xl"), (*fixed, *overrides))


def steps(directory: Path) -> list[int]:
    return [info.step for info in checkpoint.list_checkpoints(directory)]


def told(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(directory) if event["event"] == kind]


def fail_once(step: int, rank: int) -> Callable[[str, Trainer], None]:
    """No space for the save of this step, on one worker."""
    armed = False

    def moment(name: str, trainer: Trainer) -> None:
        nonlocal armed
        if name == "save" and trainer.step == step:
            armed = True
        elif name == "save: block written" and armed and trainer.engine.group.rank == rank:
            armed = False
            raise OSError(errno.ENOSPC, "No space left on device")

    return moment


def with_a_full_disk(group: Group, directory: Path, policy: str) -> tuple[int, str]:
    """The step that this worker reached, and what it was told."""
    reached: list[int] = []

    def see(report: Any) -> None:
        reached.append(report.step)
        time.sleep(0.1 if policy == "stop" else 0.0)

    watch = Watch(moment=fail_once(40 if policy == "stop" else 4, rank=1), step=see)
    overrides = (f"checkpoint.on_failure={policy}", *(("steps=84", "checkpoint.every=40") if policy == "stop" else ()))
    try:
        run(experiment(*overrides), directory, group, watch=watch)
    except NotSaved as error:
        return reached[-1], str(error)
    return reached[-1], ""


def test_a_failure_in_the_background_stops_all_workers_before_the_next_save(tmp_path: Path) -> None:
    """The save of step 40 fails on worker 1 while both train on; both raise the same after a step or a few."""
    first, second = run_workers(2, with_a_full_disk, tmp_path, "stop")
    assert first == second
    assert "worker 1" in first[1]
    assert "No space left" in first[1]
    assert 40 <= first[0] < 80
    assert steps(tmp_path) == []
    (event,) = told(tmp_path, "not saved")
    assert event["message"] == first[1]


def test_or_the_run_goes_on_and_saves_the_next(tmp_path: Path) -> None:
    first, second = run_workers(2, with_a_full_disk, tmp_path, "go_on")
    assert first == second == (16, "")
    assert steps(tmp_path) == [8, 12, 16]
    assert len(told(tmp_path, "not saved")) == 1


def saved_with(directory: Path, moment: Callable[[str, Trainer], None], *overrides: str) -> list[tuple[int, bool]]:
    """(step, temporary) of each save that was finished in a run of 16 steps, whose saves at 4, 8, 12 and 16 are due."""
    found: list[tuple[int, bool]] = []

    def see(name: str, trainer: Trainer) -> None:
        moment(name, trainer)
        if name == "save: older removed":
            newest = checkpoint.list_checkpoints(directory)[-1]
            found.append((newest.step, newest.temporary))

    settings = experiment("checkpoint.on_failure=go_on", *overrides)
    run(settings, directory, Group(), watch=Watch(moment=see, step=lambda _: time.sleep(0.05)))
    return found


@pytest.mark.parametrize("background", ["true", "false"])
def test_a_save_that_failed_is_tried_again_at_once(tmp_path: Path, background: str) -> None:
    """As a temporary one, and not only when the next one is due."""
    first, *due = saved_with(tmp_path, fail_once(4, rank=0), f"checkpoint.background={background}")
    assert first in [(5, True), (6, True), (7, True)]
    assert due == [(8, False), (12, False), (16, False)]


def test_but_once_only(tmp_path: Path) -> None:
    def fail_until_12(name: str, trainer: Trainer) -> None:
        if name == "save: block written" and trainer.step < 12:
            raise OSError(errno.ENOSPC, "No space left on device")

    assert saved_with(tmp_path, fail_until_12, "checkpoint.background=false") == [(12, False), (16, False)]
    assert len(told(tmp_path, "not saved")) == 4


def test_the_last_save_must_succeed_whatever_the_policy(tmp_path: Path) -> None:
    at_once = "checkpoint.background=false"  # else the save of step 12 may still be at work in step 16, and be the one
    settings = experiment("checkpoint.on_failure=go_on", at_once)
    with pytest.raises(NotSaved, match="No space left"):
        run(settings, tmp_path, Group(), watch=Watch(moment=fail_once(16, rank=0)))
    assert steps(tmp_path) == [4, 8, 12]
    assert told(tmp_path, "finished") == []


def test_a_run_may_be_asked_to_stop_with_its_next_checkpoint(tmp_path: Path) -> None:
    """Whenever it is asked: no step is lost, and none is saved that was not to be."""

    def ask(name: str, trainer: Trainer) -> None:
        if name == "update" and trainer.step == 5:
            trainer.request_stop_at_save()

    with pytest.raises(Preempted, match="after step 8"):
        run(experiment(), tmp_path, Group(), watch=Watch(moment=ask))
    assert steps(tmp_path) == [4, 8]
    assert run(experiment(), tmp_path, Group()) == 16, "and the next start does not remember it"


def test_a_stop_saves_even_where_the_save_before_has_failed(tmp_path: Path) -> None:
    fail = fail_once(4, rank=0)

    def stop_too(name: str, trainer: Trainer) -> None:
        if name == "save" and trainer.step == 4:
            trainer.request_stop()
        fail(name, trainer)

    with pytest.raises(Preempted, match="after step 5"):
        run(experiment(), tmp_path, Group(), watch=Watch(moment=stop_too))
    assert steps(tmp_path) == [5]


def test_temporary_ones_come_by_time_and_go_with_the_next(tmp_path: Path) -> None:
    """One is asked for after every step; each goes once a newer one is complete. The last, permanent one stays."""
    seen: list[list[tuple[int, bool]]] = []

    def look(report: Any) -> None:
        seen.append([(info.step, bool(info.temporary)) for info in checkpoint.list_checkpoints(tmp_path)])

    settings = experiment("steps=6", NEVER, "checkpoint.minutes=1e-9", "checkpoint.background=false")
    run(settings, tmp_path, Group(), watch=Watch(step=look))
    assert [found for found in seen if found] == [[(2, True)], [(3, True)], [(4, True)], [(5, True)]]
    assert steps(tmp_path) == [6]


def with_a_flipped_bit(group: Group, directory: Path) -> str:
    def flip(name: str, trainer: Trainer) -> None:
        if name == "save" and trainer.step == 4 and group.rank == 2:
            weight = next(iter(trainer.engine.model.parameters()))
            weight.data.view(-1)[:1].view(torch.int32).bitwise_xor_(1)

    with pytest.raises(ReplicasDifferError) as error:
        run(experiment("batch.micro_batches=3"), directory, group, watch=Watch(moment=flip))
    return str(error.value)


def test_what_the_workers_do_not_agree_on_is_not_saved(tmp_path: Path) -> None:
    """Without any comparison by steps: replicas are compared before each save."""
    messages = run_workers(3, with_a_flipped_bit, tmp_path)
    assert set(messages) == {messages[0]}
    assert messages[0].startswith("after step 4, worker 2 holds other values than the rest of ")
    assert steps(tmp_path) == []


def without_its_lease(group: Group, directory: Path, policy: str) -> str:
    def may_write() -> None:
        if steps(directory) == [4, 8]:
            raise Refused("another job has the run now")

    with pytest.raises(Refused) as error:
        run(experiment(f"checkpoint.on_failure={policy}"), directory, group, watch=Watch(may_write=may_write))
    return str(error.value)


@pytest.mark.parametrize("policy", ["stop", "go_on"])
def test_a_job_that_lost_its_lease_sweeps_and_saves_nothing(tmp_path: Path, policy: str) -> None:
    """Row 22: it raises on all workers, before it touches what the new owner may be writing."""
    theirs = tmp_path / "checkpoints" / "step-000000009.partial-0123abcd"

    def may_write() -> None:
        if steps(tmp_path) == [4, 8]:
            theirs.mkdir(exist_ok=True)
            raise Refused("another job has the run now")

    with pytest.raises(Refused, match="another job has the run now"):
        run(experiment(f"checkpoint.on_failure={policy}"), tmp_path, Group(), watch=Watch(may_write=may_write))
    assert theirs.exists()
    assert steps(tmp_path) == [4, 8]


def test_all_workers_hear_that_the_lease_is_lost(tmp_path: Path) -> None:
    assert run_workers(2, without_its_lease, tmp_path, "go_on") == ["another job has the run now"] * 2


def with_its_lease_lost_in_a_save(group: Group, directory: Path, policy: str) -> str:
    """It is gone when the leader looks once more, before it commits."""
    lost = [False]

    def moment(name: str, trainer: Trainer) -> None:
        lost[0] |= name == "save: pieces written" and trainer.step >= 4

    def may_write() -> None:
        if lost[0]:
            raise Refused("another job has the run now")

    watch = Watch(moment=moment, may_write=may_write)
    with pytest.raises(Refused) as error:
        run(experiment("steps=200", f"checkpoint.on_failure={policy}"), directory, group, watch=watch)
    return str(error.value)


@pytest.mark.parametrize("policy", ["stop", "go_on"])
def test_all_workers_hear_that_the_lease_was_lost_in_the_middle_of_a_save(tmp_path: Path, policy: str) -> None:
    """As a refusal, which has its own exit code, and not as a save that failed."""
    assert run_workers(2, with_its_lease_lost_in_a_save, tmp_path, policy) == ["another job has the run now"] * 2
    assert steps(tmp_path) == []


def without_its_lease_from_the_start(group: Group, directory: Path) -> str:
    def may_write() -> None:
        raise Refused("another job has the run now")

    with pytest.raises(Refused) as error:
        run(experiment(), directory, group, watch=Watch(may_write=may_write))
    return str(error.value)


def test_a_job_that_lost_its_lease_cuts_off_no_rows(tmp_path: Path) -> None:
    """They are the new owner's."""
    rows = "".join(f'{{"step": {step}}}\n' for step in range(1, 10))
    (tmp_path / "metrics.jsonl").write_text(rows)
    messages = run_workers(2, without_its_lease_from_the_start, tmp_path)
    assert messages == ["another job has the run now"] * 2
    assert (tmp_path / "metrics.jsonl").read_text() == rows


def num_comparisons(group: Group, directory: Path) -> int:
    found = [0]

    def count(trainer: Trainer) -> None:
        real = trainer.engine.replicas

        def replicas() -> Any:
            found[0] += 1
            return real()

        trainer.engine.replicas = replicas  # type: ignore[method-assign]

    run(experiment("steps=8", "supervision.replica_check_every=2"), directory, group, watch=Watch(trainer=count))
    return found[0]


def test_replicas_are_compared_once_where_a_comparison_and_a_save_are_due(tmp_path: Path) -> None:
    """Steps 2, 4, 6 and 8, of which 4 and 8 are saved."""
    assert run_workers(2, num_comparisons, tmp_path) == [4, 4]


def infinite_at(draw: int) -> Callable[[str, Trainer], None]:
    """The loss of one draw is infinite, as by a fault of the machine that may not come again."""
    hooked = False

    def moment(name: str, trainer: Trainer) -> None:
        nonlocal hooked

        def hook(module: object, arguments: object, loss: Loss) -> Loss:
            return replace(loss, total=loss.total * math.inf) if trainer.draws == draw else loss

        if not hooked:
            hooked = True
            trainer.engine.model.register_forward_hook(hook)

    return moment


def stop_at(step: int) -> Callable[[str, Trainer], None]:
    def moment(name: str, trainer: Trainer) -> None:
        if trainer.step == step - 1 and name == "update":
            trainer.request_stop()

    return moment


class PowerCutError(Exception):
    """Not one of Segue's: the process ends where it is."""


def test_what_was_rolled_back_is_left_out_though_the_run_dies_at_once(tmp_path: Path) -> None:
    """The trouble does not come again on resume; its data stay left out all the same."""
    spoil = infinite_at(9)

    def die_after_the_roll_back(name: str, trainer: Trainer) -> None:
        spoil(name, trainer)
        if name == "data" and trainer.skipped:
            raise PowerCutError

    policy = experiment("trouble.not_finite=roll_back", "trouble.window=2")
    with pytest.raises(PowerCutError):
        run(policy, tmp_path, Group(), watch=Watch(moment=die_after_the_roll_back))
    assert run(policy, tmp_path, Group()) == 16
    newest = checkpoint.newest_good(tmp_path, log=pytest.fail)
    assert newest is not None
    assert newest.manifest.skipped == [(8, 9)]
    assert newest.manifest.counters["draws"] == 18


def test_a_roll_back_may_go_to_before_a_change_that_was_allowed(tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        run(experiment(), tmp_path, Group(), watch=Watch(moment=stop_at(5)))
    policy, allowed = experiment("trouble={not_finite: roll_back, window: 4}"), ("trouble",)
    assert run(policy, tmp_path, Group(), watch=Watch(moment=infinite_at(7)), allowed=allowed) == 16
    (event,) = told(tmp_path, "rolled back")
    assert event["to"] == "step-000000004"


def test_a_pointer_to_checkpoints_that_are_gone_is_no_new_run(tmp_path: Path) -> None:
    run(experiment("steps=5"), tmp_path, Group())
    for info in checkpoint.list_checkpoints(tmp_path):
        shutil.rmtree(info.path)
    with pytest.raises(Corrupt, match=r"latest\.json names a checkpoint, but there is none"):
        run(experiment("steps=5"), tmp_path, Group())


def with_storage_of_its_own(group: Group, directory: Path) -> str:
    """Only the leader sees that there were checkpoints, as on storage that shows files late."""
    trainer = experiment().trainer(group)
    with pytest.raises(Corrupt) as error:
        restore_newest(trainer, experiment(), directory / str(group.rank))
    return str(error.value)


def test_what_the_leader_sees_of_the_storage_holds_for_all(tmp_path: Path) -> None:
    (tmp_path / "0" / "checkpoints").mkdir(parents=True)
    checkpoint.move_pointer(tmp_path / "0", Place(4))
    messages = run_workers(2, with_storage_of_its_own, tmp_path)
    assert ["names a checkpoint, but there is none" in message for message in messages] == [True, True]


def test_a_roll_back_reads_no_tensor_of_checkpoints_that_are_too_new(tmp_path: Path) -> None:
    """Those are damaged, and nobody notices."""
    settings = experiment()
    run(settings, tmp_path, Group())
    for step in (8, 12, 16):
        file = tmp_path / "checkpoints" / Place(step).name / "worker-00000.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    trainer = settings.trainer(Group())
    assert restore_newest(trainer, settings, tmp_path, before_draw=7) == Place(4)
    assert trainer.step == 4
    assert told(tmp_path, "fallback") == []


def test_minutes_without_end_are_refused() -> None:
    with pytest.raises(BadInput, match=r"supervision\.hang_minutes: Input should be less than or equal to 100000"):
        experiment("supervision.hang_minutes=.inf")


def test_a_save_may_not_take_longer_than_a_hang() -> None:
    with pytest.raises(BadInput, match=r"checkpoint\.timeout_minutes=20 is not below supervision\.hang_minutes=15"):
        experiment("checkpoint.timeout_minutes=20")


class LateCopy(HostCopy):
    """Begins when the next step has long been computed."""

    def take(self, pieces: Iterable[Piece]) -> list[Piece]:
        time.sleep(0.5)
        return super().take(pieces)


def with_a_count(directory: Path) -> Trainer:
    """A run to its end, whose model counts its forward passes in a buffer."""
    trainer = experiment("steps=4", "checkpoint.every=2").trainer(Group())
    model = trainer.engine.model
    model.register_buffer("passes", torch.zeros((), dtype=torch.float64))

    def count(*_: object) -> None:
        model.passes.add_(1)

    model.register_forward_hook(count)
    with Saving(trainer, experiment("steps=4", "checkpoint.every=2"), directory) as saving:
        for report in trainer.steps():
            saving.after_step(report)
    return trainer


def test_training_goes_on_beside_the_copy_and_changes_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, moments, memory and buffers of step 2 are those of step 2, though step 3 was begun before the copy."""
    with_a_count(tmp_path / "one")
    monkeypatch.setattr(background, "HostCopy", LateCopy)
    trainer = with_a_count(tmp_path / "other")
    assert trainer.stopwatch.totals["save"] > 0.4, "the update of step 3 waited"
    readers = [checkpoint.CheckpointReader(tmp_path / run / "checkpoints/step-000000002") for run in ("one", "other")]
    assert "buffers/passes" in readers[0].names()
    assert checkpoint.compare(*readers).equal


def with_storage_that_changes(group: Group, directory: Path, engine: str) -> int:
    """One worker's second read of the newest checkpoint gives other bytes than its first; where the run goes on."""
    chosen = experiment(engine, "steps=12")
    trainer, read = chosen.trainer(group), checkpoint.CheckpointReader.read

    def damaged(self: checkpoint.CheckpointReader, name: str, start: int, count: int) -> torch.Tensor:
        if group.rank == 1 and self.step == 12 and name.startswith("weights/"):
            raise Corrupt(f"{name}: bytes that were right a moment ago are not")
        return read(self, name, start, count)

    checkpoint.CheckpointReader.read = damaged  # type: ignore[method-assign]
    restore_newest(trainer, chosen, directory)
    return trainer.step


@pytest.mark.parametrize(
    "engine", ["engine={kind: local, device: cpu}", "engine={kind: deepspeed, zero_stage: 1, device: cpu}"]
)
def test_damage_that_one_worker_meets_while_it_restores_sends_all_back(tmp_path: Path, engine: str) -> None:
    run_workers(2, with_full_steps, tmp_path, engine)
    assert run_workers(2, with_storage_that_changes, tmp_path, engine) == [8, 8]
    (event,) = told(tmp_path, "fallback")
    assert "step-000000012 is damaged: " in event["message"]
    assert "worker 1: Corrupt: weights/" in event["message"]


def with_full_steps(group: Group, directory: Path, engine: str) -> None:
    run(experiment(engine, "steps=12"), directory, group)


def with_an_unreadable_lease(group: Group, directory: Path) -> list[str]:
    """Its storage fails for the leader once there is a checkpoint."""
    seen: list[str] = []

    def may_write() -> None:
        if threading.current_thread() is threading.main_thread() and steps(directory):
            raise OSError(errno.ESTALE, "Stale file handle")

    watch = Watch(may_write=may_write)
    try:
        run(experiment(), directory, group, watch=watch)
    except NotSaved as error:
        seen.append(str(error))
    return seen


def test_a_lease_that_cannot_be_read_keeps_no_worker_waiting(tmp_path: Path) -> None:
    first, second = run_workers(2, with_an_unreadable_lease, tmp_path)
    assert first[-1] == second[-1]
    assert "lease cannot be read: [Errno 116] Stale file handle" in first[-1]
