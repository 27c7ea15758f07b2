"""One run, one directory: its experiment, its lease, its events; created whole or not at all.

experiment.yaml   lease.json   events.jsonl   metrics.jsonl   tensorboard/   checkpoints/   logs/   data.json
"""

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_pipeline.config import BadInput, Refused
from data_pipeline.data import prepared_directories
from data_pipeline.mixture import MixtureConfig
from data_pipeline.prepared_text import PreparedText
from data_pipeline.redaction import redact_values, redacted_keys, same_but_for_secrets
from data_pipeline.shard_stamps import ShardStamps
from pretrain import config
from pretrain.checkpoint.manifest import versions
from pretrain.experiment import Experiment
from pretrain.lease import Claim as Claim

EXPERIMENT = "experiment.yaml"

TOKENIZER = "tokenizer"
"""Folder of a run directory: the tokenizer's copy, so that a run can be used without its data."""


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
        if not directory.exists():
            raise BadInput(f"{directory}: there is no such directory")
        if not directory.is_dir():
            raise BadInput(f"{directory} is a file, and no run's directory")
        raise BadInput(f"{directory} holds no run (no {EXPERIMENT} in it)")
    return config.load(Experiment, path, overrides)


def check_place(directory: Path) -> None:
    """Raise BadInput where a new run's directory is a file, or has a file where a directory must be."""
    above = next((path for path in (directory, *directory.parents) if path.exists()), None)
    if above is not None and not above.is_dir():
        what = "is a file" if above == directory else f"cannot be made: {above} is a file"
        raise BadInput(f"--run {directory} {what}; a run needs a directory of its own: choose another --run")


def check_given(experiment: Experiment, directory: Path) -> None:
    """Raise BadInput where a saved experiment has a secret left out that was not given again by an override."""
    missing = redacted_keys(experiment.model_dump(mode="json"))
    if missing:
        again = " ".join(f"{key}=..." for key in missing)
        raise BadInput(f"{directory}: {', '.join(missing)} held a secret, which is not saved; give it again: {again}")


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) of what differs, without secrets; one that was left out when saved fits any."""
    found = config.differences(redact_values(dict(saved)), redact_values(dict(now)))
    return {key: values for key, values in found.items() if not same_but_for_secrets(*values)}


def refuse_changes(saved: Mapping[str, Any], now: Mapping[str, Any], allowed: tuple[str, ...], what: str) -> None:
    """Raise Refused with the differences, unless each differing key (or a parent of it) is allowed by name."""
    changed = {
        key: values
        for key, values in changes(saved, now).items()
        if not any(key == name or key.startswith(f"{name}.") for name in allowed)
    }
    if changed:
        lines = [f"  {key}: was {old!r}, is now {new!r}" for key, (old, new) in changed.items()]
        raise Refused(
            f"the {what} has changed since this run was saved:\n"
            + "\n".join(lines)
            + f"\nundo the change, start a new run, or allow it by name: --allow {' --allow '.join(changed)}"
        )


def check_allowed(allowed: Iterable[str], *known: Mapping[str, Any]) -> None:
    """Raise BadInput, naming the nearest one, where an allowed name is no (dotted) key of these."""
    keys = sorted({key for values in known for key in _keys(values)})
    for name in allowed:
        if name not in keys:
            raise BadInput(f"--allow {name}: there is no such key{config.nearest(name, keys)}")


def _keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All dotted keys, of inner mappings too."""
    for key, value in values.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _keys(value, f"{prefix}{key}.")


def refuse_changed_shards(experiment: Experiment, directory: Path, allowed: tuple[str, ...]) -> None:
    """Raise Refused, naming each file, where shards or tars are not those that the run last started with."""
    directories = prepared_directories(experiment.data)
    known = ShardStamps.read(directory) if directories else None
    if known is not None:
        what = f"data in {', '.join(map(str, directories.values()))}"
        refuse_changes(known.hashes(), ShardStamps.take(directories, known).hashes(), allowed, what)


def keep_shard_stamps(experiment: Experiment, directory: Path) -> None:
    """Record what was prepared, where the data are such, for `refuse_changed_shards` of later starts."""
    directories = prepared_directories(experiment.data)
    if directories:
        known = ShardStamps.read(directory)
        ShardStamps.take(directories, known).write(directory)


def record_damaged_shards(experiment: Experiment, directory: Path) -> None:
    """A warning for each shard that the run leaves out, and for their number."""
    if isinstance(experiment.data, PreparedText | MixtureConfig):
        for line in experiment.data.warnings():
            record_event(directory, "warning", message=line)


def record_changes(directory: Path, step: int, saved: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """The event `changed`, where any key of the experiment is another than when the checkpoint was saved."""
    found = changes(saved, now)
    if found:
        lines = [f"{key} was {old!r}, is now {new!r}" for key, (old, new) in found.items()]
        message = f"changed since step {step} was saved: {'; '.join(lines)}"
        record_event(directory, "changed", message=message, step=step, keys=list(found))


def record_version_changes(directory: Path, saved: Mapping[str, str]) -> list[str]:
    """A line for each package of another version than the checkpoint's; recorded as one event, if there is any.

    They are no reason to refuse: the probe says whether the numbers still are the same.
    """
    found = changes(saved, versions())
    lines = [f"{name} was {old or 'not there'}, is now {new or 'not there'}" for name, (old, new) in found.items()]
    if lines:
        record_event(directory, "versions", message=f"other versions than when this was saved: {'; '.join(lines)}")
    return lines


def record_event(directory: Path, event: str, **details: Any) -> bool:
    """Append one line to events.jsonl: starts, losses of workers, resumes, ends; returns whether it could be written.

    A run goes on where it cannot: then the line goes to standard error.
    """
    row = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event, **redact_values(details)}
    path = directory / "events.jsonl"
    try:
        whole = _ends_whole(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps(row) + "\n")
    except OSError as error:
        with suppress(OSError):  # standard error may go to the same disk
            print(f"warning: {path} cannot be written ({error.strerror}): {json.dumps(row)}", file=sys.stderr)
        return False
    return True


def read_events(directory: Path) -> list[dict[str, Any]]:
    """The events so far, in their order; a line torn by a kill is left out."""
    path = directory / "events.jsonl"
    events = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(json.JSONDecodeError):
            events.append(json.loads(line))
    return events


def _ends_whole(path: Path) -> bool:
    """Whether the last line has its end; one that was torn must not take the next with it."""
    if not path.exists() or path.stat().st_size == 0:
        return True
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
