"""Row 3: a node is lost in the middle; the run goes on at the size that is left, over the same samples."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.train import last_workers, train
from data_pipeline.batch import Batch
from pretrain.trainer import Trainer
from tests.faults.workers import ROOT, assert_gone, events, experiment, losses

OVERRIDES = ("steps=24", "checkpoint.every=4", "batch.micro_batches=4", "batch.rows=4")


@dataclass(frozen=True)
class RecordSamples:
    """Every micro-batch that a worker takes, in a file of its process: (draw, micro-batch, sample ids)."""

    directory: Path
    seconds: float = 0.0
    """That each takes more, so that a fast machine does not finish before a fault is noticed."""

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "restore":
            trainer.stream = RecordingStream(trainer.stream, self.directory, self.seconds)


class RecordingStream:
    """A stream that writes down what is asked of it."""

    def __init__(self, stream: Any, directory: Path, seconds: float) -> None:
        self.stream, self.directory, self.seconds = stream, directory, seconds

    def micro_batch(self, draw: int, micro_batch: int) -> Batch:
        time.sleep(self.seconds)
        batch = self.stream.micro_batch(draw, micro_batch)
        with (self.directory / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps([draw, micro_batch, batch.sample_ids.tolist()]) + "\n")
        return batch

    def fingerprint(self) -> dict[str, Any]:
        return self.stream.fingerprint()


def samples(directory: Path) -> dict[tuple[int, int], list[int]]:
    """By (draw, micro-batch); what was computed again must have been the same."""
    found: dict[tuple[int, int], list[int]] = {}
    for path in directory.iterdir():
        for line in path.read_text().splitlines():
            draw, micro_batch, ids = json.loads(line)
            assert found.setdefault((draw, micro_batch), ids) == ids
    return found


CLUSTER = """
import os, sys, time
from pathlib import Path
from cluster.ray_session import RAY_ENVIRONMENT
os.environ.update(RAY_ENVIRONMENT)
import psutil
import ray
from ray.cluster_utils import Cluster
from cluster import supervise
from cluster.topology import Shape
from cluster.train import train
from rich.console import Console
from tests.faults.test_workers_nodes import OVERRIDES, RecordSamples
from tests.faults.workers import experiment

run, place, comes_back, per_node = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
overrides = sys.argv[5:]
supervise.GROWTH_LOOK_SECONDS = 1.0
quiet = {"object_store_memory": 80 * 2**20}
first = 4 - (per_node or 1)
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": first, "include_dashboard": False, **quiet})
other = cluster.add_node(num_cpus=4 - first, **quiet)
ray.init(address=cluster.address, log_to_driver=False)
pids, lost = set(), []

def lose_a_node(statuses):
    pids.update(status.pid for status in statuses)
    if not lost and len(statuses) == 4 and statuses[0].step >= 6:
        raylet = psutil.Process(other.all_processes["raylet"][0].process.pid)
        for process in [raylet, *raylet.children(recursive=True)]:  # all of the node at once, as when its power fails
            process.kill()
        lost.append(statuses[0].step)
    if comes_back == "after steps" and len(lost) == 1 and len(statuses) == 2 and statuses[0].step >= 10:
        cluster.add_node(num_cpus=4 - first, **quiet)
        lost.append(None)

if comes_back == "at once":
    import threading
    def wait_and_add():
        while not lost:
            time.sleep(0.2)
        time.sleep(3)
        cluster.add_node(num_cpus=4 - first, **quiet)
    threading.Thread(target=wait_and_add).start()

shape = Shape(4, per_node=per_node or None)
train(experiment(*OVERRIDES, *overrides), run, workers=shape, on_status=lose_a_node, injector=RecordSamples(place, 0.2),
      console=Console(width=1000))
