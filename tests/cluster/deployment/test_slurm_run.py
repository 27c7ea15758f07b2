"""The batch script at work, with stand-ins for Slurm's commands that start processes on this machine.

`srun` starts a command as often as there are tasks, and hands signals on; `scontrol` tells the nodes' names and notes
what is requeued. What has several nodes runs in a network namespace of its own, with loopback alone.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster.deployment import emit
from tests.cluster.deployment.requests import full, recipe
from tests.faults.workers import ROOT, assert_gone, has_reached, kinds, losses, wait_until

STAND_INS = {
    "srun": r"""#!/bin/bash
echo "$*" >>"$STAND_INS/srun"
tasks=1
while [[ $1 == --* ]]; do
  case $1 in
    --ntasks=*) tasks=${1#*=} ;;
    --output=*) exec >>"${1#*=}" 2>&1 ;;
  esac
  shift
done
started=()
for ((task = 0; task < tasks; task++)); do
  SLURM_PROCID=$task "$@" &
  started+=($!)
done
trap 'kill -s TERM "${started[@]}" 2>/dev/null' TERM
code=0
for one in "${started[@]}"; do
  while kill -0 "$one" 2>/dev/null; do wait "$one"; done
  wait "$one" || code=$?
done
exit "$code"
""",
    "scontrol": r"""#!/bin/bash
case "$1 $2" in
  "show hostnames") printf 'node1\nnode2\n' ;;
  requeue*) echo "$2" >>"$STAND_INS/requeued" ;;
  *) exit 64 ;;
esac
""",
    "getent": r"""#!/bin/bash
[ "$*" = "ahostsv4 node1" ] && printf '%s STREAM node1\n%s DGRAM\n' 10.77.0.1 10.77.0.1
""",
}

SEGUE = r"""#!/bin/bash
# Segue with nothing to train: notes its command line, waits for the signal if it is to, and ends with a code.
echo "$*" >>"$STAND_INS/segue"
[ -z "$WAITS" ] || { trap 'ended=yes' TERM; : >"$STAND_INS/began"; while [ -z "$ended" ]; do sleep 0.05; done; }
exit "$CODE"
"""
ADDRESS = "10.77.0.1"


class Slurm:
    """Runs batch scripts as Slurm would on two nodes, which are both this machine."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.storage = directory / "storage"
        self.binaries = directory / "bin"
        (self.storage / "logs").mkdir(parents=True)
        self.binaries.mkdir()
        for name, text in STAND_INS.items():
            self.stand_in(name, text)
        self.started: list[subprocess.Popen[bytes]] = []

    def stand_in(self, name: str, text: str) -> None:
        path = self.binaries / name
        path.write_text(text)
        path.chmod(0o755)

    def script(self, **changes: Any) -> str:
        given = {
            "storage": str(self.storage), "accelerator": None, "gpus_per_worker": 0, "workers_per_node": 1,
            "cpus_per_worker": 1, "interface": None, "time_limit": None, "setup": (), "recipe": recipe(),
        }  # fmt: skip
        return emit("slurm", full("slurm", **(given | changes)))

    def start(self, text: str, job: int, **environment: str) -> subprocess.Popen[bytes]:
        """The batch shell of one start of a job; its output is appended to the log, as open-mode=append wants."""
        path = self.directory / "job.sbatch"
        path.write_text(text)
        nodes = "2" if "#SBATCH --nodes=2" in text else "1"
        clean = {
            "PATH": f"{self.binaries}:{Path(sys.executable).parent}:/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.directory),
            "STAND_INS": str(self.directory),
            "SLURM_JOB_ID": str(job),
            "SLURM_JOB_NAME": "job",
            "SLURM_JOB_NUM_NODES": nodes,
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
        }
        network = f"ip link set lo up && ip address add {ADDRESS}/32 dev lo && exec bash {path}"
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                ["unshare", "--net", "sh", "-c", network] if nodes == "2" else ["bash", path],
                env=clean | environment, cwd=self.storage, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.started.append(process)
        return process

    @property
    def log(self) -> Path:
        return self.storage / "logs" / "job.log"

    def noted(self, name: str) -> list[str]:
        """What a stand-in was given, a line for each call."""
        path = self.directory / name
        return path.read_text().splitlines() if path.exists() else []

    def end(self) -> None:
        """For a test that failed: nothing stays."""
        for process in self.started:
            for one in session_of(process.pid):
                one.kill()
            process.wait(30)


def session_of(leader: int) -> list[psutil.Process]:
    """The processes of a session; Ray's servers are in it, unless somebody gives them one of their own."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == leader:
                found.append(process)
        except (ProcessLookupError, psutil.Error):
            continue
    return found


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    made = Slurm(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("code", [0, 1, 2, 3, 4, 5, 6])
def test_the_job_ends_as_the_training_does(slurm: Slurm, code: int) -> None:
    """Exit code 5 without a signal from Slurm is somebody's wish: it is not requeued either."""
    slurm.stand_in("segue", SEGUE)
    assert slurm.start(slurm.script(nodes=1), 4101, CODE=str(code), WAITS="").wait(30) == code
    (command,) = slurm.noted("segue")
    assert command.startswith(f"-C {slurm.storage} train /tmp/ray-4101/recipe.yaml --run runs/tiny_gpt --carry-on")
    assert slurm.noted("requeued") == []
    assert not Path("/tmp/ray-4101").exists()


