"""The picture shows what it is given: darkness where weights are, the line at the reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.image import imread

from data_pipeline.config import BadInput
from evals.pictures.alignment import read_path, write_alignment


def picture(path: Path, weights: list[list[float]], reads: tuple[int, ...]) -> np.ndarray:
    """[height, width, 3 colours] from 0 to 1."""
    sources, targets = [f"s{j}" for j in range(len(weights[0]))], [f"t{i}" for i in range(len(weights))]
    write_alignment(torch.tensor(weights), sources=sources, targets=targets, reads=reads, path=path)
    image: np.ndarray = imread(path)[..., :3]
    return image


def test_what_was_read_is_dark_and_where_is_seen(tmp_path: Path) -> None:
    one = picture(tmp_path / "deep" / "one.png", [[1.0, 0.0], [0.0, 1.0]], (1, 2))
    none = picture(tmp_path / "none.png", [[0.0, 0.0], [0.0, 0.0]], (1, 2))
    other = picture(tmp_path / "other.png", [[0.0, 1.0], [1.0, 0.0]], (1, 2))
    assert one.shape == none.shape == other.shape
    darker_HW = (none - one).sum(-1) > 1.5
    rows_N, columns_N = np.nonzero(darker_HW)
    middle_row, middle_column = (rows_N.min() + rows_N.max()) / 2, (columns_N.min() + columns_N.max()) / 2
    above, left = rows_N < middle_row - 3, columns_N < middle_column - 3
    edge = (abs(rows_N - middle_row) < 4) | (abs(columns_N - middle_column) < 4)
    assert (above == left)[~edge].all(), "the first target read the first source, the second the second"
    assert ((none - other).sum(-1) > 1.5)[rows_N, columns_N].mean() < 0.1


def test_the_line_is_where_the_source_had_been_read_to(tmp_path: Path) -> None:
    assert read_path((2, 2, 4)) == ([1.5, 1.5, 1.5, 1.5, 3.5, 3.5], [-0.5, 0.5, 0.5, 1.5, 1.5, 2.5])
    zero = [[0.0] * 4] * 3
    early, late = (picture(tmp_path / f"{reads[0]}.png", zero, reads) for reads in ((1, 1, 1), (3, 3, 3)))
    red_columns = [np.nonzero((image[..., 0] - image[..., 1] > 0.4).any(0))[0].mean() for image in (early, late)]
    assert red_columns[0] < red_columns[1] - 20


def test_axes_say_what_they_are_and_tokens_are_no_mathematics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of dollars would be read as a formula, and this one fail."""
    drawn: list[Figure] = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda figure, *args, **kw: (drawn.append(figure), save(figure, *args, **kw))
    )
    write_alignment(
        torch.eye(2), sources=["$\\no$", "b"], targets=["c", "$\\no$"], reads=(1, 2), path=tmp_path / "x.png"
    )
    (axes,) = drawn[0].axes
    assert axes.get_xlabel().startswith("source")
    assert axes.get_ylabel() == "target"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["$\\no$", "b"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["c", "$\\no$"]


@pytest.mark.parametrize(("shape", "reads"), [((2, 3), (1,)), ((1, 3), (1, 2)), ((0, 3), ())])
def test_sizes_must_fit(tmp_path: Path, shape: tuple[int, int], reads: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="a row and a read for each target"):
        write_alignment(
            torch.zeros(shape), sources=["a"] * 3, targets=["b"] * shape[0] if shape[0] != 1 else ["b", "c"],
            reads=reads, path=tmp_path / "x.png",
        )  # fmt: skip


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        picture(tmp_path / "file" / "x.png", [[1.0]], (1,))
