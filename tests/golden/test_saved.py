"""What was saved by an earlier version goes on in this one: same bytes, same probe, same losses."""

import json
import shutil
from pathlib import Path

import pytest

from pretrain import checkpoint
from pretrain.group import Group
from pretrain.run_directory import read_events
from tests.golden.saved import FOLDER, LOSSES, SAVED, STEPS, losses_of


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Saved by two workers under ZeRO 1, read by one on the local engine."""
    directory = tmp_path / "run"
    shutil.copytree(FOLDER, directory)
    (info,) = checkpoint.list_checkpoints(directory)
    assert (info.step, info.num_workers, checkpoint.verify(info.path)) == (SAVED, 2, [])
    losses = losses_of(directory, Group())
    assert len(losses) == STEPS - SAVED
    assert losses == pytest.approx(json.loads(LOSSES.read_text()), rel=1e-5)
    events = read_events(directory)
    told = [event for event in events if event["event"] not in ("versions", "changed")]  # defaults may have
    assert [event["event"] for event in told] == ["resumed", "finished"]
    assert told[0]["step"] == SAVED
    last = checkpoint.newest_good(directory, log=pytest.fail)
    assert last is not None
    assert last.manifest.skipped == [(4, 4)]
    assert last.manifest.counters["draws"] == STEPS + 1, "one was left out"
