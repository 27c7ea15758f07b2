"""Loading: any flat range of any tensor, from as few bytes as it takes, each verified before it is handed out."""

import contextlib
import weakref
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from data_pipeline.config import Corrupt
from pretrain.checkpoint.dtypes import DTYPES
from pretrain.checkpoint.holds import Hold
from pretrain.checkpoint.layout import Place, checkpoints_of, places, pointer_of
from pretrain.checkpoint.manifest import Manifest, StoredPiece, StoredTensor, read_complete
from pretrain.checkpoint.pointer import pointed_place
from pretrain.checkpoint.verified import VerifiedPieces
from pretrain.group import Group

ALONE = Group()
SHOWN_PROBLEMS = 5
"""Of one checkpoint."""


class CheckpointReader:
    """Random access to one checkpoint, whose files are mapped into memory; a `Reader`.

    Raises Corrupt, naming file and piece, at once where the manifest is damaged or a file missing or of another
    length, and on the first read of a piece whose bytes are not the ones written.
    """

    def __init__(self, path: Path, *, hold: bool = False) -> None:
        """`hold`: retention lets the checkpoint be until `close`, or until this reader or its process is gone."""
        self.path = path
        self._release: Callable[[], object] = weakref.finalize(self, Hold(path).release) if hold else lambda: None
        try:
            self.manifest: Manifest = read_complete(path)
        except BaseException:
            self._release()
            raise
        self.stored = VerifiedPieces(path, self.manifest)

    @property
    def step(self) -> int:
        return self.manifest.step

    def names(self) -> frozenset[str]:
        return frozenset(self.manifest.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the whole tensor; raises Corrupt naming it where the checkpoint has none such."""
        return self._tensor(name).shape

    def dtype(self, name: str) -> torch.dtype:
        """That the tensor was saved in; raises Corrupt naming it where the checkpoint has none such."""
        return DTYPES[self._tensor(name).dtype]

    def read(self, name: str, start: int, count: int) -> Tensor:
        """[count] flat elements, on the CPU in the dtype they were saved in, verified against their hashes."""
        tensor = self._tensor(name)
        end = start + count
        if start < 0 or count < 0 or end > tensor.count:
            raise ValueError(f"{name}: elements {start}:{end} are not all in a tensor of {tensor.count}")
        result = torch.empty(count, dtype=DTYPES[tensor.dtype])
        for piece in _touched(tensor, start, end):
            first, last = max(start, piece.start), min(end, piece.end)
            content = self.stored.content(name, piece)
            result[first - start : last - start] = content[first - piece.start : last - piece.start]
        return result

    def close(self) -> None:
        """Let go of the files and of the hold; the next read opens the files again."""
        self.stored.close()
        self._release()

    def _tensor(self, name: str) -> StoredTensor:
        try:
            return self.manifest.tensors[name]
        except KeyError:
            raise Corrupt(f"{self.path}: has no tensor {name}") from None


def _touched(tensor: StoredTensor, start: int, end: int) -> Iterator[StoredPiece]:
    """The pieces with elements of `start : end`, in order."""
    index = bisect_right(tensor.pieces, start, key=lambda piece: piece.start) - 1
    while start < end:
        yield tensor.pieces[index]
        start = tensor.pieces[index].end
        index += 1


def verify(path: Path) -> list[str]:
    """All that is wrong with a checkpoint, naming file and piece; reads every byte of it."""
    try:
        manifest = Manifest.read(path)
    except Corrupt as error:
        return [str(error)]
    bad_files = manifest.file_problems(path)
    stored = VerifiedPieces(path, manifest)
    readable = [(name, piece) for name, piece in stored if piece.file not in bad_files]
    return [*bad_files.values(), *stored.problems(readable)]


def latest(run: Path) -> Path | None:
    """The checkpoint to go on from by pointer and lengths alone: `newest_good` without reading the tensors."""
    for place in newest_first(run, log=lambda _: None):
        path = checkpoints_of(run) / place.name
        with contextlib.suppress(Corrupt):
            read_complete(path)
            return path
    return None


def newest_good(
    run: Path, *, log: Callable[[str], None], group: Group = ALONE, hold: bool = False
) -> CheckpointReader | None:
    """The newest checkpoint of which every byte is as it was written; None where the run has no checkpoint at all.

    Called by every worker of the group: each verifies a share of the pieces, and all come to the same checkpoint. `log`
    is told on the leader which were passed over, and why. `hold`: as of `CheckpointReader`, from before it is examined.
    Raises Corrupt on all where there are only damaged ones.
    """
    reader = next(good_checkpoints(run, log=log, group=group, hold=hold), None)
    if reader is None and (damaged := ", ".join(place.name for place in reversed(places(run)))):
        raise Corrupt(f"{checkpoints_of(run)}: no good checkpoint is left; damaged: {damaged}")
    return reader


def good_checkpoints(
    run: Path,
    *,
    log: Callable[[str], None],
    group: Group = ALONE,
    hold: bool = False,
    is_wanted: Callable[[Manifest], bool] = lambda _: True,
) -> Iterator[CheckpointReader]:
    """The checkpoints of which every byte is as it was written, newest first, each examined when it is asked for.

    Called by every worker of the group alike; each verifies a share of the pieces. Of one that is not wanted only the
    manifest is read.
    """
    candidates: list[Place] = group.tell(newest_first(run, log=log) if group.leads else None)
    for place in candidates:
        path = checkpoints_of(run) / place.name
        reader, problems = _examine(path, group, hold=hold, is_wanted=is_wanted)
        if reader is not None and not problems and is_wanted(reader.manifest):
            yield reader
            continue
        if reader is not None:
            reader.close()
        if problems and group.leads:
            more = [f"and {len(problems) - SHOWN_PROBLEMS} more"] if len(problems) > SHOWN_PROBLEMS else []
            said = "; ".join([*problems[:SHOWN_PROBLEMS], *more])
            log(f"{path.name} is damaged, going back to the checkpoint before: {said}")


def newest_first(run: Path, *, log: Callable[[str], None]) -> list[Place]:
    """In which order to try the run's checkpoints.

    First the one that the pointer names, then those of earlier steps, backward; those of later steps come last, for
    they belong to a course that the run left by going back (or their save was cut off before its last move).
    """
    backward = places(run)[::-1]
    try:
        pointed = pointed_place(run)
    except Corrupt as error:
        log(f"going by the steps of the checkpoints: {error}")
        return backward
    if pointed is None:
        return backward
    if pointed not in backward:
        log(f"going by the steps of the checkpoints: {pointer_of(run)} names {pointed.name}, which is not there")
        return backward
    return [*(place for place in backward if place <= pointed), *(place for place in backward if place > pointed)]


def _examine(
    path: Path, group: Group, *, hold: bool, is_wanted: Callable[[Manifest], bool]
) -> tuple[CheckpointReader | None, list[str]]:
    """The checkpoint, and what all workers found wrong with it, each looking at its share of the pieces."""
    reader, problems, error = None, [], None
    try:
        reader = CheckpointReader(path, hold=hold)
        if is_wanted(reader.manifest):
            problems = reader.stored.problems(list(reader.stored)[group.rank :: group.world_size])
    except Corrupt as damage:
        problems = [str(damage)]
    except Exception as raised:  # the other workers must hear of it before this one leaves
        error = raised
    failures = group.agree(error)
    if error is not None:
        raise error
    if failures:
        raise Corrupt(f"{path}: cannot be examined: {'; '.join(failures)}")
    found = [problem for share in group.gather(problems) for problem in share]
    return reader, list(dict.fromkeys(found))
