"""Nodes of Ray's on this machine, outliving the command that starts them: `segue cluster start` and `stop`.

A cluster is safe by default: every server of it listens on loopback only, and asks for the token (`cluster.ray_token`).
"""

import fcntl
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from cluster import node_record, ray_token
from cluster.head_check import check_head, check_refuses_strangers
from cluster.node_address import Addresses
from cluster.node_record import MARK, NodeRecord
from cluster.ray_session import LOCK, PREFIX, RAY_ENVIRONMENT, TEMPORARY, remove_leftovers
from cluster.topology import LOOPBACK
from data_pipeline.config import BadInput, GaveUp, Refused
from pretrain.owner import Owner

NAME = re.compile(r"[A-Za-z0-9_-]+")
START_ATTEMPTS = 3
SERVER_SECONDS = 10.0
"""Ray's servers have so long to end by themselves before they are killed."""
HEAD_SECONDS = 3.0
"""And the head's, which now and then does not hear SIGTERM (2.60)."""
KILL_SECONDS = 20.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A node as it is asked for; what is None is chosen."""

    name: str | None = None
    host: str = LOOPBACK
    """The address that the others of the cluster know it by."""
    join: str | None = None
    """The address of the head of its cluster; None: it is the head of a new one."""
    port: int | None = None
    dashboard_port: int | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None


def start(wanted: Wanted, say: Say = lambda _: None) -> NodeRecord:
    """Start a node; what is worth knowing is said in lines.

    Raises BadInput or Refused, with nothing started and nothing left, where it may not or cannot be; GaveUp where Ray
    fails.
    """
    if wanted.name is not None and not NAME.fullmatch(wanted.name):
        raise BadInput(f"--name {wanted.name}: is no name; use letters, digits, - and _")
    addresses = Addresses.check(wanted.host, wanted.join, wanted.port, wanted.dashboard_port)
    off = ray_token.why_off()
    if off and addresses.public:
        raise Refused(
            f"--host {wanted.host}: whoever reaches this address could run programs here, for Ray's token "
            f"authentication is off: {off}"
        )
    with node_record.one_at_a_time():
        name = _free_name(wanted)
        os.environ.update(RAY_ENVIRONMENT | addresses.environment)
        python = Path(sys.executable).parent  # of whose packages jobs are to be given
        os.environ["PATH"] = f"{python}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        for line in ray_token.turn_on(make=wanted.join is None) if off is None else [f"warning: no token: {off}"]:
            say(line)
        remove_leftovers()
        if addresses.join is not None:
            check_head(addresses.join, authenticated=off is None)
        return _start(replace(wanted, name=name), addresses, authenticated=off is None)


def stop(name: str | None = None, *, force: bool = False) -> list[str]:
    """End a node of this machine, or all, and remove what they left; returns the names of those that were there.

    Raises Refused, with all as it was, where jobs are running on a cluster whose head would go, unless forced to.
    """
    with node_record.one_at_a_time():
        chosen = [record for record in node_record.records() if name in (None, record.name)]
        if name is not None and not chosen:
            there = ", ".join(record.name for record in node_record.records()) or "none"
            raise BadInput(f"there is no node {name!r} that was started on this machine; there are: {there}")
        if not force:
            for record in chosen:
                _refuse_running_jobs(record)
        for record in reversed(chosen):  # heads last
            _end(record)
        return [record.name for record in chosen]


def _free_name(wanted: Wanted) -> str:
    """The name asked for, or the next free one; raises Refused where a node of that name lives."""
    live = {}
    for record in node_record.records():
        if record.lives:
            live[record.name] = record
        elif wanted.name in (None, record.name):
            _end(record)  # of a machine that went down, or killed
    if wanted.name is None and wanted.join is not None:
        return next(name for number in range(1, len(live) + 2) if (name := f"node-{number}") not in live)
    name = wanted.name or "head"
    if name in live:
        raise Refused(
            f"{name} runs already, of the cluster at {live[name].address}; `segue cluster stop {name}` ends it, "
            "--name gives another one a name of its own"
        )
    return name


def _start(wanted: Wanted, addresses: Addresses, *, authenticated: bool) -> NodeRecord:
    """Once more where Ray's servers took longer than it waits, or a port was taken meanwhile."""
    for attempt in range(START_ATTEMPTS):
        taken = addresses.with_ports()
        directory = tempfile.mkdtemp(prefix=PREFIX, dir=TEMPORARY)
        record = NodeRecord(
            name=wanted.name or "",
            head=wanted.join is None,
            address=taken.head,
            host=taken.host,
            dashboard=taken.dashboard,
            authenticated=authenticated,
            directory=directory,
        )
        record.write()
        try:
            record = replace(record, servers=_start_servers(wanted, taken, directory))
            if authenticated and record.dashboard is not None:
                check_refuses_strangers(record.address, record.dashboard)
            record.write()
            return record
        except Refused:
            _end(record)
            raise
        except Exception as error:  # Ray raises just this
            _end(record)
            if attempt + 1 == START_ATTEMPTS:
                raise GaveUp(f"Ray does not start on this machine, in {START_ATTEMPTS} attempts: {error}") from error
        except BaseException:  # Ctrl-C
            _end(record)
            raise
    raise AssertionError


