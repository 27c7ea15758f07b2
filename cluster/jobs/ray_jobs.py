"""Jobs on a Ray cluster, through the jobs server of its head (Ray Jobs), over HTTP."""

import asyncio
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cluster import ray_token
from cluster.jobs.job_state import STATES, JobState, State, Submission
from cluster.jobs.package import Package
from data_pipeline.config import BadInput, GaveUp
from data_pipeline.redaction import is_secret_name, redact
from pretrain.config import nearest

CONNECT_SECONDS, READ_SECONDS = 3.0, 5.0
STOP_SECONDS = 900
"""A stopped job has so long to save before it is killed; Ray's own limit is 3 s."""
TOKEN_REMEDY = (
    "give RAY_AUTH_MODE=token, and the cluster's token in a file: RAY_AUTH_TOKEN_PATH=FILE, or ~/.ray/auth_token"
)

RAY_STATES: dict[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "succeeded",
    "STOPPED": "stopped",
    "FAILED": "failed",
}


@dataclass(frozen=True, slots=True)
class Resources:
    """Of a whole cluster, by Ray's names."""

    total: dict[str, float]
    free: dict[str, float]
    nodes: list[dict[str, float]]
    """What each node has."""
    scales: bool
    """Whether it adds nodes by itself: then its nodes have types, while each of a fixed cluster is its own."""


class RayJobs:
    """See `Jobs`; raises BadInput where nothing answers at the address, or the token is wrong."""

    def __init__(self, address: str) -> None:
        self.address = http_address(address)
        self.ray_version = check_server(self.address)
        with self._errors():
            self.client = _client(self.address)

    def submit(self, submission: Submission, package: Package, environment: dict[str, str]) -> None:
        secret = next((name for name in environment if _is_secret(name, environment[name])), None)
        if secret is not None:
            raise BadInput(
                f"--env {secret}: Ray shows a job's environment to everyone who may read its jobs; put secrets into "
                "the environment of the cluster's nodes"
            )
        runtime = {
            "working_dir": str(package.path),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)} | environment,
        }
        with self._errors():
            self.client.submit_job(
                entrypoint=submission.command,
                submission_id=submission.id,
                runtime_env=runtime,
                metadata=submission.metadata(),
            )

    def all(self) -> list[JobState]:
        with self._errors():
            found = self.client.list_jobs()
        found.sort(key=lambda details: -(details.start_time or 0))
        return [state for details in found if (state := _state(details)) is not None]

    def get(self, job: str) -> JobState:
        with self._errors():
            try:
                state = _state(self.client.get_job_info(job))
            except RuntimeError as error:
                if "404" not in str(error) and "does not exist" not in str(error):
                    raise
                state = None
        if state is None:
            known = [state.submission.id for state in self.all()]
            raise BadInput(f"job {job!r}: the cluster at {self.address} knows none with this id{nearest(job, known)}")
        return state

    def log(self, job: str) -> str:
        self.get(job)
        with self._errors():
            return str(self.client.get_job_logs(job))

    def follow(self, job: str) -> Iterator[str]:
        """Ray gives the log from the beginning, and ends it with the job."""
        self.get(job)
        loop = asyncio.new_event_loop()
        pieces = self.client.tail_job_logs(job)
        try:
            while True:
                with self._errors():
                    try:
                        piece = loop.run_until_complete(anext(pieces))
                    except StopAsyncIteration:
                        return
                yield piece
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def stop(self, job: str) -> None:
        with self._errors():
            self.client.stop_job(job)

    def resources(self) -> Resources:
        """What the cluster has, and what of it is free now."""
        with self._errors():
            nodes = self.client._do_request("GET", "/api/v0/nodes?detail=1&limit=10000", timeout=READ_SECONDS).json()
            status = self.client._do_request("GET", "/api/cluster_status", timeout=READ_SECONDS).json()
        return resources_of(nodes, status)

    def _errors(self) -> "_Errors":
        return _Errors(self.address)


def _is_secret(name: str, value: str) -> bool:
    return is_secret_name(name) or redact(f"{name}={value}") != f"{name}={value}"


