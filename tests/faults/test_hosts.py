"""Rows 3, 4 and 29 between real hosts (network namespaces): a host is lost, cut off or slow, or the head's goes.

Every test has its hosts, its Ray and its run to itself, and leaves no process: `tests.hosts.hosts` looks.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster.train import train
from data_pipeline.config import GaveUp
from tests.faults.host_runs import HostRun, Record
from tests.faults.test_workers_nodes import samples
from tests.faults.workers import events, experiment, kinds, losses
from tests.hosts import Host, hosts, wait_gone, why_none

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.skipif(bool(why_none()), reason=str(why_none()))]

STEPS = 40
OVERRIDES = (f"steps={STEPS}", "checkpoint.every=4", "batch.micro_batches=4", "batch.rows=4")
SHORT = ("supervision.hang_minutes=0.5", "checkpoint.timeout_minutes=0.4")
"""Half a minute of silence is too long."""
NOTICE_SECONDS = 180.0
"""A host that is gone without a word is missed within this, and the others are at work again: half a minute of silence,
the start of the others, and a machine that many share."""
CUT_OFF_SECONDS = 300.0
"""A worker on a host that has lost the others ends by itself within this."""
NOTHING_LEFT_SECONDS = 120.0
"""Two of Ray's processes look for their head for a minute before they end."""


@dataclass(frozen=True)
class Undisturbed:
    """The same run in one process."""

    losses: list[tuple[int, float]]
    samples: dict[tuple[int, int], list[int]]