def _start_servers(wanted: Wanted, addresses: Addresses, directory: str) -> tuple[Owner, ...]:
    """Ray's servers, in sessions of their own, each holding the directory's lock for as long as it lives."""
    os.environ[MARK] = directory
    with (Path(directory) / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _apart(lock.fileno())
        from ray._private.node import Node
        from ray._private.parameter import RayParams
        from ray._private.utils import write_ray_address

        logging.getLogger("ray").setLevel(logging.ERROR)
        node = Node(
            RayParams(
                node_ip_address=addresses.host,
                gcs_address=addresses.join,
                gcs_server_port=addresses.port,
                num_cpus=wanted.num_cpus,
                num_gpus=wanted.num_gpus,
                include_dashboard=True,
                dashboard_host=addresses.host,
                dashboard_port=addresses.dashboard_port,
                dashboard_agent_listen_port=0,
                temp_dir=directory,
                no_monitor=True,  # of an autoscaler, which there is none of
            ),
            head=wanted.join is None,
            shutdown_at_exit=False,
            spawn_reaper=False,
        )
        write_ray_address(node.gcs_address, directory)  # where Ray's jobs look for it
    return tuple(
        Owner.of(info.process.pid, kind) for kind, processes in node.all_processes.items() for info in processes
    )


def _apart(lock: int) -> None:
    """Let Ray start its servers in sessions of their own, apart from this terminal, and hand them the lock."""
    from ray._private import services

    class Server(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            own = {"stdin": subprocess.DEVNULL, "start_new_session": True, "pass_fds": (lock,)}
            super().__init__(*arguments, **{**options, **own})

    services.ConsolePopen = Server


def _refuse_running_jobs(record: NodeRecord) -> None:
    from cluster.node_status import running_jobs

    jobs = running_jobs(record) if record.head and record.lives else []
    if jobs:
        raise Refused(
            f"{record.name}: jobs are running: {'; '.join(jobs)}; cancel them first, so that they save, or --force"
        )


def _end(record: NodeRecord) -> None:
    """End all processes of the node, its head last, and remove its files."""
    deadline = time.monotonic() + KILL_SECONDS
    heads = {owner.pid for owner in record.servers if owner.token == "gcs_server"}
    processes = record.processes()
    _terminate([process for process in processes if process.pid not in heads], SERVER_SECONDS)
    _terminate([process for process in processes if process.pid in heads], HEAD_SECONDS)
    while (left := record.processes()) and time.monotonic() < deadline:
        _terminate(left, 0.0)
    shutil.rmtree(record.directory, ignore_errors=True)
    if left:
        raise GaveUp(f"{record.name}: processes {', '.join(str(process.pid) for process in left)} do not end")
    record.forget()


def _terminate(processes: list[psutil.Process], seconds: float) -> None:
    """Ask them to end, and kill those that have not after so long."""
    for signal_all in (psutil.Process.terminate, psutil.Process.kill) if seconds else (psutil.Process.kill,):
        for process in processes:
            try:
                signal_all(process)
            except psutil.Error:
                continue
        _, processes = psutil.wait_procs(processes, timeout=seconds or 1.0)
