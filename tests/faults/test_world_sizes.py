"""Rows 18 and 19 of the faults: a run goes on at any number of workers and ZeRO stage, or says at once that it cannot.

One run of a Transformer-XL with dropout is stopped again and again, as a preempted job is, and resumed by another
number of workers at another ZeRO stage. Its samples, noise and memory are those of a run that nobody disturbed, and its
losses too, but for the order of sums.
"""

import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from pretrain import run_directory
from pretrain.group import Group
from pretrain.run import run
from tests.faults.legs import MICRO_BATCHES, STEPS, Seen, experiment, forget_memory, start
from tests.processes import run_workers

LEGS = ((1, 0), (2, 1), (4, 2), (3, 3), (1, 0))
"""(workers, ZeRO stage), in turn."""
EACH = STEPS // len(LEGS)
ROUNDING = 1e-5
"""Relative, of a loss: what the order of a sum may change."""


def leg(group: Group, index: int, directory: Path) -> dict[str, Seen]:
    """One leg of the chain; the first also makes the undisturbed run, and another a start that forgets its memory."""
    until, found = EACH * (index + 1), {}
    if index == 0:
        found["undisturbed"] = start(None, directory / "undisturbed", group, until=STEPS)
    if index == 1:
        if group.leads:
            shutil.copytree(directory / "chain", directory / "forgetful")
        group.barrier()
        found["forgetful"] = start(
            LEGS[index][1],
            directory / "forgetful",
            group,
            until=EACH * index + 1,
            after_restore=forget_memory,
        )
    return found | {"chain": start(LEGS[index][1], directory / "chain", group, until=until)}


@pytest.fixture(scope="module")
def legs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Seen]]:
    directory = tmp_path_factory.mktemp("world_sizes")
    for name in ("undisturbed", "chain"):
        run_directory.create(directory / name, experiment(None))
    return [run_workers(workers, leg, index, directory)[0] for index, (workers, _) in enumerate(LEGS)]


def test_samples_noise_and_losses_are_those_of_an_undisturbed_run(legs: list[dict[str, Seen]]) -> None:
    expected = legs[0]["undisturbed"]
    reports = [report for found in legs for report in found["chain"].reports]
    assert [report.step for report in reports] == list(range(1, STEPS + 1))
    for got, whole in zip(reports, expected.reports, strict=True):
        assert got.turns[0].sample_ids == whole.turns[0].sample_ids
        assert got.loss == pytest.approx(whole.loss, rel=ROUNDING)
        assert got.turns[0].micro_batch_losses == pytest.approx(whole.turns[0].micro_batch_losses, rel=ROUNDING)
    noise = {place: state for found in legs for place, state in found["chain"].noise.items()}
    assert len(noise) == len(set(noise.values())) == STEPS * MICRO_BATCHES
    assert noise == expected.noise


def test_memory_moves_with_its_micro_batch(legs: list[dict[str, Seen]]) -> None:
    for before, after in pairwise(legs):
        assert len(before["chain"].memory_after) == MICRO_BATCHES
        assert after["chain"].memory_before == before["chain"].memory_after


def test_a_resume_without_the_memory_would_be_seen(legs: list[dict[str, Seen]]) -> None:
    """The same comparison fails where the restored memory is zeroed."""
    expected = legs[0]["undisturbed"].reports[EACH]
    (forgetful,) = legs[1]["forgetful"].reports
    assert forgetful.turns[0].sample_ids == expected.turns[0].sample_ids
    assert forgetful.loss != pytest.approx(expected.loss, rel=ROUNDING)
    losses = zip(forgetful.turns[0].micro_batch_losses, expected.turns[0].micro_batch_losses, strict=True)
    assert all(a != pytest.approx(b, rel=ROUNDING) for a, b in losses)


@pytest.mark.parametrize("workers", [0, 5, 7, 8, 24])
def test_a_number_of_workers_that_does_not_divide_is_refused_before_the_start(tmp_path: Path, workers: int) -> None:
    with pytest.raises(BadInput, match="use one of 1, 2, 3, 4, 6, 12 workers"):
        run(experiment(None), tmp_path, Group(rank=0, world_size=workers))
    assert list(tmp_path.iterdir()) == []
