"""The benchmark's comparison: whoever is wrong keeps its case from being printed, and whoever cannot run is named."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels import bench
from kernels.linear_cross_entropy import contest as linear_cross_entropy
from kernels.relative_attention import contest as relative_attention
from kernels.relative_attention.cases import RAGGED

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FEW = replace(RAGGED[0], queries=12, memory=9, rows=2)


def attention() -> bench.Contest:
    return relative_attention.contest(FEW, torch.float32, DEVICE)


def spoilt(contest: bench.Contest, name: str, run: bench.Run) -> bench.Contest:
    changed = [replace(one, run=run) if one.name == name else one for one in contest.contenders]
    return replace(contest, contenders=changed)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_all_contenders_compute_what_they_say() -> None:
    head = linear_cross_entropy.contest(linear_cross_entropy.SMALL[0], torch.float32, DEVICE)
    for contest in (attention(), head):
        timings = bench.measure(contest)
        assert [one.contender for one in timings] == [one.name for one in contest.contenders]
        assert all(one.error < 1e-5 for one in timings if one.cannot_run is None)


def wrong_value(x: Sequence[Tensor]) -> Tensor:
    return attention().contenders[0].run(x) * 1.001


def wrong_gradient(x: Sequence[Tensor]) -> Tensor:
    """Right values, but nothing flows to the table of distances."""
    return attention().contenders[0].run([*x[:3], x[3].detach(), *x[4:]])


def wrong_in_later_rows_of_many(x: Sequence[Tensor]) -> Tensor:
    """Right where a row is alone, wrong in the first row of several: as of an address that overflows."""
    read_BLHD = attention().contenders[0].run(x)
    return read_BLHD if len(read_BLHD) == 1 else read_BLHD.roll(1, 0)


def no_number(x: Sequence[Tensor]) -> Tensor:
    return attention().contenders[0].run(x) * torch.nan


def wrong_gradient_by_queries_of_many(x: Sequence[Tensor]) -> Tensor:
    """Right values; of several rows the gradient by the queries is not."""
    q = x[0] if len(x[0]) == 1 else x[0] + 0.01 * (x[0] - x[0].detach())
    return attention().contenders[0].run([q, *x[1:]])


@pytest.mark.parametrize(
    "run", [wrong_value, wrong_gradient, wrong_in_later_rows_of_many, no_number, wrong_gradient_by_queries_of_many]
)
def test_a_wrong_contender_keeps_the_case_from_being_printed(
    run: bench.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench.measure(spoilt(attention(), "ours", run)) == []
    said = capsys.readouterr().err
    assert said.startswith("square: not printed: ours wrong (relative error")
    assert "the limit is 1e-04" in said


def test_a_wrong_peer_is_said_to_be_wrong() -> None:
    timings = bench.measure(spoilt(attention(), "eager", lambda x: relative_attention._eager(*x) * 1.001))
    (eager,) = (one for one in timings if one.contender == "eager")
    assert eager.cannot_run is not None
    assert eager.cannot_run.startswith("wrong (relative error")
    assert [one.contender for one in timings if one.cannot_run is None][:1] == ["ours"]


def test_a_peer_that_cannot_run_is_named_and_ours_must() -> None:
    def refuses(x: Sequence[Tensor]) -> Tensor:
        raise NotImplementedError("no such backend\nhere")

    timings = bench.measure(spoilt(attention(), "flash", refuses))
    assert [one.cannot_run for one in timings if one.contender == "flash"] == ["no such backend"]
    assert "flash          no figures: no such backend" in "\n".join(bench.lines(timings))
    assert bench.measure(spoilt(attention(), "ours", refuses)) == []


def test_goals_are_judged_from_the_timings() -> None:
    ours = bench.Timing("wt103-large", "ours", 0.0, 2.0, 5.0, 7.0, 1.0, 1.0, 1.0)
    twin, flash, eager = (
        replace(ours, contender=name, both_ms=ms) for name, ms in (("twin", 3), ("flash", 2), ("eager", 14))
    )
    lines = list(relative_attention.goals([ours, replace(twin, forward_ms=1.0, backward_ms=1.0), flash, eager]))
    verdicts = {line[17:51].strip(): line.rpartition(" ")[2] for line in lines}
    assert verdicts == {
        "forward / twin": "met",
        "backward / twin": "missed",
        "both / flash": "missed",
        "both / eager": "missed",
        "forward MiB / one matrix of scores": "met",
    }
