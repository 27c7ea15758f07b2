"""Saving: all workers write their pieces, and either the whole checkpoint comes to be or nothing changes.

The order is what makes it safe against a crash at any moment: worker files, manifest, rename, pointer, each on the
disk before the next is begun. Only then checkpoints that this one replaces or outdates are removed.

Workers meet after each stage and tell whether they failed, so that all raise the same error and none waits for one
that gave up. Everything here runs on the given group only: a save in the background takes a group of its own.
"""

import math
import re
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from data_pipeline.config import SegueError
from pretrain.checkpoint.dtypes import dtype_name
from pretrain.checkpoint.durable import create_directory, move_directory, remove, replace_file
from pretrain.checkpoint.layout import MANIFEST, Place, checkpoints_of, leftovers, places, worker_file
from pretrain.checkpoint.manifest import (
    TENSOR_NAME_PATTERN,
    Description,
    Manifest,
    StoredTensor,
    tiling_problems,
    versions,
)
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.pointer import move_pointer
from pretrain.checkpoint.retention import remove_replaced, retain
from pretrain.checkpoint.worker_file import file_size, write_worker_file
from pretrain.group import Group

Phase = Literal[
    "directory made",
    "block written",
    "pieces written",
    "manifest written",
    "renamed",
    "pointer moved",
    "older removed",
]
"""The moments between which a save can be cut off: the first three on every worker, the others on the leader."""

T = TypeVar("T")


class NotSaved(SegueError):
    """Exit code 6: a checkpoint could not be written; the one before is untouched and still the latest."""

    exit_code = 6


def save(
    run: Path,
    *,
    step: int,
    pieces: Iterable[Piece],
    description: Description,
    group: Group,
    keep: int | None = None,
    phase: Callable[[Phase], None] = lambda _: None,
) -> Path:
    """Save a checkpoint of the run; called by every worker with the pieces that it owns, returns its directory.

    Over all workers, the pieces of a name must cover its tensor exactly once. A checkpoint of the same step stays
    until the new one is complete and pointed at; then all but the newest `keep` are removed (None: no other is).
    Raises NotSaved, the same on every worker, if any failed.
    """
    held = _agreed(group, lambda: _checked(pieces))
    num_bytes = sum(group.gather(_space_for(held)))
    room = _agreed(group, lambda: _make_room(run, step=step, num_bytes=num_bytes) if group.leads else None)
    place, partial_name = group.gather(room)[0]
    partial = checkpoints_of(run) / partial_name

    def commit() -> None:
        if group.leads:
            _commit(run, place, partial, shares=shares, description=description, phase=phase)

    try:
        own = _agreed(group, lambda: _write_own(partial / worker_file(group.rank), held, phase=phase))
        shares = group.gather(own)
        _agreed(group, commit)
    except BaseException:
        if group.leads:
            remove(partial)
        raise
    if group.leads:
        _remove_older(run, keep)
        phase("older removed")
    path: Path = checkpoints_of(run) / place.name
    return path


def check_space(run: Path, num_bytes: int) -> None:
    """Raise NotSaved unless a checkpoint of that many bytes fits on the disk that the run's checkpoints lie on."""
    folder = checkpoints_of(run)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if num_bytes > free:
        raise NotSaved(
            f"a checkpoint needs {num_bytes:,} bytes in {folder}, where {free:,} bytes are free; "
            f"free {num_bytes - free:,} bytes, or keep fewer checkpoints"
        )


def _agreed(group: Group, work: Callable[[], T]) -> T:
    """What the work returned on this worker, once it succeeded on all; raises NotSaved on all if it failed on any."""
    error: BaseException | None = None
    try:
        result = work()
    except BaseException as raised:  # also an interrupt: the others must hear of it before this worker leaves
        error = raised
    failures = group.agree(error)
    if error is not None and not isinstance(error, Exception):
        raise error
    if failures:
        raise NotSaved("checkpoint not saved: " + "; ".join(failures)) from error
    return result


