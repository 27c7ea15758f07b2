"""Looking at checkpoints: are they whole, are two of them equal."""

from pathlib import Path

from rich.table import Table

from cluster.tables import bytes_text, table
from data_pipeline.config import BadInput, Corrupt
from evals.checkpointed import open_checkpoint
from pretrain import checkpoint
from pretrain.checkpoint.layout import MANIFEST
from pretrain.run_directory import EXPERIMENT

SHOWN = 10
"""Of the tensors that differ."""


def checkpoints_table(directory: Path) -> Table:
    """All checkpoints of a run."""
    found, newest = checkpoint.list_checkpoints(existing(directory)), checkpoint.latest(directory)
    if not found and not (directory / EXPERIMENT).is_file():
        raise BadInput(f"{directory} holds no run (no {EXPERIMENT} in it) and no checkpoints")
    made = table(str(directory), "step>", "size>", "workers>", "saved (UTC)", "")
    for info in found:
        note = info.problem or ("newest" if info.path == newest else "")
        saved = info.created.strftime("%Y-%m-%d %H:%M:%S") if info.created else ""
        made.add_row(str(info.step), bytes_text(info.bytes), str(info.num_workers or ""), saved, note)
    return made


def existing(directory: Path) -> Path:
    """The directory; raises BadInput where there is none."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such directory")
    return directory


def verify(directory: Path) -> list[str]:
    """A line for each checkpoint of a run, or for one by its own directory; raises Corrupt with all that is wrong."""
    alone = (existing(directory) / MANIFEST).is_file()
    paths = [directory] if alone else [info.path for info in checkpoint.list_checkpoints(directory)]
    if not paths:
        raise BadInput(f"{directory} has no checkpoint")
    problems = [problem for path in paths for problem in checkpoint.verify(path)]
    if problems:
        raise Corrupt("\n".join(problems))
    return [f"{path}: every byte is as it was written" for path in paths]


def compare(a: Path, b: Path) -> tuple[bool, list[str]]:
    """Whether the checkpoints are equal in every bit, and what to say of it."""
    first, second = _open(a), _open(b)
    found = checkpoint.compare(first, second)
    if found.equal:
        return True, [f"equal in every bit: {len(found.tensors)} tensors of {first.path} and {second.path}"]
    differences = found.differences
    more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
    return False, [f"different: {first.path} and {second.path}", *differences[:SHOWN], *more]


def _open(path: Path) -> checkpoint.CheckpointReader:
    """A run's newest good checkpoint, or the one whose own directory this is."""
    return checkpoint.CheckpointReader(path) if (path / MANIFEST).is_file() else open_checkpoint(existing(path))
