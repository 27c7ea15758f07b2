"""Names, shapes and dtypes of a checkpoint against the state of the run: what does not fit is named, on all workers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipeline.config import Refused
from pretrain.checkpoint import CheckpointReader, Piece, check_state
from tests.pretrain.checkpoint.cases import saved, together

WHOLE = {"weights/a": torch.zeros(2, 3), "exp_avg/a": torch.zeros(2, 3), "carry/m": torch.zeros(4).bool()}


def halves(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> list[Piece]:
    half = torch.Size(shape).numel() // 2
    return [Piece(name, shape, rank * half, torch.zeros(half, dtype=dtype)) for rank in range(2)]


def checked(path: Path, changes: dict[str, tuple[tuple[int, ...], torch.dtype] | None]) -> list[Any]:
    """With every tensor cut over two workers."""
    kinds = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in WHOLE.items()} | changes
    pieces = [halves(name, *kind) for name, kind in kinds.items() if kind is not None]

    def work(group: Any) -> None:
        check_state(CheckpointReader(path), [pair[group.rank] for pair in pieces], group)

    return together(2, work)


def test_the_state_that_was_saved_fits(tmp_path: Path) -> None:
    assert checked(saved(tmp_path, 1, whole=WHOLE, num_workers=3), {}) == [None, None]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weights/b": ((2,), torch.float32)}, "weights/b: the checkpoint has none"),
        ({"exp_avg/a": None}, "exp_avg/a: only the checkpoint has it"),
        ({"weights/a": ((3, 2), torch.float32)}, r"weights/a: shape \(2, 3\) in the checkpoint, \(3, 2\) in the run"),
        ({"carry/m": ((4,), torch.uint8)}, "carry/m: dtype torch.bool in the checkpoint, torch.uint8 in the run"),
    ],
)
def test_what_does_not_fit_is_named_on_all_workers(tmp_path: Path, changes: dict[str, Any], line: str) -> None:
    errors = checked(saved(tmp_path, 1, whole=WHOLE), changes)
    assert [type(error) for error in errors] == [Refused, Refused]
    assert str(errors[0]) == str(errors[1])
    with pytest.raises(Refused, match=line):
        raise errors[0]


def test_one_worker_alone_with_another_state_is_enough(tmp_path: Path) -> None:
    path = saved(tmp_path, 1, whole={"x": torch.zeros(2)})

    def work(group: Any) -> None:
        own = [Piece("x", (2,), group.rank, torch.zeros(1))]
        own += [Piece("y", (1,), 0, torch.zeros(1))] if group.rank == 1 else []
        check_state(CheckpointReader(path), own, group)

    assert [type(error) for error in together(2, work)] == [Refused, Refused]
