"""Checkpoints at the command line: which there are, are they whole, are two equal; what stays, what goes out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.table import Table

from cluster.tables import bytes_text, table
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, VOCABULARY_FILE
from evals.checkpointed import open_checkpoint
from pretrain import checkpoint
from pretrain.checkpoint.layout import MANIFEST
from pretrain.run_directory import EXPERIMENT, TOKENIZER

SHOWN = 10
"""Of the tensors that differ."""


def checkpoints_table(directory: Path) -> Table:
    """All checkpoints of a run."""
    found, newest = checkpoint.list_checkpoints(existing(directory)), checkpoint.latest(directory)
    if not found and not (directory / EXPERIMENT).is_file():
        raise BadInput(f"{directory} holds no run (no {EXPERIMENT} in it) and no checkpoints")
    made = table(str(directory), "step>", "size>", "workers>", "saved (UTC)", "kind", "notes")
    for info in found:
        saved = info.created.strftime("%Y-%m-%d %H:%M:%S") if info.created else ""
        kind = "" if info.problem else "temporary" if info.temporary else "permanent"
        notes = "; ".join(_notes(info, info.path == newest))
        made.add_row(str(info.step), bytes_text(info.bytes), str(info.num_workers or ""), saved, kind, notes)
    return made


def _notes(info: checkpoint.CheckpointInfo, newest: bool) -> Iterator[str]:
    if newest:
        yield "newest"
    if info.pinned is not None:
        yield "pinned" + (f": {info.pinned}" if info.pinned else "")
    if info.held_by:
        yield f"read by {', '.join(info.held_by)}"
    if info.problem:
        yield info.problem


def existing(directory: Path) -> Path:
    """The directory; raises BadInput where there is none."""
    if not directory.is_dir():
        raise BadInput(f"{directory}: there is no such directory")
    return directory


def verify(directory: Path) -> Iterator[str]:
    """A line for each checkpoint of a run that is whole (or for one by its own directory), as they are read; raises
    Corrupt at the end with all that is wrong with the others."""
    alone = (existing(directory) / MANIFEST).is_file()
    paths = [directory] if alone else [info.path for info in checkpoint.list_checkpoints(directory)]
    if not paths:
        raise BadInput(f"{directory} has no checkpoint")
    problems = []
    for path in paths:
        with checkpoint.held(path):
            found = checkpoint.verify(path)
        if found:
            problems += [f"{path} is damaged:", *found]
        else:
            yield f"{path}: every byte is as it was written"
    if problems:
        raise Corrupt("\n".join(problems))


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
    """A run's newest good checkpoint, or the one whose own directory this is; held against retention."""
    return (
        checkpoint.CheckpointReader(path, hold=True) if (path / MANIFEST).is_file() else open_checkpoint(existing(path))
    )


@contextmanager
def _written_to(directory: Path) -> Iterator[None]:
    """Raises BadInput where the storage takes no changes."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{directory} cannot be changed: {error}") from error


def pin(directory: Path, step: int, note: str) -> str:
    """Keep a checkpoint until it is unpinned; what to say of it."""
    with _written_to(existing(directory)):
        place = checkpoint.pin(directory, step, note=note)
    return f"{place.name} is pinned: it stays until `checkpoints unpin {directory} {step}`"


def unpin(directory: Path, step: int) -> str:
    """Leave a checkpoint to retention again; what to say of it."""
    with _written_to(existing(directory)):
        checkpoint.unpin(directory, step)
    return f"checkpoint {step} is no longer pinned"


def prune(directory: Path, keep: int, dry_run: bool) -> Iterator[str]:
    """A line for each checkpoint that was (or would be) removed, or that is damaged or spared."""
    if keep < 1:
        raise BadInput(f"--keep {keep}: at least one checkpoint has to stay")
    if not checkpoint.list_checkpoints(existing(directory)):
        raise BadInput(f"{directory} has no checkpoint")
    with _written_to(directory):
        found = checkpoint.prune(directory, keep=keep, dry_run=dry_run)
    for place, problem in found.damaged.items():
        yield f"{place.name}: damaged, counts as none: {problem}"
    for place, reason in found.spared.items():
        yield f"{place.name}: stays, {reason}"
    for place in found.removed:
        yield f"{place.name}: {'would be removed' if dry_run else 'removed'}"
    if not found.removed:
        yield "nothing to remove"


def export(directory: Path, file: Path, step: int | None, dtype: str) -> str:
    """Write the weights, and the run's tokenizer, to one safetensors file; what to say of it."""
    reader = open_checkpoint(existing(directory), step)
    kept = directory / TOKENIZER
    try:
        words = {name: (kept / name).read_text("utf-8") for name in (VOCABULARY_FILE, SETTINGS_FILE) if kept.is_dir()}
        num_bytes = checkpoint.export_weights(reader, file, dtype=getattr(torch, dtype), more=words)
    finally:
        reader.close()
    return f"{file}: weights of step {reader.step} as {dtype}, {bytes_text(num_bytes)}"