@pytest.mark.parametrize(
    ("number", "code", "requeued"),
    [
        (signal.SIGUSR1, 5, ["4102"]),
        (signal.SIGTERM, 5, []),
        (signal.SIGUSR1, 0, []),
        (signal.SIGUSR1, 6, []),
    ],
)
def test_only_what_has_saved_before_the_time_limit_is_requeued(
    slurm: Slurm, number: signal.Signals, code: int, requeued: list[str]
) -> None:
    slurm.stand_in("segue", SEGUE)
    batch = slurm.start(slurm.script(nodes=1), 4102, CODE=str(code), WAITS="yes")
    wait_until((slurm.directory / "began").exists, 30, "the training's start")
    batch.send_signal(number)
    assert batch.wait(30) == code
    assert slurm.noted("requeued") == requeued
    assert not Path("/tmp/ray-4102").exists()


def test_a_directory_of_somebody_else_is_not_used(slurm: Slurm, tmp_path: Path) -> None:
    """Names below /tmp can be guessed; what is there must be the user's own."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a directory that is somebody else's")
    theirs = Path("/tmp/ray-4103")
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    try:
        slurm.stand_in("segue", SEGUE)
        assert slurm.start(slurm.script(nodes=1), 4103, CODE="0", WAITS="").wait(30) == 1
        assert slurm.noted("segue") == []
    finally:
        shutil.rmtree(theirs, ignore_errors=True)


def can_unshare() -> bool:
    return subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0


in_a_namespace = pytest.mark.skipif(not can_unshare(), reason="needs a network namespace of its own")


@in_a_namespace
def test_a_ray_that_does_not_come_up_is_told_and_leaves_nothing(slurm: Slurm) -> None:
    slurm.stand_in("ray", "#!/bin/bash\necho no such option; exit 3\n")
    assert slurm.start(slurm.script(), 4106).wait(60) == 3
    assert "Ray has not come up on all nodes; " in slurm.log.read_text()
    assert "no such option" in (slurm.storage / "logs" / "job-4106-ray.log").read_text()
    assert not (slurm.storage / ".ray-token-4106").exists()
    assert not Path("/tmp/ray-4106").exists()
    assert_gone([process.pid for process in session_of(slurm.started[0].pid)])


@in_a_namespace
@pytest.mark.parametrize("found", ["", "127.0.1.1 STREAM node1"])
def test_an_address_that_no_other_node_reaches_is_refused(slurm: Slurm, found: str) -> None:
    """Some systems give their own name a loopback address."""
    slurm.stand_in("getent", f"#!/bin/bash\necho {found}\n")
    assert slurm.start(slurm.script(), 4107).wait(60) == 2
    assert "node1 has no address that the other nodes reach; set interface=" in slurm.log.read_text()


@in_a_namespace
def test_the_address_is_that_of_the_interface_where_one_is_named(slurm: Slurm) -> None:
    """The first of loopback's, in a namespace that has no other."""
    slurm.stand_in("ray", '#!/bin/bash\necho "$*" >>"$STAND_INS/ray"; exit 3\n')
    assert slurm.start(slurm.script(interface="lo"), 4108).wait(60) == 3
    head, other = sorted(slurm.noted("ray"), key=lambda command: "--head" not in command)
    assert "start --head --node-ip-address=127.0.0.1 --port=21080 " in head
    assert other.startswith("start --address=127.0.0.1:21080 ")


@pytest.mark.slow
@in_a_namespace
def test_two_nodes_train_are_stopped_by_the_time_limit_and_carry_on(slurm: Slurm) -> None:
    """The same script three times: stopped and requeued, carried on with to the end, and found finished."""
    run = slurm.storage / "runs" / "tiny_gpt"
    text = slurm.script(recipe=recipe("steps=400", "checkpoint.every=200", "evaluate.every=null"))

    batch = slurm.start(text, 4104)
    wait_until(lambda: has_reached(run, 3), 180, "the third step")
    token_file = slurm.storage / ".ray-token-4104"
    assert token_file.stat().st_mode & 0o777 == 0o600
    token = token_file.read_text()
    assert len(token) == 64
    processes = session_of(batch.pid)
    assert len([p for p in processes if "raylet" in p.name()]) == 2
    for process in processes:
        assert not any(token in word for word in process.cmdline())
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(120) == 5
    assert slurm.noted("requeued") == ["4104"]
    assert kinds(run)[-1] == "preempted"
    saved = losses(run)[-1][0]
    assert 3 <= saved < 400
    assert_gone([process.pid for process in [*processes, *session_of(batch.pid)]])
    assert not token_file.exists()
    assert not Path("/tmp/ray-4104").exists()

    assert slurm.start(text, 4104, SLURM_RESTART_COUNT="1").wait(240) == 0
    assert kinds(run).count("resumed") == 1
    assert kinds(run)[-1] == "finished"
    assert [step for step, _ in losses(run)] == list(range(1, 401))
    assert slurm.start(text, 4105).wait(120) == 0

    log = slurm.log.read_text()
    assert log.count("2 of 2 nodes have joined") == 3
    assert token not in log
    assert slurm.noted("requeued") == ["4104"]
    assert "Ray runtime started" in (slurm.storage / "logs" / "job-4104-ray.log").read_text()
    assert_gone([process.pid for batch in slurm.started for process in session_of(batch.pid)])
