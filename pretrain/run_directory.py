"""One run, one directory: its experiment, its lease, its events; created whole or not at all.

experiment.yaml   lease.json   events.jsonl   metrics.jsonl   tensorboard/   checkpoints/   logs/
"""

import json
import os
import socket
import threading
import time
import types
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from data_pipeline.config import BadInput, Refused
from pretrain import config
from pretrain.experiment import Experiment

EXPERIMENT = "experiment.yaml"


def create(directory: Path, experiment: Experiment) -> None:
    """Make a run directory; refuses one that holds a run already, or anything else."""
    if (directory / EXPERIMENT).exists():
        raise Refused(f"{directory} holds a run already: go on with `resume {directory}`, or choose another --run")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = sorted(path.name for path in directory.iterdir() if not path.name.startswith(("lease.json", ".lease-")))
        if held:
            raise BadInput(f"--run {directory} is not empty (it holds {held[0]}) and is not a run; choose another")
        write_experiment(directory, experiment)
    except OSError as error:
        raise BadInput(f"--run {directory} cannot be written: {error}") from error


def write_experiment(directory: Path, experiment: Experiment) -> None:
    """Replace the saved experiment in one step."""
    temporary = directory / f"{EXPERIMENT}.partial"
    temporary.write_text(config.dump(experiment), encoding="utf-8")
    os.replace(temporary, directory / EXPERIMENT)


def read_experiment(directory: Path, overrides: tuple[str, ...] = ()) -> Experiment:
    """The saved experiment, with overrides; raises BadInput where there is no run."""
    path = directory / EXPERIMENT
    if not path.is_file():
        raise BadInput(f"{directory} holds no run (no {EXPERIMENT} in it)")
    return config.load(Experiment, path, overrides)


def refuse_changes(saved: dict[str, Any], now: dict[str, Any], allowed: tuple[str, ...], what: str) -> None:
    """Raise Refused with the differences, unless each differing key (or a parent of it) is allowed by name."""
    changed = {
        key: values
        for key, values in config.differences(saved, now).items()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }
    if changed:
        lines = [f"  {key}: was {old!r}, is now {new!r}" for key, (old, new) in changed.items()]
        raise Refused(
            f"the {what} has changed since this run was saved:\n"
            + "\n".join(lines)
            + f"\nundo the change, start a new run, or allow it by name: --allow {next(iter(changed))}"
        )


def record_event(directory: Path, kind: str, **details: Any) -> None:
    """Append one line to events.jsonl: starts, losses of workers, resumes, ends."""
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": kind, **details}
    with (directory / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def read_events(directory: Path) -> list[dict[str, Any]]:
    """The events so far, in their order; a line torn by a kill is left out."""
    path = directory / "events.jsonl"
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease."""

    token: str
    host: str
    pid: int
    started: float
    """The process's creation time on its own host, to tell it from a later process with its number."""


class Lease:
    """A live job's claim on a run directory: held while the context lasts, renewed by a count, never by a clock.

    A holder on this host is live while its process is; one elsewhere while its count moves. A stale lease is taken
    over.
    """

    def __init__(self, directory: Path, *, renew_seconds: float = 2.0) -> None:
        self.path, self.renew_seconds = directory / "lease.json", renew_seconds
        process = psutil.Process()
        self.owner = Owner(uuid.uuid4().hex, socket.gethostname(), process.pid, process.create_time())
        self.beats = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Lease":
        holder = self._holder()
        if holder is not None:
            if self._is_live(*holder):
                raise self._taken(holder[0])
            self._remove_stale(holder[0])
        try:
            self._claim()
        except FileExistsError:
            raise self._taken((self._holder() or (self.owner, 0))[0]) from None
        except OSError as error:
            raise BadInput(f"{self.path} cannot be written: {error}") from error
        self.thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | types.TracebackType | None) -> None:
        self.ended.set()
        self.thread.join()
        if self._is_ours():
            self.path.unlink()

    def _taken(self, owner: Owner) -> Refused:
        return Refused(
            f"{self.path.parent} is in use by process {owner.pid} on {owner.host}; wait for it or stop it "
            f"(a lease whose holder is gone is taken over by itself)"
        )

    def _remove_stale(self, stale: Owner) -> None:
        """Of all that see the same stale lease, one moves it away; a late one that moved a new one puts it back."""
        away = self.path.with_name(f".stale-{self.owner.token}")
        with suppress(FileNotFoundError):
            os.rename(self.path, away)
            moved = _read_lease(away)
            if moved is not None and moved[0].token != stale.token:
                with suppress(FileExistsError):
                    os.link(away, self.path)
            away.unlink()

    def _claim(self) -> None:
        """Make the lease, whole from its first moment; raises FileExistsError where another was first."""
        whole = self._written()
        try:
            os.link(whole, self.path)
        finally:
            whole.unlink()

    def _renew(self) -> None:
        while not self.ended.wait(self.renew_seconds):
            self.beats += 1
            with suppress(OSError):  # storage that fails for a moment is tried again at the next beat
                if self._is_ours():
                    os.replace(self._written(), self.path)

    def _is_ours(self) -> bool:
        holder = self._holder()
        return holder is not None and holder[0].token == self.owner.token

    def _written(self) -> Path:
        """A file of our own with the lease's content."""
        path = self.path.with_name(f".lease-{self.owner.token}")
        path.write_text(json.dumps({**asdict(self.owner), "beats": self.beats}), encoding="utf-8")
        return path

    def _holder(self) -> tuple[Owner, int] | None:
        return _read_lease(self.path)

    def _is_live(self, owner: Owner, beats: int) -> bool:
        if owner.host == self.owner.host:
            return _same_process(owner)
        if not owner.host:
            return False
        time.sleep(5 * self.renew_seconds)
        later = self._holder()
        return later is not None and later[0].token == owner.token and later[1] != beats


def _read_lease(path: Path) -> tuple[Owner, int] | None:
    """Whose it is, and its count; None where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Owner(values["token"], values["host"], values["pid"], values["started"]), values["beats"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Owner("unreadable", "", 0, 0.0), 0


def _same_process(owner: Owner) -> bool:
    try:
        process = psutil.Process(owner.pid)
        return process.create_time() == owner.started and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