@pytest.fixture(scope="module")
def undisturbed(console: Console, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    place = tmp_path_factory.mktemp("undisturbed")
    (place / "samples").mkdir()
    (place / "places").mkdir()
    assert train(experiment(*OVERRIDES), place / "run", console=console, injector=Record(place)) == STEPS
    return Undisturbed(losses(place / "run"), samples(place / "samples"))


@dataclass(frozen=True)
class Fleet:
    """Hosts with a node of one cluster each; the first one has its head."""

    hosts: list[Host]
    place: Path

    @property
    def address(self) -> str:
        return f"{self.hosts[0].address}:6379"

    @property
    def run(self) -> Path:
        """On the storage that all share."""
        return self.place / "run"

    def driver(self, *overrides: str, workers: int, verb: str = "train", seconds: float = 0.2) -> HostRun:
        """On the head's host; every step takes so many seconds longer than it has to."""
        place = (self.hosts[0], self.address, self.run, self.place)
        return HostRun(*place, *overrides, workers=workers, verb=verb, seconds=seconds)

    def start_nodes(self, cpus: int) -> None:
        self.hosts[0].start_node("--num-cpus", cpus)
        for host in self.hosts[1:]:
            host.start_node("--join", self.address, "--num-cpus", cpus)

    def stop_nodes(self) -> None:
        for host in reversed(self.hosts):
            stopped = host.segue("cluster", "stop")
            assert stopped.returncode == 0, stopped

    def samples(self) -> dict[tuple[int, int], list[int]]:
        return samples(self.place / "samples")

    def check_equals(self, undisturbed: Undisturbed) -> None:
        """The same samples, whatever was done twice, and the same losses but for the rounding of a sum."""
        assert self.samples() == undisturbed.samples
        found = losses(self.run)
        assert [step for step, _ in found] == [step for step, _ in undisturbed.losses]
        assert [loss for _, loss in found] == pytest.approx([loss for _, loss in undisturbed.losses], rel=1e-5)


Fleets = Callable[..., AbstractContextManager[Fleet]]


@pytest.fixture
def fleet(tmp_path: Path) -> Fleets:
    @contextmanager
    def start(count: int, *, cpus: int = 1) -> Iterator[Fleet]:
        with hosts(count, tmp_path) as made:
            fleet = Fleet(made, tmp_path)
            fleet.start_nodes(cpus)
            yield fleet
            fleet.stop_nodes()

    return start


def connections(host: Host) -> list[tuple[set[int], str, str]]:
    """The TCP connections of a host: whose, from where, to where."""
    listed = subprocess.run(
        host.command("ss", "-Htnp", "state", "established"), capture_output=True, text=True, check=True
    ).stdout
    found = []
    for line in listed.splitlines():
        _, _, local, peer, users = line.split(maxsplit=4)
        pids = {int(part.split(",")[0]) for part in users.split("pid=")[1:]}
        found.append((pids, local.rpartition(":")[0], peer.rpartition(":")[0]))
    return found


def test_two_hosts_train_as_one_process_does(fleet: Fleets, undisturbed: Undisturbed) -> None:
    """Ranks go by host, and the workers' own connections run from one host's address to the other's."""
    with fleet(2, cpus=2) as two, two.driver(*OVERRIDES, workers=4) as driver:
        driver.wait_for_step(2, workers=4)
        pids = [two.hosts[0], two.hosts[1]]
        here, there = (driver.pids_on(host) for host in pids)
        nodes = [node for _, node, _, _ in driver.statuses]
        between = [
            (local, peer)
            for users, local, peer in connections(two.hosts[0])
            if users & here and peer == two.hosts[1].address
        ]
        assert driver.end() == 0, driver.output
        assert nodes == sorted(nodes, key=nodes.index)
        assert (len(here), len(there)) == (2, 2)
        assert between
        assert {local for local, _ in between} == {two.hosts[0].address}
        places = [json.loads(path.read_text()) for path in (two.place / "places").iterdir()]
        assert sorted((place["rank"], place["local_rank"]) for place in places) == [(0, 0), (1, 1), (2, 0), (3, 1)]
        assert {place["gloo"] for place in places} == {"eth0"}
        assert kinds(two.run) == ["started", "finished"]
        two.check_equals(undisturbed)


def test_a_host_without_power_is_done_without(fleet: Fleets, undisturbed: Undisturbed) -> None:
    """Row 3: all processes of a host are killed at once; one of two goes on, over the same samples."""
    with fleet(2) as two, two.driver(*OVERRIDES, workers=2) as driver:
        driver.wait_for_step(6, workers=2)
        killed = two.hosts[1].kill()
        assert driver.seen.keys() & killed
        driver.wait(lambda statuses: len(statuses) == 1, seconds=NOTICE_SECONDS)
        assert driver.end() == 0, driver.output
        assert kinds(two.run) == ["started", "lost", "resumed", "finished"]
        assert (events(two.run)[1]["next_workers"], events(two.run)[2]["workers"]) == (1, 1)
        two.check_equals(undisturbed)


def test_a_host_that_is_cut_off_is_done_without_and_gives_up(fleet: Fleets, undisturbed: Undisturbed) -> None:
    """Row 3: its cable is pulled. It runs on, and must neither write into the run nor run for ever."""
    with fleet(2) as two, two.driver(*OVERRIDES, *SHORT, workers=2) as driver:
        driver.wait_for_step(6, workers=2)
        lonely = driver.pids_on(two.hosts[1])
        (taken,) = (two.place / "samples" / f"{pid}.jsonl" for pid in lonely)
        cut = time.monotonic()
        two.hosts[1].cut_off()
        noticed = driver.wait(lambda statuses: len(statuses) == 1, seconds=NOTICE_SECONDS)
        before = taken.read_bytes()
        assert driver.end() == 0, driver.output
        wait_gone(lonely, CUT_OFF_SECONDS - (time.monotonic() - cut))
        print(f"the others went on after {noticed:.1f} s, the worker ended after {time.monotonic() - cut:.1f} s")
        assert taken.read_bytes() == before
        assert kinds(two.run) == ["started", "lost", "resumed", "finished"]
        two.check_equals(undisturbed)
        two.hosts[1].reconnect()


def test_a_slow_link_changes_no_number(fleet: Fleets, undisturbed: Undisturbed) -> None:
    """Row 29: its gradients take most of a step; nobody is to blame for it."""
    fair = ("supervision.straggler_factor=3",)
    with fleet(2) as two, two.driver(*OVERRIDES, *fair, workers=2) as driver:
        driver.wait_for_step(1, workers=2)
        with two.hosts[1].slow_link(8):
            assert driver.end() == 0, driver.output
        assert kinds(two.run) == ["started", "finished"]
        two.check_equals(undisturbed)


@contextmanager
def throttled(pids: set[int], share: float) -> Iterator[None]:
    """As on a slow processor: these processes get on for this share of the time only."""
    over = threading.Event()

    def throttle() -> None:
        while not over.wait(share / 10):
            for number, seconds in ((signal.SIGSTOP, (1 - share) / 10), (signal.SIGCONT, 0.0)):
                for pid in pids:
                    if psutil.pid_exists(pid):
                        os.kill(pid, number)
                time.sleep(seconds)

    thread = threading.Thread(target=throttle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_slow_host_is_named_and_changes_no_number(fleet: Fleets, undisturbed: Undisturbed) -> None:
    """Row 29: its worker gets a fifth of the time."""
    fair = "supervision.straggler_factor=1.5"
    with fleet(2) as two, two.driver(*OVERRIDES, fair, workers=2, seconds=0) as driver:
        driver.wait(lambda statuses: len(statuses) == 2)
        with throttled(driver.pids_on(two.hosts[1]), 0.2):
            assert driver.end() == 0, driver.output
        assert kinds(two.run) == ["started", "straggler", "finished"]
        named = events(two.run)[1]
        assert (named["node"], named["phase"]) == (two.hosts[1].address, "forward")
        two.check_equals(undisturbed)


def test_a_lost_head_ends_the_driver_and_the_run_goes_on_once_there_is_one(
    fleet: Fleets, undisturbed: Undisturbed
) -> None:
    """Row 4: the head's Ray is killed, all of it; a new one is started, the other host joins it, `resume` goes on."""
    with fleet(2) as two:
        head, other = two.hosts
        with two.driver(*OVERRIDES, workers=2) as driver:
            servers = json.loads(head.segue("cluster", "status", "--json").stdout)["nodes"][0]["servers"]
            driver.wait_for_step(6, workers=2)
            for pid in servers.values():
                os.kill(pid, signal.SIGKILL)
            assert driver.end(seconds=120) == GaveUp.exit_code, driver.output
            assert f"the head of Ray's cluster at {two.address} is gone" in driver.output
            wait_gone(set(driver.seen), NOTHING_LEFT_SECONDS)
        assert kinds(two.run)[-1] == "gave_up"
        other.segue("cluster", "stop")
        two.start_nodes(1)
        with two.driver(workers=2, verb="resume") as again:
            assert again.end() == 0, again.output
            assert len(set(again.seen.values())) == 2
        two.check_equals(undisturbed)
