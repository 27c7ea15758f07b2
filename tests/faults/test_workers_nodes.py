"""Row 3: a node is lost in the middle; the run goes on at the size that is left, over the same samples."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.train import last_workers, train
from data_pipeline.batch import Batch
from pretrain.trainer import Trainer
from tests.faults.workers import ROOT, assert_gone, events, experiment, kinds, losses

OVERRIDES = ("steps=24", "checkpoint.every=4", "batch.micro_batches=4", "batch.rows=4")


@dataclass(frozen=True)
class RecordSamples:
    """Every micro-batch that a worker takes, in a file of its process: (draw, micro-batch, sample ids)."""

    directory: Path

    def __call__(self, moment: str, trainer: Trainer) -> None:
        if moment == "restore":
            trainer.stream = RecordingStream(trainer.stream, self.directory)


class RecordingStream:
    """A stream that writes down what is asked of it."""

    def __init__(self, stream: Any, directory: Path) -> None:
        self.stream, self.directory = stream, directory

    def micro_batch(self, draw: int, micro_batch: int) -> Batch:
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
import os, signal, sys
from pathlib import Path
from cluster.ray_session import RAY_ENVIRONMENT
os.environ.update(RAY_ENVIRONMENT)
import ray
from ray.cluster_utils import Cluster
from cluster.train import train
from rich.console import Console
from tests.faults.test_workers_nodes import OVERRIDES, RecordSamples
from tests.faults.workers import experiment

run, place = Path(sys.argv[1]), Path(sys.argv[2])
quiet = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, **quiet})
other = cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20)
ray.init(address=cluster.address, log_to_driver=False)
pids = set()

def lose_a_node(statuses):
    pids.update(status.pid for status in statuses)
    if len(statuses) == 4 and statuses[0].step >= 6:
        raylet = other.all_processes["raylet"][0].process
        if raylet.poll() is None:
            os.kill(raylet.pid, signal.SIGKILL)

train(experiment(*OVERRIDES), run, workers=4, on_status=lose_a_node, injector=RecordSamples(place),
      console=Console(width=1000))
print("pids", *pids, flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.slow
def test_a_lost_node_leaves_the_largest_size_that_fits_over_the_same_samples(tmp_path: Path, console: Console) -> None:
    """Three of four places are left: two workers share four micro-batches, three do not."""
    places = [tmp_path / "samples", tmp_path / "samples-undisturbed"]
    runs = [tmp_path / "run", tmp_path / "undisturbed"]
    for place in places:
        place.mkdir()
    said = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(runs[0]), str(places[0])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert said.returncode == 0, said.stderr
    assert "there is no room for all 4 any more: going on with 2" in said.stdout
    assert kinds(runs[0]) == ["started", "lost", "resumed", "finished"]
    started, lost, resumed = events(runs[0])[:3]
    assert (started["workers"], lost["asked_workers"], lost["next_workers"], resumed["workers"]) == (4, 4, 2, 2)
    assert last_workers(runs[0]) == 4, "the next start asks for all again"
    pids = next(line for line in said.stdout.splitlines() if line.startswith("pids ")).split()[1:]
    assert len(pids) == 6
    assert_gone(map(int, pids))

    assert train(experiment(*OVERRIDES), runs[1], console=console, injector=RecordSamples(places[1])) == 24
    expected = samples(places[1])
    assert samples(places[0]) == expected
    assert {draw for draw, _ in expected} == set(range(24))
    found, undisturbed = losses(runs[0]), losses(runs[1])
    assert [step for step, _ in found] == [step for step, _ in undisturbed]
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in undisturbed], rel=1e-5)
