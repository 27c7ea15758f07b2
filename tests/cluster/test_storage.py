"""Whether storage that is not shared is told from storage that is: nodes are stood for by directories."""

import shutil
from pathlib import Path

import pytest

from cluster.storage import StorageCheck, answer
from data_pipeline.config import Refused


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "run"
    path.mkdir()
    return path


def test_nodes_that_share_it_and_nothing_is_left(run: Path) -> None:
    with StorageCheck(run) as check:
        check.judge({node: answer(run, check.token, node) for node in ("10.0.0.1-a", "10.0.0.2-b")})
    assert list(run.iterdir()) == []


def test_a_node_with_a_directory_of_its_own_is_named(run: Path, tmp_path: Path) -> None:
    """At the same path there: here, at another."""
    other = tmp_path / "other"
    other.mkdir()
    with (
        StorageCheck(run) as check,
        pytest.raises(Refused, match=r"node b does not see what the driver wrote") as error,
    ):
        check.judge({"a": answer(run, check.token, "a"), "b": answer(other, check.token, "b")})
    assert "node a" not in str(error.value)


def test_a_node_without_the_directory(run: Path, tmp_path: Path) -> None:
    with StorageCheck(run) as check, pytest.raises(Refused, match="node b has no such directory"):
        check.judge({"b": answer(tmp_path / "none", check.token, "b")})


def test_what_a_node_writes_must_come_back(run: Path, tmp_path: Path) -> None:
    """A copy of the driver's files is no shared storage."""
    with StorageCheck(run) as check:
        copy = tmp_path / "copy"
        shutil.copytree(run, copy)
        told = answer(copy, check.token, "b")
        assert told is None
        with pytest.raises(Refused, match="node b wrote there, and the driver does not see it"):
            check.judge({"b": told})


def test_what_has_gone_wrong_is_told_with_the_remedy(run: Path) -> None:
    with (
        StorageCheck(run) as check,
        pytest.raises(Refused, match=r"node b its storage hangs; .* that all of them share"),
    ):
        check.judge({"b": "its storage hangs"})
