"""`data verify`: every file read, every hash compared."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from cluster.data_verbs.target import Target
from cluster.tables import bytes_text
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.verification import Checked, num_bytes, verify

SET_ASIDE = ".damaged"


@dataclass(slots=True)
class Found:
    """What was read."""

    files: int = 0
    num_bytes: int = 0
    damaged: list[Checked] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    def to_json(self, target: Target) -> dict[str, Any]:
        return {
            "target": target.name,
            "directories": {name or "data": str(path) for name, path in target.directories().items()},
            "files": self.files,
            "bytes": self.num_bytes,
            "damaged": [{"path": str(one.path), "problem": str(one.problem)} for one in self.damaged],
            "set_aside": self.set_aside,
        }


def verify_target(target: Target, *, set_aside: bool, as_json: bool, console: Console) -> None:
    """Print what was found; raises Corrupt at the end, with every file that is damaged.

    With `set_aside` those that could be read are renamed, so that `prepare` makes them anew, and `data.damaged=skip`
    leaves them out.
    """
    found = Found()
    directories = target.directories()
    with _shown(num_bytes(directories), console, hidden=as_json) as show:

        def see(count: int) -> None:
            found.num_bytes += count
            show(count)

        for checked in (one for directory in directories.values() for one in verify(directory, see=see)):
            found.files += 1
            if checked.problem is not None:
                found.damaged.append(checked)
    if set_aside:
        found.set_aside = [str(_set_aside(one.path)) for one in found.damaged if _is_to_be_made_anew(one)]
    if as_json:
        print(json.dumps(found.to_json(target), indent=2))
    elif not found.damaged:
        console.print(
            f"{target.name}: {found.files:,} files, {bytes_text(found.num_bytes)}: every byte is as it was written",
            soft_wrap=True, highlight=False,
        )  # fmt: skip
    if found.damaged:
        lines = [
            f"{len(found.damaged)} of {found.files} files are damaged:",
            *(str(one.problem) for one in found.damaged),
        ]
        lines += [f"set aside as {path}" for path in found.set_aside]
        raise Corrupt("\n".join(lines))


def _is_to_be_made_anew(checked: Checked) -> bool:
    """Not a shard that could not be read, which may be whole."""
    problem = checked.problem
    return problem is not None and problem.kind == "damage" and checked.path.suffix in (".npy", ".tar")


def _set_aside(path: Path) -> Path:
    aside = path.with_name(path.name + SET_ASIDE)
    try:
        os.replace(path, aside)
    except OSError as error:
        raise BadInput(f"--set-aside: {path} cannot be renamed: {error.strerror}") from error
    return aside


@contextmanager
def _shown(total: int, console: Console, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A bar of bytes, where there is a terminal; to be told of each part that is read."""
    columns = (TextColumn("verify"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as bar:
        task = bar.add_task("verify", total=total)
        yield lambda count: bar.advance(task, count)
