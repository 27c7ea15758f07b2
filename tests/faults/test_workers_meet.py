"""Row 32: ports that are taken, peers that do not come, and who can reach the workers."""

from datetime import timedelta
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console

from cluster.observer import WorkerStatus
from cluster.topology import LOOPBACK
from cluster.train import train
from data_pipeline.config import BadInput, GaveUp
from pretrain.group import join
from pretrain.meeting import listen
from tests.faults.injector import Slow
from tests.faults.workers import Once, experiment
from tests.processes import free_port

SHORT = timedelta(seconds=2)


def test_a_taken_port_is_refused_by_name_and_a_free_one_is_found() -> None:
    with listen(LOOPBACK) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BadInput, match=f"port {port} of 127.0.0.1 cannot be listened on"):
            join(0, 2, 0, address=LOOPBACK, port=port, timeout=SHORT, device=torch.device("cpu"))
        with listen(LOOPBACK) as free:
            assert free.getsockname()[1] != port


def test_a_peer_that_never_comes_is_named_with_the_address() -> None:
    listener = listen(LOOPBACK)
    port = listener.getsockname()[1]
    with pytest.raises(GaveUp) as alone:
        join(0, 3, 0, address=LOOPBACK, port=port, timeout=SHORT, device=torch.device("cpu"), listener=listener)
    assert f"at 127.0.0.1:{port} and worker(s) 1, 2 of 3 did not come" in str(alone.value)


def test_a_leader_that_is_not_there_is_named_with_the_address() -> None:
    port = free_port()
    with pytest.raises(GaveUp, match=f"worker 1 does not reach the leader at 127.0.0.1:{port} within 2 s"):
        join(1, 2, 1, address=LOOPBACK, port=port, timeout=SHORT, device=torch.device("cpu"))


@pytest.mark.usefixtures("ray_of_two")
def test_workers_of_one_machine_listen_on_loopback_only(tmp_path: Path, console: Console) -> None:
    listening: set[str] = set()

    def look(statuses: list[WorkerStatus]) -> None:
        for status in statuses:
            connections = psutil.Process(status.pid).net_connections(kind="inet")
            found = [c.laddr.ip for c in connections if c.status == psutil.CONN_LISTEN]
            assert found, "Ray's and gloo's ports"
            listening.update(found)

    watcher, slow = Once(1, look), Slow(0, "data", 0.2)  # long enough to be looked at on any machine
    run = tmp_path / "run"
    assert train(experiment("steps=20"), run, workers=2, on_status=watcher, console=console, injector=slow) == 20
    assert watcher.acted_at is not None
    assert listening <= {LOOPBACK, "::1", "::ffff:127.0.0.1"}
