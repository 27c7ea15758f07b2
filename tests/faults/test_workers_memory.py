"""Row 30: a worker runs out of memory: who, how much it held, and what would need less."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from cluster.train import train
from data_pipeline.config import GaveUp
from tests.faults.injector import Fault
from tests.faults.workers import ROOT, events, experiment, kinds

TOLD = r"worker 1 is out of memory: .*allocate.*; it held [\d.]+ [MG]iB of the machine's memory at most; more workers, "


def test_an_allocation_that_fails_ends_the_run_with_the_peak_and_the_remedy(
    ray_of_two: None, tmp_path: Path, console: Console
) -> None:
    """Another start would end in the same."""
    fault = Fault("fill", 1, "forward_backward", 3, tmp_path / "fault")
    with pytest.raises(GaveUp, match=TOLD + r"engine\.activation_checkpointing=true"):
        train(experiment("steps=8"), tmp_path / "run", workers=2, console=console, injector=fault)
    assert kinds(tmp_path / "run") == ["started", "gave_up"]


def test_in_one_process_it_is_told_alike(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom cluster.train import train\n"
        "from data_pipeline.config import GaveUp\n"
        "from tests.faults.injector import Fault\nfrom tests.faults.workers import experiment\n"
        "place = Path(sys.argv[1])\n"
        "try: train(experiment('steps=8'), place / 'run', injector=Fault('fill', 0, 'update', 3, place / 'fault'))\n"
        "except GaveUp as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "worker 0 is out of memory" in done.stdout, done
    assert kinds(tmp_path / "run") == ["started", "gave_up"]


FULL = """
import sys
from pathlib import Path
from cluster.train import train
from data_pipeline.config import GaveUp
from tests.faults.injector import Fault
from tests.faults.workers import experiment
place = Path(sys.argv[1])
fault = Fault("hoard", 1, "forward_backward", 3, place / "fault")
try:
    train(experiment("steps=8", "supervision.max_failures=1"), place / "run", workers=2, injector=fault)
except GaveUp as error:
    print(error)
"""


@pytest.mark.slow
def test_a_machine_whose_memory_is_nearly_full(tmp_path: Path) -> None:
    """Ray ends workers before the system would end anything: here, once they take a tenth of it more than now."""
    now = psutil.virtual_memory()
    limit = 0.1 + (now.total - now.available) / now.total
    watch = {"RAY_memory_usage_threshold": f"{limit:.3f}", "RAY_memory_monitor_refresh_ms": "200"}
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)],
        cwd=ROOT, env=os.environ | watch, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    told = events(tmp_path / "run")[-2]
    assert told["event"] == "lost", done
    assert any("was ended by Ray, for its machine's memory is nearly full; it held" in how for how in told["workers"])
    assert "engine.activation_checkpointing=true" in done.stdout