def _checked(pieces: Iterable[Piece]) -> list[Piece]:
    held = list(pieces)
    for piece in held:
        end, whole = piece.start + piece.tensor.numel(), math.prod(piece.shape)
        if not re.fullmatch(TENSOR_NAME_PATTERN, piece.name):
            raise ValueError(f"tensor name {piece.name!r}: only letters, digits and _ . / - can be stored")
        if piece.start < 0 or end > whole:
            raise ValueError(f"{piece.name}: elements {piece.start}:{end} are not all in a tensor of {whole}")
        dtype_name(piece.tensor.dtype)
    return held


def _space_for(held: list[Piece]) -> int:
    """For this worker's file and its lines in the manifest, generously."""
    return file_size(held) + 2**16 + 1024 * len(held)


def _make_room(run: Path, *, step: int, num_bytes: int) -> tuple[Place, str]:
    """Sweep what earlier saves left, then make the directory to write in; where it goes, and its name until then."""
    create_directory(checkpoints_of(run))
    for path in leftovers(run):
        remove(path)
    remove_replaced(run)
    check_space(run, num_bytes)
    taken = [place.revision for place in places(run) if place.step == step]
    place = Place(step, revision=max(taken, default=-1) + 1)
    partial_name = place.partial_name()
    (checkpoints_of(run) / partial_name).mkdir()
    return place, partial_name


@dataclass(frozen=True, slots=True)
class _Share:
    """What one worker wrote."""

    file: str
    length: int
    tensors: dict[str, StoredTensor]


def _write_own(path: Path, held: list[Piece], *, phase: Callable[[Phase], None]) -> _Share:
    phase("directory made")
    try:
        tensors = write_worker_file(path, held, after_block=lambda: phase("block written"))
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error
    phase("pieces written")
    return _Share(file=path.name, length=path.stat().st_size, tensors=tensors)


def _commit(
    run: Path,
    place: Place,
    partial: Path,
    *,
    shares: list[_Share],
    description: Description,
    phase: Callable[[Phase], None],
) -> None:
    manifest = Manifest(
        step=place.step,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        num_workers=len(shares),
        versions=versions(),
        files={share.file: share.length for share in shares},
        tensors=_merged([share.tensors for share in shares]),
        **dict(description),
    )
    problems = tiling_problems(manifest.tensors, manifest.files)
    problems += manifest.file_problems(partial).values()
    if problems:
        raise ValueError("; ".join(problems))
    replace_file(partial / MANIFEST, manifest.encode())
    phase("manifest written")
    move_directory(partial, checkpoints_of(run) / place.name)
    phase("renamed")
    move_pointer(run, place)
    phase("pointer moved")


def _merged(shares: list[dict[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Every tensor with the pieces that all workers hold of it."""
    merged: dict[str, StoredTensor] = {}
    for rank, share in enumerate(shares):
        for name, tensor in share.items():
            other = merged.setdefault(name, tensor.model_copy(update={"pieces": ()}))
            if (tensor.shape, tensor.dtype) != (other.shape, other.dtype):
                raise ValueError(
                    f"{name}: {tensor.dtype} of shape {tensor.shape} on worker {rank}, "
                    f"but {other.dtype} of shape {other.shape} on one before it"
                )
            merged[name] = other.model_copy(update={"pieces": other.pieces + tensor.pieces})
    return {
        name: tensor.model_copy(update={"pieces": tuple(sorted(tensor.pieces, key=lambda piece: piece.start))})
        for name, tensor in sorted(merged.items())
    }


def _remove_older(run: Path, keep: int | None) -> None:
    """What cannot be removed now is no reason to fail: this checkpoint is saved, and the next save tries again."""
    with suppress(OSError):
        remove_replaced(run)
        if keep is not None:
            retain(run, keep=keep)
