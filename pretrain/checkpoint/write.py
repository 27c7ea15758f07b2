"""Saving: all workers write their pieces, and either the whole checkpoint comes to be or nothing changes.

The order is what makes it safe against a crash at any moment: worker files, manifest, rename, pointer, each on the
disk before the next is begun. Once the pointer has moved the checkpoint is saved, whatever happens later. Only then
checkpoints that this one replaces or outdates are removed.

Workers meet after each stage and tell whether they failed, so that all raise the same error and none waits for one
that gave up. Everything here runs on the given group only: a save in the background takes a group of its own.
"""

import math
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

from data_pipeline.config import Refused
from pretrain.checkpoint.dtypes import dtype_name
from pretrain.checkpoint.durable import create_directory, move_directory, remove, replace_file
from pretrain.checkpoint.holds import Holds
from pretrain.checkpoint.layout import MANIFEST, Place, checkpoints_of, leftovers, places, worker_file
from pretrain.checkpoint.manifest import (
    TENSOR_NAME_PATTERN,
    Description,
    Manifest,
    Row,
    StoredTensor,
    tiling_problems,
    versions,
)
from pretrain.checkpoint.phases import NotSaved, Phase
from pretrain.checkpoint.piece import Piece
from pretrain.checkpoint.pointer import move_pointer
from pretrain.checkpoint.retention import put_back, remove_replaced, retain
from pretrain.checkpoint.space import check_space
from pretrain.checkpoint.worker_file import Written, file_size, write_worker_file
from pretrain.group import Group

T = TypeVar("T")


def save(
    run: Path,
    *,
    step: int,
    pieces: Iterable[Piece],
    description: Description,
    group: Group,
    keep: int | None = None,
    temporary: bool = False,
    holds: Holds | None = None,
    phase: Callable[[Phase], None] = lambda _: None,
    before_move: Callable[[], None] = lambda: None,
    saved: Callable[[Path], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Path:
    """Save a checkpoint of the run; called by every worker with the pieces that it owns, returns its directory.

    Over all workers, the pieces of a name must cover its tensor exactly once. A checkpoint of the same step stays
    until the new one is complete and pointed at; then `retain` removes what the new one outdates.
    `before_move` is called directly before each of the two moves by which it comes to be, and may raise to prevent
    them; `saved` once the pointer has moved, and `warn` with what failed after that: both on the leader alone.
    Raises, the same on every worker, NotSaved if any failed, and Refused if the leader was refused to write.
    """
    held = _agreed(group, lambda: _checked(pieces))
    num_bytes = sum(group.gather_to_leader(_space_for(held)))
    room = _agreed(group, lambda: _make_room(run, step=step, num_bytes=num_bytes) if group.leads else None)
    place, partial_name = group.tell(room)
    partial, path = checkpoints_of(run) / partial_name, checkpoints_of(run) / place.name

    def commit() -> None:
        if group.leads:
            manifest = _manifest(place.step, shares, description, temporary=temporary)
            _commit(run, place, partial, manifest, phase=phase, before_move=before_move)
            saved(path)

    try:
        own = _agreed(group, lambda: _write_own(partial / worker_file(group.rank), held, phase=phase))
        shares = group.gather_to_leader(own)
        _agreed(group, commit)
    except BaseException:
        if group.leads:
            remove(partial)
        raise
    if group.leads:
        _remove_older(run, place, keep, holds or Holds(run), phase=phase, warn=warn)
    return path


def _agreed(group: Group, work: Callable[[], T]) -> T:
    """What the work returned on this worker, once it succeeded on all; raises NotSaved on all if it failed on any, and
    Refused on all if it was refused on the leader, who alone is asked whether the run still is this job's."""
    error: BaseException | None = None
    try:
        result = work()
    except BaseException as raised:  # also an interrupt: the others must hear of it before this worker leaves
        error = raised
    failures = group.agree(error)
    if error is not None and not isinstance(error, Exception):
        raise error
    if failures:
        refusal = group.tell(str(error) if isinstance(error, Refused) else None)
        if refusal is not None:
            raise Refused(refusal) from error
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
    put_back(run)
    remove_replaced(run)
    check_space(run, num_bytes)
    taken = [place.revision for place in places(run) if place.step == step]
    place = Place(step, revision=max(taken, default=-1) + 1)
    partial_name = place.partial_name()
    (checkpoints_of(run) / partial_name).mkdir()
    return place, partial_name


class _Share(NamedTuple):
    """What one worker wrote."""

    length: int
    """Of its file, in bytes."""
    tensors: dict[str, Written]


def _write_own(path: Path, held: list[Piece], *, phase: Callable[[Phase], None]) -> _Share:
    phase("directory made")
    try:
        tensors = write_worker_file(path, held, after_block=lambda: phase("block written"))
    except OSError as error:
        raise OSError(f"{path}: {error.strerror or error}") from error
    phase("pieces written")
    return _Share(length=path.stat().st_size, tensors=tensors)


def _manifest(step: int, shares: list[_Share], description: Description, *, temporary: bool) -> Manifest:
    """Raises ValueError unless the pieces cover every tensor exactly once."""
    manifest = Manifest(
        step=step,
        temporary=temporary,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        num_workers=len(shares),
        versions=versions(),
        files={worker_file(rank): share.length for rank, share in enumerate(shares)},
        tensors=_merged([share.tensors for share in shares]),
        **dict(description),
    )
    problems = tiling_problems(manifest.tensors, manifest.files)
    if problems:
        raise ValueError("; ".join(problems))
    return manifest


def _commit(
    run: Path,
    place: Place,
    partial: Path,
    manifest: Manifest,
    *,
    phase: Callable[[Phase], None],
    before_move: Callable[[], None],
) -> None:
    problems = manifest.file_problems(partial)
    if problems:
        raise ValueError("; ".join(problems.values()))
    replace_file(partial / MANIFEST, manifest.encode())
    phase("manifest written")
    move_directory(partial, checkpoints_of(run) / place.name, before_move=before_move)
    phase("renamed")
    move_pointer(run, place, before_move=before_move)


def _merged(shares: list[dict[str, Written]]) -> dict[str, StoredTensor]:
    """Every tensor with the pieces that all workers hold of it."""
    first: dict[str, Written] = {}
    rows: dict[str, list[Row]] = {}
    for rank, share in enumerate(shares):
        for name, written in share.items():
            other = first.setdefault(name, written)
            if (written.shape, written.dtype) != (other.shape, other.dtype):
                raise ValueError(
                    f"{name}: {written.dtype} of shape {written.shape} on worker {rank}, "
                    f"but {other.dtype} of shape {other.shape} on one before it"
                )
            rows.setdefault(name, []).extend((rank, *block) for block in written.blocks)
    return {
        name: StoredTensor(shape=first[name].shape, dtype=first[name].dtype, rows=tuple(sorted(found, key=_start)))
        for name, found in sorted(rows.items())
    }


def _start(row: Row) -> int:
    return row[1]


def _remove_older(
    run: Path,
    place: Place,
    keep: int | None,
    holds: Holds,
    *,
    phase: Callable[[Phase], None],
    warn: Callable[[str], None],
) -> None:
    """What cannot be removed now is no reason to fail: this checkpoint is saved, and the next save tries again."""
    try:
        phase("pointer moved")
        remove_replaced(run, holds)
        retain(run, keep=keep, holds=holds)
        phase("older removed")
    except Exception as error:
        warn(f"{place.name} is saved, but not all that it outdates is removed: {type(error).__name__}: {error}")