print("pids", *pids, flush=True)
ray.shutdown()
cluster.shutdown()
"""


@dataclass(frozen=True)
class Fallen:
    """A run that lost a node, and what it said."""

    run: Path
    samples: Path
    said: str

    @property
    def sizes(self) -> list[tuple[str, Any]]:
        """Its events, with the number of workers that each begins with, or is to go on with."""
        return [(event["event"], event.get("next_workers", event.get("workers"))) for event in events(self.run)]


def lose_a_node(directory: Path, *overrides: str, comes_back: str = "never", per_node: int = 0) -> Fallen:
    """Train on four places of two nodes, and kill one of these; all workers are gone afterwards."""
    fallen = Fallen(directory / "run", directory / "samples", "")
    fallen.samples.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", CLUSTER, fallen.run, fallen.samples, comes_back, str(per_node), *overrides],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pids = next(line for line in done.stdout.splitlines() if line.startswith("pids ")).split()[1:]
    assert_gone(map(int, pids))
    return Fallen(fallen.run, fallen.samples, done.stdout)


def assert_same_as_undisturbed(
    fallen: Fallen, directory: Path, console: Console, *overrides: str, tolerance: float = 1e-5
) -> None:
    """The same samples, and the losses but for rounding, which training amplifies from step to step."""
    run, place = directory / "undisturbed", directory / "samples-undisturbed"
    place.mkdir()
    settings = experiment(*OVERRIDES, *overrides)
    assert train(settings, run, console=console, injector=RecordSamples(place)) == settings.steps
    expected = samples(place)
    assert samples(fallen.samples) == expected
    assert {draw for draw, _ in expected} == set(range(settings.steps))
    found, undisturbed = losses(fallen.run), losses(run)
    assert [step for step, _ in found] == [step for step, _ in undisturbed]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in undisturbed], rel=tolerance)


@pytest.mark.slow
def test_a_lost_node_leaves_the_largest_size_that_fits_over_the_same_samples(tmp_path: Path, console: Console) -> None:
    """Three of four places are left: two workers share four micro-batches, three do not."""
    fallen = lose_a_node(tmp_path)
    assert "there is no room for all 4 any more: going on with 2" in fallen.said
    assert [how for how in events(fallen.run)[1]["workers"] if how.endswith("is gone with its node")]
    assert fallen.sizes == [("started", 4), ("lost", 2), ("resumed", 2), ("finished", None)]
    assert last_workers(fallen.run) == 4, "the next start asks for all again"
    assert_same_as_undisturbed(fallen, tmp_path, console)


@pytest.mark.slow
def test_a_node_that_comes_back_is_used_from_the_next_checkpoint_on(tmp_path: Path, console: Console) -> None:
    """The workers that are left save when that is due anyway, so that no step is computed twice for it."""
    fallen = lose_a_node(tmp_path, "steps=64", "checkpoint.every=8", comes_back="after steps")
    assert "there is room for 4 workers again" in fallen.said
    grown = [("started", 4), ("lost", 2), ("resumed", 2), ("grows", 4), ("resumed", 4), ("finished", None)]
    assert fallen.sizes == grown
    resumed = events(fallen.run)[4]
    assert (resumed["redone"], resumed["step"] % 8) == (0, 0)
    assert last_workers(fallen.run) == 4
    assert_same_as_undisturbed(fallen, tmp_path, console, "steps=64", "checkpoint.every=8", tolerance=1e-3)


@pytest.mark.slow
def test_a_run_may_wait_for_the_node_instead(tmp_path: Path, console: Console) -> None:
    fallen = lose_a_node(tmp_path, "supervision.wait_minutes=2", comes_back="at once")
    assert fallen.sizes == [("started", 4), ("lost", 4), ("resumed", 4), ("finished", None)]
    assert_same_as_undisturbed(fallen, tmp_path, console)


@pytest.mark.slow
def test_whole_nodes_are_left_where_nodes_were_asked_for(tmp_path: Path, console: Console) -> None:
    """And where the lost one does not come back while it is waited for, the run goes on without it."""
    fallen = lose_a_node(tmp_path, "supervision.wait_minutes=0.1", per_node=2)
    assert fallen.sizes == [("started", 4), ("lost", 4), ("no room", 2), ("resumed", 2), ("finished", None)]
    assert_same_as_undisturbed(fallen, tmp_path, console)
