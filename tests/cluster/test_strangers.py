"""Row 41: a cluster on an address that another host reaches answers that host nothing without the token."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hosts import Host, hosts, why_none

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(why_none()), reason=str(why_none()))]

DRIVER = """
import sys
import ray

@ray.remote
class Worker:
    def lives(self):
        return True

ray.init(address=sys.argv[1])
worker = Worker.remote()
ray.get(worker.lives.remote())
print("there", flush=True)
sys.stdin.read()
"""

STRANGER = """
import json, pathlib, re, sys, urllib.error, urllib.request
import grpc, ray

address, ports = sys.argv[1], sys.argv[2:]
generated = pathlib.Path(ray.__file__).parent / "core" / "generated"
methods = {m for path in generated.glob("*_grpc.py") for m in re.findall(r"'(/ray\\.rpc[^']+)'", path.read_text())}
methods |= {"/ray.rpc.ObjectManagerService/Push", "/ray.rpc.ObjectManagerService/Pull"}
token = [("authorization", "Bearer of-nothing")]

def pages(port):
    found = {}
    for path in ("/", "/api/healthz", "/metrics", "/api/jobs/", "/api/version", "/api/v0/nodes", "/logs/",
                 "/get_runtime_envs_info", "/api/job_agent/jobs/", "/nodes"):
        try:
            with urllib.request.urlopen(f"http://{address}:{port}{path}", timeout=10) as page:
                found[path] = page.status
        except urllib.error.HTTPError as error:
            found[path] = error.code
        except Exception:  # whatever it raises: this port speaks no HTTP, and `calls` asks it all the same
            return {}
    return found

def calls(port):
    found = {}
    with grpc.insecure_channel(f"{address}:{port}") as channel:
        for method in sorted(methods):
            for metadata in ([], token):
                try:
                    channel.unary_unary(method)(b"", timeout=10, metadata=metadata)
                    found[method] = "OK"
                except grpc.RpcError as error:
                    found.setdefault(method, error.code().name)
    return found

print(json.dumps({port: pages(port) or calls(port) for port in ports}))
"""

OPEN = {"/": {200}, "/api/healthz": {200, 404}}
"""The page that asks for the token, without anything of the cluster, and whether a server lives."""


def listening(host: Host) -> set[tuple[str, str]]:
    """Addresses and ports of a host that others may reach."""
    shown = subprocess.run(host.command("ss", "-Htln"), capture_output=True, text=True, check=True).stdout
    found = {tuple(line.split()[3].rsplit(":", 1)) for line in shown.splitlines()}
    return {(address, port) for address, port in found if address not in ("127.0.0.1", "[::ffff:127.0.0.1]")}


def test_no_port_answers_another_host_without_the_token(tmp_path: Path) -> None:
    """Every page and every call that Ray's servers and workers know, without a token and with another."""
    with hosts(2, tmp_path) as (own, other):
        own.start_node("--num-cpus", 1)
        with subprocess.Popen(
            own.command(sys.executable, "-c", DRIVER, f"{own.address}:6379"),
            env=own.environment | {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}, cwd=own.home,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        ) as driver:  # fmt: skip
            assert driver.stdout is not None
            assert driver.stdout.readline() == "there\n"
            ports = {port for _, port in listening(own)}
            asked = subprocess.run(
                other.command(sys.executable, "-c", STRANGER, own.address, *ports),
                env=other.environment, capture_output=True, text=True, timeout=300,
            )  # fmt: skip
            driver.communicate()
        assert asked.returncode == 0, asked.stderr
        answers = json.loads(asked.stdout)
        assert own.segue("cluster", "stop", "--force").returncode == 0
    assert len(answers) > 8
    for port, found in answers.items():
        refused = {401, 403} if "/" in found else {"UNAUTHENTICATED"}
        odd = {
            place: answer
            for place, answer in found.items()
            if answer not in refused | OPEN.get(place, {"UNIMPLEMENTED", 404})
        }
        assert not odd, (port, odd)
        assert refused & set(found.values()), (port, "refuses nothing", found)