class _Errors:
    """Turns the client's errors into messages for a user."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        import aiohttp
        import requests

        if isinstance(error, requests.RequestException | aiohttp.ClientError | ConnectionError) or (
            isinstance(error, RuntimeError) and "status code 5" in str(error)
        ):
            raise GaveUp(
                f"--address {self.address}: the cluster's jobs server answers no more ({_first_line(error)}); its jobs "
                "may go on; ask again later"
            ) from error
        if isinstance(error, RuntimeError) and not isinstance(error, StopAsyncIteration):
            raise BadInput(f"--address {self.address}: the cluster refuses: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def http_address(address: str) -> str:
    """The URL of the jobs server; raises BadInput for what is no such address.

    >>> http_address("10.0.0.5:8265"), http_address("https://ray.example.org/")
    ('http://10.0.0.5:8265', 'https://ray.example.org')
    """
    rule = "must be `local` or the URL of the jobs server of a Ray cluster, such as http://HEAD:8265"
    if "://" not in address:
        address = f"http://{address}"
    parts = urlsplit(address)
    try:
        port = parts.port
    except ValueError as error:
        raise BadInput(f"--address {address}: {rule}, but its port is no port: {error}") from error
    if parts.scheme == "ray" or port == 6379:
        raise BadInput(f"--address {address}: {rule}; this is the address that nodes and drivers of the cluster use")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"--address {address}: {rule}")
    if parts.username or parts.password:
        raise BadInput(f"--address: {rule}, without user and password; {TOKEN_REMEDY}")
    return address.rstrip("/")


def check_server(address: str) -> str:
    """The version of the Ray that answers there and takes our token; raises BadInput else, within seconds."""
    import requests

    def ask(path: str, headers: Mapping[str, str]) -> requests.Response:
        return requests.get(f"{address}{path}", headers=headers, timeout=(CONNECT_SECONDS, READ_SECONDS))

    try:
        answer = ask("/api/jobs/", {})
        if answer.status_code in (401, 403):
            answer = ask("/api/jobs/", _authorization(address))
        version = ask("/api/version", _authorization(address) if answer.ok and ray_token.is_asked_for() else {})
    except requests.RequestException as error:
        kind = "did not answer in time" if isinstance(error, requests.Timeout) else "nothing answers there"
        raise BadInput(
            f"--address {address}: {kind}; it must be the jobs server of a Ray cluster that runs (port 8265, if "
            "nothing else was said), or `local`"
        ) from error
    if answer.status_code in (401, 403):
        raise BadInput(f"--address {address}: the cluster does not take this token; {TOKEN_REMEDY}")
    found = _version(version)
    if not answer.ok or found is None:
        raise BadInput(f"--address {address}: what answers there is not the jobs server of a Ray cluster")
    if tuple(int(part) for part in found.split(".")[:2]) < ray_token.LEAST_VERSION:
        least = ".".join(map(str, ray_token.LEAST_VERSION))
        raise BadInput(f"--address {address}: the cluster has Ray {found}; Segue needs {least} or later")
    return found


def _version(answer: Any) -> str | None:
    try:
        return str(answer.json()["ray_version"]) if answer.ok else None
    except (ValueError, KeyError, TypeError):
        return None


def _authorization(address: str) -> dict[str, str]:
    """The header with the user's token, for a server that asked for one.

    Where nothing was said of tokens, the one of this machine's user goes to servers of this machine only.
    """
    if not ray_token.is_asked_for() and urlsplit(address).hostname not in ("127.0.0.1", "localhost", "::1"):
        raise BadInput(f"--address {address}: the cluster asks for a token; {TOKEN_REMEDY}")
    token = ray_token.token()
    if not token:
        raise BadInput(f"--address {address}: the cluster asks for a token, and there is none; {TOKEN_REMEDY}")
    os.environ[ray_token.MODE] = "token"  # before Ray is imported
    return {"Authorization": f"Bearer {token}"}


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    for name in ("dashboard_sdk", "job.sdk"):  # they tell of uploads and sockets
        logging.getLogger(f"ray.dashboard.modules.{name}").setLevel(logging.WARNING)
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # they would win over the address
        os.environ.pop(name, None)
    return JobSubmissionClient(address)


def _state(details: Any) -> JobState | None:
    """Of what Ray says of a job; None where it is not one of Segue's."""
    submission = Submission.from_metadata(details.metadata or {})
    if submission is None:
        return None
    code = details.driver_exit_code
    state = RAY_STATES[str(details.status)]
    if state == "failed" and code in STATES:
        state = STATES[code]
    return JobState(submission, state, code, (details.message or "").strip())


def resources_of(nodes: Mapping[str, Any], status: Mapping[str, Any]) -> Resources:
    """From what the head says of its nodes, and of its load."""
    found = nodes["data"]["result"]["result"]
    alive = [node.get("resources_total") or {} for node in found if node["state"] == "ALIVE"]
    total: dict[str, float] = {}
    for node in alive:
        for name, amount in node.items():
            total[name] = total.get(name, 0.0) + amount
    cluster = (status.get("data") or {}).get("clusterStatus") or {}
    usage = (cluster.get("loadMetricsReport") or {}).get("usage") or {}
    free = {name: amount - usage.get(name, (0.0, 0.0))[0] for name, amount in total.items()}
    types = (cluster.get("autoscalerReport") or {}).get("nodeTypeMapping") or {}
    return Resources(total, free, alive, any(name != f"node_{node}" for node, name in types.items()))
