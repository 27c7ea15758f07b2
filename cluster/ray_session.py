"""The Ray that places the workers: one of our own on this machine, or the cluster that this process has joined."""

import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster import node_record, ray_token
from cluster.node_record import NodeRecord
from cluster.topology import address_answers
from data_pipeline.config import BadInput, GaveUp

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Despite its name (Ray 2.60): 0 leaves 127.0.0.1 as it is, so that every server of the session listens there only.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Workers set CUDA_VISIBLE_DEVICES themselves.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Read by Ray when it is imported, and handed on to its processes; it has no other switch for these."""

OBJECT_STORE_BYTES = 80 * 2**20
"""Close to Ray's least: workers send each other nothing through it."""

START_ATTEMPTS = 3
TEMPORARY = Path("/tmp")
"""Ray's sockets are below it, and their paths must be short."""
PREFIX = "segue-"
LOCK = "lock"
RAY = "r"
"""Ray's own directory within it: Ray opens that to everybody, and the one above stays closed."""
HEAD_SECONDS = 5.0
"""A head that answers nothing for so long is gone; Ray itself would end this process after a minute."""
HEAD_LOOK_SECONDS = 1.0


@contextmanager
def ray_session(workers: int, address: str | None = None) -> Iterator[None]:
    """A Ray on loopback that ends with the context; or the cluster at `address`, which goes on after it; or the one
    that this process has joined already, left as it is."""
    os.environ.update(RAY_ENVIRONMENT)
    import ray

    ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # what the variable above does where Ray was imported before
    # Ray tells every death of a worker in a paragraph, whatever its log level; the supervisor tells it in a line.
    ray._private.worker.print_to_stdstream = lambda *_, **__: None
    if ray.is_initialized():
        yield
        return
    if address is not None:
        _join(address)
        try:
            yield
        finally:
            ray.shutdown()
        return
    _apart_from_signals()
    remove_leftovers()
    with session_directory() as directory:
        try:
            _start(str(directory / RAY), workers)
            yield
        finally:
            ray.shutdown()


@contextmanager
def session_directory() -> Iterator[Path]:
    """A new directory for Ray's files, locked for as long as this process lives, so that leftovers can be told."""
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=TEMPORARY))
    try:
        with (directory / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def remove_leftovers() -> list[Path]:
    """Remove the directories of drivers that were killed: those whose lock nobody holds. Returns them."""
    return [directory for directory in TEMPORARY.glob(f"{PREFIX}*") if remove_leftover(directory)]


def remove_leftover(directory: Path) -> bool:
    """Whether it was one: a directory whose lock nobody holds."""
    try:
        with (directory / LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)
    except OSError:  # held, another user's, or not (yet) a session's
        return False
    return True


def _apart_from_signals() -> None:
    """Start Ray's servers in sessions of their own: a SIGTERM to the driver's whole process group (timeout, systemd,
    Slurm) must not end them before the workers have saved. Checked with Ray 2.60."""
    from ray._private import services

    if services.ConsolePopen.__name__ != "OwnSession":

        class OwnSession(services.ConsolePopen):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, start_new_session=True, **options)

        services.ConsolePopen = OwnSession


def _start(directory: str, workers: int) -> None:
    """Start Ray on this machine; once more where its servers took longer than it waits (30 s, no switch)."""
    import ray

    if ray_token.why_off() is None:
        ray_token.provide(make=True)  # Ray itself would make one that all can read
    for attempt in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _temp_dir=directory,
            )
            return
        except Exception as error:  # Ray raises just this
            ray.shutdown()
            if attempt + 1 == START_ATTEMPTS:
                raise GaveUp(f"Ray does not start on this machine, in {START_ATTEMPTS} attempts: {error}") from error


def _join(address: str) -> None:
    """Become a driver of a cluster that is there; raises BadInput where there is none."""
    import ray
    from ray._private.authentication.authentication_token_setup import _enable_token_auth
    from ray._private.services import canonicalize_bootstrap_address_or_die

    known = _own_head() if address == "auto" and not os.environ.get("RAY_ADDRESS") else None
    if known is not None and known.authenticated and not os.environ.get(ray_token.MODE):
        _enable_token_auth()
    none = f"--address {address}: no Ray cluster is found from this machine"
    start = "start one with `segue cluster start`, or leave --address out to train on this machine alone"
    try:
        head = canonicalize_bootstrap_address_or_die(known.address if known is not None else address)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"{none} ({str(error).splitlines()[0]}); {start}") from error
    if not address_answers(head):  # Ray would try for minutes
        raise BadInput(f"{none} (nothing answers at {head}); {start}")
    try:
        ray.init(address=head, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise BadInput(
            f"--address {address}: the Ray at {head} does not let this process in ({str(error).splitlines()[0]}); if "
            "it asks for a token, give RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH=FILE for another file than "
            "~/.ray/auth_token"
        ) from error


def _own_head() -> NodeRecord | None:
    """The node that this user has started on this machine, with `segue cluster start`; others' are not guessed at."""
    return next((record for record in node_record.records() if record.lives), None)


class HeadLostError(GaveUp):
    """The head of Ray's cluster (its GCS) is gone, and with it all that Ray could do for the workers."""


class Head:
    """The head of the Ray that this process has joined; made while it lives."""

    def __init__(self) -> None:
        import ray

        self.address: str = ray.get_runtime_context().gcs_address
        self.answered = self.looked = time.monotonic()

    def answers(self) -> bool:
        """Whether it can be asked anything now: a call of Ray's that needs it would wait, and then end the process."""
        return address_answers(self.address)

    def check(self) -> None:
        """Look, if some time has passed since the last look; raises HeadLostError once it is gone for HEAD_SECONDS."""
        now = time.monotonic()
        if now - self.looked < HEAD_LOOK_SECONDS:
            return
        self.looked = now
        if self.answers():
            self.answered = time.monotonic()
        elif now - self.answered > HEAD_SECONDS:
            raise HeadLostError(
                f"the head of Ray's cluster at {self.address} is gone; all workers within reach were ended"
            )

    def wait(self) -> None:
        """Return as soon as it answers; raises HeadLostError where it does not for HEAD_SECONDS."""
        while not self.answers():
            self.check()
            time.sleep(HEAD_LOOK_SECONDS)
        self.answered = time.monotonic()
