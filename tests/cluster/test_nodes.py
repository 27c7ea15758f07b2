"""`segue cluster start`, `stop` and `status` on real processes, each test with a home directory of its own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from cluster import head_check, node_address, node_record, nodes, ray_token
from cluster.node_address import Addresses
from cluster.ray_session import PREFIX, RAY, TEMPORARY, remove_leftovers
from data_pipeline.config import BadInput, Refused
from pretrain.owner import Owner
from tests.cli.command_line import LAUNCH, ROOT, Ended
from tests.faults.workers import assert_gone
from tests.processes import end_leftovers, free_port, of_this_test

LOOPBACK = ("127.0.0.1", "::ffff:127.0.0.1", "::1")
WAIT_SECONDS = 120
ANSWER_SECONDS = 60.0
"""A refusal comes within it, on a machine that many share; Ray alone would wait for minutes."""

SUBMIT = """
import sys, time
from ray.job_submission import JobStatus, JobSubmissionClient

client = JobSubmissionClient(sys.argv[1])
job = client.submit_job(entrypoint=sys.argv[2])
while not (status := client.get_job_status(job)).is_terminal():
    time.sleep(0.2)
print(client.get_job_logs(job))
sys.exit(status != JobStatus.SUCCEEDED)
"""


@dataclass
class Machine:
    """One user's command line."""

    home: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_", "SEGUE_"))}
        fixed = {"HOME": str(self.home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **of_this_test()}
        return {**own, **fixed, **self.variables}

    def cluster(self, *arguments: object, timeout: float = WAIT_SECONDS) -> Ended:
        """`segue cluster ...`, to its end."""
        command = [sys.executable, str(LAUNCH), "cluster", *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=timeout
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def python(self, code: str, *arguments: object) -> Ended:
        """A client of the cluster, with this user's token."""
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=self.home, env=self.environment | {"RAY_AUTH_MODE": "token"},
            capture_output=True, text=True, timeout=WAIT_SECONDS,
        )  # fmt: skip
        return Ended(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: object) -> dict[str, Any]:
        """Start a node; what `status` tells of it."""
        started = self.cluster("start", *arguments)
        assert started.code == 0, started
        return self.status()["nodes"][-1]

    def status(self) -> dict[str, Any]:
        return json.loads(self.cluster("status", "--json").out)

    @property
    def token(self) -> Path:
        return self.home / ".ray" / "auth_token"

    @property
    def state(self) -> Path:
        return self.home / ".local" / "state"


@contextmanager
def machine(home: Path) -> Iterator[Machine]:
    """Whatever is left running on it at the end is ended; a test that leaves something has failed before."""
    end_leftovers()
    home.mkdir(exist_ok=True)
    made = Machine(home)
    try:
        yield made
    finally:
        made.cluster("stop", "--force")


def below(node: dict[str, Any]) -> list[psutil.Process]:
    """The servers of a node and all that they started."""
    servers = [psutil.Process(pid) for pid in node["servers"].values()]
    return servers + [child for server in servers for child in server.children(recursive=True)]


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    found = set()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            found |= {
                (connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            }
    return found


@dataclass(frozen=True)
class Cluster:
    """A head and a second node, both on this machine."""

    machine: Machine
    head: dict[str, Any]
    node: dict[str, Any]
    dashboard: str
    said: str


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with machine(tmp_path_factory.mktemp("machine") / "home") as own:
        first = own.cluster("start", "--num-cpus", "1")
        assert first.code == 0, first
        head = own.status()["nodes"][0]
        second = own.cluster("start", "--join", head["address"], "--num-cpus", "2")
        assert second.code == 0, second
        status = own.status()
        said = first.out + first.err + second.out + second.err
        yield Cluster(own, *status["nodes"], status["clusters"][0]["dashboard"], said)


@pytest.mark.slow
def test_a_second_node_joins(cluster: Cluster) -> None:
    status = cluster.machine.status()
    (view,) = status["clusters"]
    assert view["total"]["CPU"] == view["free"]["CPU"] == 3
    assert [(node["host"], node["alive"], node["head"]) for node in view["nodes"]] == [
        ("127.0.0.1", True, True),
        ("127.0.0.1", True, False),
    ]
    assert [node["name"] for node in status["nodes"]] == ["head", "node-1"]
    shown = cluster.machine.cluster("status")
    assert shown.code == 0
    assert f"submit with --address {cluster.dashboard}" in shown.out
    assert "3 CPU, 3 free" in shown.out


@pytest.mark.slow
def test_all_servers_listen_on_loopback_only(cluster: Cluster) -> None:
    found = listening(below(cluster.head) + below(cluster.node))
    assert len(found) > 8
    assert [address for address in found if address[0] not in LOOPBACK] == []


@pytest.mark.slow
def test_servers_are_apart_from_the_terminal(cluster: Cluster) -> None:
    """Ctrl-C and the end of the shell reach none of them."""
    for pid in (*cluster.head["servers"].values(), *cluster.node["servers"].values()):
        assert os.getsid(pid) == pid


@pytest.mark.slow
def test_strangers_are_turned_away(cluster: Cluster) -> None:
    """Nobody gets an answer without the token: not from the jobs server, and not from Ray's own servers."""
    with pytest.raises(urllib.error.HTTPError) as unasked:
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=ANSWER_SECONDS)
    assert unasked.value.code == 401
    assert not head_check._takes(cluster.head["address"], [])
    assert not head_check._takes(cluster.head["address"], [("authorization", "Bearer of-nothing")])


@pytest.mark.slow
def test_another_token_neither_joins_nor_submits(cluster: Cluster, tmp_path: Path) -> None:
    with machine(tmp_path / "home") as other:
        missing = other.cluster("start", "--join", cluster.head["address"], timeout=ANSWER_SECONDS)
        assert missing.code == BadInput.exit_code
        assert f"there is no token in {other.token}" in missing.one_message()
        other.token.parent.mkdir()
        other.token.write_text("0" * 64)
        wrong = other.cluster("start", "--join", cluster.head["address"], timeout=ANSWER_SECONDS)
        assert wrong.code == BadInput.exit_code
        assert f"another token than that in {other.token}" in wrong.one_message()
        assert other.status() == {"nodes": [], "clusters": []}
        submitted = other.python(SUBMIT, cluster.dashboard, "true")
        assert submitted.code != 0
        assert "Invalid authentication token" in submitted.err
    assert len(cluster.machine.status()["clusters"][0]["nodes"]) == 2


@pytest.mark.slow
def test_the_token_is_written_nowhere_else(cluster: Cluster) -> None:
    """Row 42: not in an argument of any process, in no file of Ray's or of ours, and in nothing that was said."""
    assert cluster.machine.token.stat().st_mode & 0o777 == 0o600
    token = cluster.machine.token.read_bytes()
    assert len(token) >= 32
    job = cluster.machine.python(SUBMIT, cluster.dashboard, f"{sys.executable} -c 'print(6 * 7)'")
    assert job.code == 0, job
    assert "42" in job.out
    told = cluster.machine.cluster("status").out + cluster.machine.cluster("status", "--json").out
    assert token.decode() not in told + cluster.said + job.out + job.err
    arguments = [path.read_bytes() for path in command_lines()]
    assert any(b"raylet" in line for line in arguments)
    assert [line for line in arguments if token in line] == []
    places = [cluster.machine.state, Path(cluster.head["directory"]), Path(cluster.node["directory"])]
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    assert any(path.name == "raylet.out" for path in files)
    assert [path for path in files if token in path.read_bytes()] == []


def command_lines() -> Iterator[Path]:
    """Of all processes of this machine that can be read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        if path.exists():
            yield path


@pytest.mark.slow
def test_a_live_directory_is_no_leftover(cluster: Cluster) -> None:
    ours = {Path(cluster.head["directory"]), Path(cluster.node["directory"])}
    assert ours.isdisjoint(remove_leftovers())
    assert all((directory / RAY / "session_latest").exists() for directory in ours)


@pytest.mark.slow
def test_a_second_head_of_that_name_is_refused(cluster: Cluster) -> None:
    again = cluster.machine.cluster("start", timeout=ANSWER_SECONDS)
    assert again.code == Refused.exit_code
    assert f"head runs already, of the cluster at {cluster.head['address']}" in again.one_message()
    assert "--name" in again.err


@pytest.mark.slow
def test_a_port_that_is_taken_is_refused_and_the_usual_one_is_gone_without(cluster: Cluster) -> None:
    port = cluster.head["address"].rpartition(":")[2]
    taken = cluster.machine.cluster("start", "--name", "more", "--port", port, timeout=ANSWER_SECONDS)
    assert taken.code == BadInput.exit_code
    assert f"--port {port}: is taken on 127.0.0.1" in taken.one_message()
    asked = Addresses.check("127.0.0.1", None, None, None)
    with listener(node_address.HEAD_PORT), listener(node_address.DASHBOARD_PORT):
        found = asked.with_ports()
    assert found.port not in (None, node_address.HEAD_PORT)
    assert found.dashboard_port not in (None, node_address.DASHBOARD_PORT)


@contextmanager
def listener(port: int) -> Iterator[None]:
    """Somebody listens at this port of loopback: the test, if nobody did before."""
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", port))
            taken.listen()
        yield


@pytest.mark.slow
def test_a_head_with_a_running_job_is_not_stopped(cluster: Cluster) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, cluster.head["address"]],
        env=cluster.machine.environment | {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
        cwd=cluster.machine.home, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as driver:  # fmt: skip
        assert driver.stdout is not None
        assert driver.stdout.readline() == "there\n"
        refused = cluster.machine.cluster("stop", timeout=ANSWER_SECONDS)
        driver.communicate()
    assert refused.code == Refused.exit_code
    assert "head: jobs are running: " in refused.one_message()
    assert "--force" in refused.err
    assert all(node["lives"] for node in cluster.machine.status()["nodes"])


DRIVER = """
import sys
import ray

ray.init(address=sys.argv[1])
print("there", flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.mark.slow
def test_stop_leaves_nothing(tmp_path: Path) -> None:
    """No process, a job's neither, and no file; of two clusters on a machine, only the one that is meant."""
    with machine(tmp_path / "home") as own:
        kept = own.start("--name", "kept", "--num-cpus", "1")
        head = own.start("--name", "other", "--num-cpus", "1")
        node = own.start("--join", head["address"], "--num-cpus", "1")
        dashboard = next(view["dashboard"] for view in own.status()["clusters"] if view["address"] == head["address"])
        with subprocess.Popen(
            [sys.executable, "-c", SUBMIT, dashboard, f"{sys.executable} -c 'import time; time.sleep(1000)'"],
            env=own.environment | {"RAY_AUTH_MODE": "token"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as client:  # fmt: skip
            jobs = wait_for(lambda: [p for p in below(head) + below(node) if "time.sleep(1000)" in line_of(p)])
            client.kill()
        processes = {process.pid for process in below(head) + below(node)}
        assert {job.pid for job in jobs} <= processes
        for name in ("other", node["name"]):
            stopped = own.cluster("stop", name, "--force")
            assert stopped.code == 0, stopped
        assert_gone(processes, seconds=0)
        assert not Path(head["directory"]).exists()
        assert not Path(node["directory"]).exists()
        assert [record["name"] for record in own.status()["nodes"]] == ["kept"]
        assert all(psutil.pid_exists(pid) for pid in kept["servers"].values())
        left = {process.pid for process in below(kept)}
        assert own.cluster("stop").code == 0
        assert_gone(left, seconds=0)
        assert not list(own.state.rglob("*.json"))
        assert own.cluster("stop").out == "no node of Ray's was started on this machine\n"


def wait_for(found: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return value


def line_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_a_head_that_was_killed_is_in_nobodys_way(tmp_path: Path) -> None:
    """Row 23: kill -9 of its servers, which leaves others of its processes; `status` says so, `start` clears away."""
    with machine(tmp_path / "home") as own:
        head = own.start("--num-cpus", "1")
        processes = {process.pid for process in below(head)}
        for name in ("gcs_server", "raylet"):
            os.kill(head["servers"][name], signal.SIGKILL)
        assert_gone([head["servers"]["gcs_server"], head["servers"]["raylet"]])
        told = own.cluster("status")
        assert told.code == 1
        assert "nothing answers there" in told.out
        assert "started here: head is gone; `segue cluster stop head` removes what is left" in told.out
        again = own.start("--num-cpus", "1")
        assert again["directory"] != head["directory"]
        assert not Path(head["directory"]).exists()
        assert_gone(processes, seconds=0)
        assert own.status()["clusters"][0]["total"]["CPU"] == 1
        for pid in again["servers"].values():
            os.kill(pid, signal.SIGKILL)
        assert own.cluster("stop").out == "stopped head\n"
        assert not Path(again["directory"]).exists()
        assert not list(own.state.rglob("*.json"))


@pytest.mark.slow
def test_a_start_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    with machine(tmp_path / "home") as own:
        before = set(TEMPORARY.glob(f"{PREFIX}*"))
        with subprocess.Popen(
            [sys.executable, str(LAUNCH), "cluster", "start"],
            cwd=own.home, env=own.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        ) as started:  # fmt: skip
            begun = wait_for(lambda: psutil.Process(started.pid).children(recursive=True))
            started.send_signal(signal.SIGINT)
            _, said = started.communicate(timeout=WAIT_SECONDS)
        assert started.returncode == 130
        assert "interrupted" in said
        assert_gone([process.pid for process in begun], seconds=0)
        assert set(TEMPORARY.glob(f"{PREFIX}*")) <= before
        assert own.status()["nodes"] == []


def test_no_address_but_loopback_without_the_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 41: refused where authentication is off, or Ray too old to have it, before anything is started."""
    public = own_address()
    own = Machine(tmp_path, {"RAY_AUTH_MODE": "disabled"})
    refused = own.cluster("start", "--host", public, timeout=ANSWER_SECONDS)
    assert refused.code == Refused.exit_code
    assert "RAY_AUTH_MODE=disabled turns it off; unset RAY_AUTH_MODE" in refused.one_message()
    assert not own.state.exists()
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(ray_token, "version", lambda _: "2.53.1")
    with pytest.raises(Refused, match=r"Ray 2\.53\.1 is too old for it; install ray>=2\.54"):
        nodes.start(nodes.Wanted(host=public))


def own_address() -> str:
    """Of this machine, and not loopback."""
    found = [
        entry.address
        for entries in psutil.net_if_addrs().values()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]
    if not found:
        pytest.skip("this machine has no address but loopback")
    return found[0]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_all_interfaces_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="would open Ray on every network"):
        nodes.start(nodes.Wanted(host=host))


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (nodes.Wanted(host="nowhere"), "--host nowhere: is no IP address"),
        (nodes.Wanted(host="192.0.2.77"), "--host 192.0.2.77: is no address of this machine"),
        (nodes.Wanted(host="127.0.0.2"), "use 127.0.0.1"),
        (nodes.Wanted(join="somewhere:6379"), "such as 10.0.0.1:6379"),
        (nodes.Wanted(join="127.0.0.1:no"), "no is no port"),
        (nodes.Wanted(join="127.0.0.1:6379", port=6379), "--port 6379: is the head's"),
        (nodes.Wanted(join="192.0.2.77:6379"), "give --host an address of this machine that the head reaches"),
        (nodes.Wanted(name="../x"), "--name"),
    ],
)
def test_addresses_that_cannot_be(wanted: nodes.Wanted, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        nodes.start(wanted)


def test_nothing_answers_there(tmp_path: Path) -> None:
    own = Machine(tmp_path)
    own.token.parent.mkdir()
    own.token.write_text("0" * 64)
    refused = own.cluster("start", "--join", f"127.0.0.1:{free_port()}", timeout=ANSWER_SECONDS)
    assert refused.code == BadInput.exit_code
    assert "nothing answers there" in refused.one_message()


def test_a_token_that_others_could_read_is_taken_from_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray itself leaves it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (ray_token.TOKEN, ray_token.TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    path = ray_token.token_file()
    path.parent.mkdir()
    path.write_text("0" * 64)
    path.chmod(0o644)
    (said,) = ray_token.provide(make=True)
    assert said.startswith("others could read the token")
    assert path.stat().st_mode & 0o777 == 0o600
    assert ray_token.provide(make=True) == []
    assert path.read_text() == "0" * 64
    path.write_text("\n")
    with pytest.raises(BadInput, match="is empty"):
        ray_token.provide(make=False)


def test_a_named_token_file_is_made_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "token"
    monkeypatch.delenv(ray_token.TOKEN, raising=False)
    monkeypatch.setenv(ray_token.TOKEN_PATH, str(path))
    with pytest.raises(BadInput, match=f"there is no token in {path}"):
        ray_token.provide(make=False)
    (said,) = ray_token.provide(make=True)
    assert str(path) in said
    assert path.read_text() not in said
    assert (path.stat().st_mode & 0o777, len(path.read_text())) == (0o600, 64)


def test_a_record_of_another_machine_is_of_no_process_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home directory that several machines share, and numbers of processes that are another's here."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    owner = Owner.of(os.getpid(), "gcs_server")
    directory = str(tmp_path / "gone")
    record = node_record.NodeRecord("head", True, "127.0.0.1:1", "127.0.0.1", None, True, directory, (owner,))
    assert record.lives
    elsewhere = replace(record, servers=(replace(owner, machine="another"),))
    assert not elsewhere.lives
    assert elsewhere.processes() == []
    elsewhere.write()
    assert node_record.records() == [elsewhere]
    assert nodes.stop() == ["head"]
    assert node_record.records() == []
