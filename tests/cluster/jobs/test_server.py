"""What is said of addresses that are none of a cluster's: real servers, a message within seconds."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cluster.jobs.ray_jobs import check_server, http_address, resources_of
from cluster.topology import Shape, lacks, worker_resources
from data_pipeline.config import BadInput
from tests.processes import free_port

TOKEN = "a-token-of-sixteen"


@contextmanager
def server(version: str | None, *, token: str | None = None) -> Iterator[str]:
    """One that answers as Ray's jobs server does, or, without a version, as some other server; its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = self.headers.get("Authorization")
            if token is not None and given != f"Bearer {token}":
                self._answer(403 if given else 401, b"Unauthorized")
            elif version is None:
                self._answer(200, b"<html>It works!</html>")
            else:
                self._answer(200, json.dumps({"ray_version": version}).encode())

        def _answer(self, code: int, content: bytes) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()


@pytest.fixture(autouse=True)
def own_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A token in a home directory of its own."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "")  # restored afterwards, whatever is done to it
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text(TOKEN)
    return path


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ray://head:10001", "nodes and drivers"),
        ("head:6379", "nodes and drivers"),
        ("ftp://head", "must be `local` or the URL"),
        ("http://head:99999", "its port is no port"),
        ("http://", "must be `local` or the URL"),
        ("http://me:secret@head:8265", "without user and password"),
    ],
)
def test_what_is_no_address_of_a_jobs_server(address: str, told: str) -> None:
    with pytest.raises(BadInput, match=told) as error:
        http_address(address)
    assert "secret" not in str(error.value)


def test_nothing_answers() -> None:
    with pytest.raises(BadInput, match="nothing answers there"):
        check_server(f"http://127.0.0.1:{free_port()}")


def test_what_answers_never() -> None:
    """It takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(BadInput, match="did not answer in time"):
        check_server(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_another_server() -> None:
    with server(None) as address, pytest.raises(BadInput, match="is not the jobs server"):
        check_server(address)


def test_an_old_ray_has_no_tokens() -> None:
    with server("2.40.0") as address, pytest.raises(BadInput, match=r"has Ray 2\.40\.0; Segue needs 2\.54 or later"):
        check_server(address)


def test_the_token_is_given_to_who_asks_for_it(own_token: Path) -> None:
    with server("2.60.0", token=TOKEN) as address:
        assert check_server(address) == "2.60.0"


def test_the_token_is_not_given_to_who_does_not_ask(own_token: Path) -> None:
    own_token.unlink()  # else it could not be told
    with server("2.60.0") as address:
        assert check_server(address) == "2.60.0"


def test_a_wrong_token_and_none(own_token: Path) -> None:
    own_token.write_text("another-token-entirely")
    with server("2.60.0", token=TOKEN) as address:
        with pytest.raises(BadInput, match="does not take this token; give RAY_AUTH_MODE=token") as error:
            check_server(address)
        assert "another-token" not in str(error.value)
        own_token.unlink()
        with pytest.raises(BadInput, match="asks for a token, and there is none"):
            check_server(address)


def test_a_token_goes_to_another_machine_only_where_that_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every server that asks would be given it."""
    from cluster.jobs.ray_jobs import _authorization

    with pytest.raises(BadInput, match="asks for a token; give RAY_AUTH_MODE=token"):
        _authorization("http://203.0.113.7:8265")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert _authorization("http://203.0.113.7:8265") == {"Authorization": f"Bearer {TOKEN}"}


def head_says(*totals: dict[str, float], used: dict[str, float], types: list[str]) -> tuple[dict, dict]:  # type: ignore[type-arg]
    """As the head answers: its nodes, one of them dead; and its load, of nodes of these types."""
    alive = [{"state": "ALIVE", "resources_total": total} for total in totals]
    nodes = {"data": {"result": {"result": [*alive, {"state": "DEAD", "resources_total": {"GPU": 8.0}}]}}}
    usage = {name: [amount, 0.0] for name, amount in used.items()}
    mapping = {f"id{index}": name for index, name in enumerate(types)}
    status = {"loadMetricsReport": {"usage": usage}, "autoscalerReport": {"nodeTypeMapping": mapping}}
    return nodes, {"data": {"clusterStatus": status}}


def test_what_is_missing_is_named() -> None:
    nodes = [{"CPU": 32.0, "GPU": 4.0, "accelerator_type:A100": 1.0}, {"CPU": 32.0, "GPU": 2.0}]
    found = resources_of(*head_says(*nodes, used={"GPU": 4.0}, types=["node_id0", "node_id1"]))
    assert not found.scales
    shape = Shape(8)
    needed = worker_resources("auto", shape, found.total)
    with pytest.raises(BadInput, match="the run needs 8 GPUs, the cluster has 6, 2 free; use fewer workers, or set"):
        lacks(needed, shape, found.total, found.free)
    lacks(needed, Shape(6), found.total, found.free)
    wanted = Shape(2, accelerator="H100")
    with pytest.raises(BadInput, match="needs H100 accelerators, the cluster has only A100"):
        lacks(worker_resources("auto", wanted, found.total), wanted, found.total, found.free)


def test_a_cluster_that_grows_by_itself_is_told_by_its_types() -> None:
    assert resources_of(*head_says({"CPU": 2.0}, used={}, types=["head-group", "gpu-group"])).scales
