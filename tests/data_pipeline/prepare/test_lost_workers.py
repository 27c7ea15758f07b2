"""Workers that are killed cost a second try of their piece, and nothing else."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from data_pipeline.config import SegueError
from data_pipeline.prepare import LocalExecutor, Progress, prepare
from data_pipeline.prepare.worker_pool import RETRIES
from tests.data_pipeline.corpora import content_of, text_config, write_files


def killed_once(mark: Path) -> str:
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return mark.name


def killed_always(mark: Path) -> None:
    with mark.open("a") as stream:
        stream.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


class OfTwo(Exception):
    """It is pickled with one argument."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def failing(item: str) -> None:
    raise OfTwo(item, "more")


def held_up(item: tuple[Path, int]) -> int:
    """The first item waits for the twentieth."""
    mark, number = item
    if number == 20:
        mark.write_text("")
    deadline = time.monotonic() + 60
    while number == 0 and not mark.exists():
        assert time.monotonic() < deadline, "the others do not go on"
        time.sleep(0.01)
    return number


def test_each_item_of_a_lost_worker_is_done_again(tmp_path: Path) -> None:
    marks = [tmp_path / str(number) for number in range(2)]
    with LocalExecutor(2) as executor:
        assert list(executor.map(killed_once, marks)) == ["0", "1"]


def test_an_item_that_loses_every_worker_ends_it(tmp_path: Path) -> None:
    with (
        LocalExecutor(2) as executor,
        pytest.raises(SegueError, match=rf"ended from outside {RETRIES + 1} times at the same piece"),
    ):
        list(executor.map(killed_always, [tmp_path / "tries"]))
    assert len((tmp_path / "tries").read_text()) == RETRIES + 1


def test_an_error_that_cannot_be_pickled_is_told_all_the_same() -> None:
    with LocalExecutor(2) as executor, pytest.raises(SegueError, match="OfTwo: this and more"):
        list(executor.map(failing, ["this"]))


def test_a_long_item_does_not_hold_up_the_others(tmp_path: Path) -> None:
    with LocalExecutor(2) as executor:
        items = [(tmp_path / "mark", number) for number in range(30)]
        assert list(executor.map(held_up, items)) == list(range(30))


def test_results_do_not_pile_up_while_one_is_waited_for(tmp_path: Path) -> None:
    """Item 0 waits for one that is too far ahead to be begun."""
    with LocalExecutor(2) as executor:
        items = [(tmp_path / "mark", 0), *((tmp_path / "other", 1) for _ in range(60))]
        results = executor.map(held_up, items)
        (tmp_path / "mark").write_text("")
        assert next(iter(results)) == 0
        assert sum(1 for _ in results) == 60


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_preparing_survives_kills_of_its_workers(kills: int, tmp_path: Path) -> None:
    corpus = write_files(tmp_path / "corpus", count=60)
    with LocalExecutor(1) as executor:
        prepare(text_config(tmp_path / "whole", corpus), executor=executor, report=lambda _: None)
    random, left, mine, rounds = np.random.default_rng(kills), kills, psutil.Process(), 0

    def kill_one(event: Progress) -> None:
        nonlocal left
        if left and event.stage in ("scan", "encode") and random.random() < 0.6:
            alive = [child for child in mine.children() if child.status() != psutil.STATUS_ZOMBIE]
            workers = [child for child in alive if "spawn_main" in " ".join(child.cmdline())]
            if workers:
                workers[int(random.integers(len(workers)))].kill()
                left -= 1

    while left:
        rounds += 1
        with LocalExecutor(2) as executor:
            prepare(text_config(tmp_path / str(rounds), corpus), executor=executor, report=kill_one)
        assert content_of(tmp_path / str(rounds)) == content_of(tmp_path / "whole")
