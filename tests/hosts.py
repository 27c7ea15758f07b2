"""Hosts of a network of their own, on this machine: one network namespace each, joined by a bridge in one more.

Their addresses are of 198.18.0.0/15 (RFC 2544: for tests of networks); nothing of the machine's own network is touched.
They share the file system, as hosts with shared storage do, but each has a home directory. It takes root and `ip`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.ray_session import remove_leftovers
from tests.faults.workers import ROOT
from tests.processes import of_this_test

PREFIX = "segue-test-"
NETWORK = "198.18.0."
START_SECONDS = 120.0
GONE_SECONDS = 60.0


def why_none() -> str | None:
    """What is missing here for hosts of a test's own; None where nothing is."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"{PREFIX}{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode != 0:
        return f"`ip netns add` is not allowed: {tried.stderr.strip()}"
    bridge = subprocess.run(["ip", "-n", name, "link", "add", "try", "type", "bridge"], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None if bridge.returncode == 0 else f"the kernel has no bridges: {bridge.stderr.strip()}"


@dataclass(frozen=True)
class Host:
    """A machine of the test's network."""

    number: int
    namespace: str
    wire: str
    """The namespace of the bridge."""
    home: Path
    token: Path
    """Of the cluster; all hosts have the same."""

    @property
    def address(self) -> str:
        return f"{NETWORK}{self.number + 1}"

    @property
    def port(self) -> str:
        """The bridge's end of its cable."""
        return f"port{self.number}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))},
            "HOME": str(self.home),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            **of_this_test(),
        }

    def command(self, *arguments: object) -> list[str]:
        """To be run as root of the machine, in the host."""
        return ["ip", "netns", "exec", self.namespace, *map(str, arguments)]

    def segue(self, *arguments: object, timeout: float = START_SECONDS) -> subprocess.CompletedProcess[str]:
        """`segue ...` on this host, to its end."""
        return subprocess.run(
            self.command(sys.executable, ROOT / "launch.py", *arguments),
            cwd=self.home, env=self.environment, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def start_node(self, *arguments: object) -> None:
        """`segue cluster start` with this host's address; on two of its processors."""
        options = ["--host", self.address, *arguments]
        started = self.segue("cluster", "start", *options)
        assert started.returncode == 0, started

    def pids(self) -> set[int]:
        """Of all processes in it."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return set(map(int, listed.stdout.split()))

    def kill(self) -> set[int]:
        """As if it lost its power: kill -9 of all its processes, until there are none; returns which there were."""
        killed: set[int] = set()
        while pids := self.pids():
            killed |= pids
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        return killed

    def cut_off(self) -> None:
        """Take its cable out of the bridge: what it sends goes nowhere, and nobody is told."""
        link(self.wire, "set", self.port, "nomaster")

    def reconnect(self) -> None:
        link(self.wire, "set", self.port, "master", "bridge")

    @contextmanager
    def slow_link(self, megabits: float) -> Iterator[None]:
        """It sends and receives no more a second, and what waits longer than two seconds to be sent is dropped."""
        ends = [(self.wire, self.port), (self.namespace, "eth0")]
        for namespace, device in ends:
            limit = ("rate", f"{megabits}mbit", "burst", "32kbit", "latency", "2s")
            ip("netns", "exec", namespace, "tc", "qdisc", "add", "dev", device, "root", "tbf", *limit)
        try:
            yield
            for namespace, device in ends:
                told = subprocess.run(["tc", "-n", namespace, "-s", "qdisc", "show", "dev", device],
                                      capture_output=True, text=True, check=True).stdout  # fmt: skip
                assert "overlimits 0 " not in told, "nothing had to wait"
        finally:
            for namespace, device in ends:
                ip("netns", "exec", namespace, "tc", "qdisc", "del", "dev", device, "root")


@contextmanager
def hosts(count: int, place: Path) -> Iterator[list[Host]]:
    """So many, each of which reaches the others; whatever happens, nothing of them is left.

    Raises AssertionError where processes were left running in them; they are ended all the same.
    """
    sweep()
    base = f"{PREFIX}{os.getpid()}-"
    with ExitStack() as stack:
        stack.callback(remove_leftovers)
        wire = _namespace(f"{base}wire", stack)
        link(wire, "add", "bridge", "type", "bridge")
        link(wire, "set", "bridge", "up")
        made = []
        for number in range(count):
            home = place / f"home-{number}"
            home.mkdir()
            host = Host(number, _namespace(f"{base}{number}", stack), wire, home, place / "token")
            _plug_in(host)
            made.append(host)
        yield made
        left = {pid for host in made for pid in host.pids()}
        names = [f"{pid} {' '.join(psutil.Process(pid).cmdline())[:200]}" for pid in left if psutil.pid_exists(pid)]
        assert not names, names


def sweep() -> None:
    """Remove the hosts of tests that were killed."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    for name in (line.split()[0] for line in listed.splitlines() if line.startswith(PREFIX)):
        if not psutil.pid_exists(int(name.removeprefix(PREFIX).split("-")[0])):
            _remove(name)


def wait_gone(pids: Sequence[int] | set[int], seconds: float = GONE_SECONDS) -> float:
    """Until none of these processes lives; returns how long it took. They end by themselves, or the test fails."""
    begun = time.monotonic()
    while left := [pid for pid in pids if _lives(pid)]:
        assert time.monotonic() - begun < seconds, f"processes {left} live on after {seconds:.0f} s"
        time.sleep(0.2)
    return time.monotonic() - begun


def ip(*arguments: object) -> None:
    subprocess.run(["ip", *map(str, arguments)], check=True, timeout=30)


def link(namespace: str, *arguments: object) -> None:
    ip("-n", namespace, "link", *arguments)


def _namespace(name: str, stack: ExitStack) -> str:
    ip("netns", "add", name)
    stack.callback(_remove, name)
    link(name, "set", "lo", "up")
    return name


def _plug_in(host: Host) -> None:
    """A cable from its `eth0` to the bridge."""
    link(host.wire, "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
    host.reconnect()
    link(host.wire, "set", host.port, "up")
    ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    link(host.namespace, "set", "eth0", "up")


def _remove(namespace: str) -> None:
    """With all that runs in it; its cables go with it."""
    Host(0, namespace, "", Path(), Path()).kill()
    ip("netns", "del", namespace)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
