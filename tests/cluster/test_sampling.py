"""What `sample` and `report` write, and what they refuse before anything is written."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cluster import report
from cluster.report import PAGE, write_report
from cluster.sampling import refuse_given, sample_vectors, write_vectors
from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from data_pipeline.points import EightGaussiansConfig
from data_pipeline.vector_data import Values, VectorData
from pretrain.group import Group
from pretrain.saving import save
from tests.evals.runs import finished_run

POINTS = EightGaussiansConfig(kind="eight_gaussians", num_points=10, num_held_out=10)
DIGITS = DigitsConfig(kind="digits")


class Rows(VectorData):
    """Of five numbers that are no picture."""

    kind: str = "rows"

    @property
    def shape(self) -> tuple[int, ...]:
        return (5,)

    @property
    def values(self) -> Values:
        return "real"

    def _vectors(self, split: str) -> Any:
        raise AssertionError(split)


def test_the_values_stand_beside_the_picture(tmp_path: Path) -> None:
    write_vectors(torch.rand(3, 64), tmp_path / "new" / "a.png", DIGITS)
    assert np.load(tmp_path / "new" / "a.npy").shape == (3, 64)
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("values_ND", "name", "data", "message"),
    [
        (torch.rand(3, 64), "a.npy", DIGITS, r"a.npy: is where the values go, beside the picture; name that, as a.png"),
        (torch.rand(3, 64), "a.jpg", DIGITS, r"a.jpg: pictures are PNG; name it a.png"),
        (torch.rand(3, 5), "a.png", Rows(), r"rows of shape \[5\] are no images, points or waves"),
        (torch.full((3, 2), torch.nan), "a.png", POINTS, r"3 of 3 samples hold numbers that are not finite"),
        (torch.tensor([[0.0, torch.inf], [0.0, 0.0]]), "a.png", POINTS, r"1 of 2 samples hold numbers that are not"),
    ],
)
def test_what_cannot_be_shown_is_refused_before_anything_is_written(
    values_ND: Tensor, name: str, data: VectorData, message: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput, match=message):
        write_vectors(values_ND, tmp_path / "new" / name, data)
    assert not list(tmp_path.iterdir())


def test_samples_of_a_class(tmp_path: Path) -> None:
    """Of a model that is told classes, which differ: by the same seed another class is another draw."""
    classes = ("model.classes=10", "optimizer.learning_rate=0.1")
    finished_run(tmp_path / "told", "tiny_made", *classes, steps=20)
    finished_run(tmp_path / "untold", "tiny_made")
    threes_ND, _ = sample_vectors(tmp_path / "told", count=40, label=3)
    assert threes_ND.shape == (40, 64)
    assert torch.equal(threes_ND, sample_vectors(tmp_path / "told", count=40, label=3)[0])
    assert not torch.equal(threes_ND, sample_vectors(tmp_path / "told", count=40, label=4)[0])
    with pytest.raises(BadInput, match=r"--class 10: the model is told the classes 0 to 9; give one of them"):
        sample_vectors(tmp_path / "told", count=1, label=10)
    with pytest.raises(BadInput, match=r"--class 3: .* is a run of a model that is told no classes; leave --class out"):
        sample_vectors(tmp_path / "untold", count=1, label=3)


def test_options_of_the_other_kind_of_sample() -> None:
    refuse_given({"--count": None}, with_prompt=True)
    with pytest.raises(BadInput, match=r"^--count: is of images, points and waves alone; leave it out with --prompt"):
        refuse_given({"--count": 3}, with_prompt=True)
    with pytest.raises(BadInput, match=r"^--top-k: is of text alone; it needs a --prompt"):
        refuse_given({"--tokens": None, "--top-k": 0}, with_prompt=False)


def test_scores_and_pictures_are_of_one_checkpoint_while_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer checkpoint is saved between the two."""
    run = tmp_path / "run"
    experiment = finished_run(run, "tiny_made", steps=2)
    later = experiment.model_copy(update={"steps": 3}).trainer(Group())
    for _ in later.steps():
        pass
    score, load = report.evaluate_run, report.saved_model
    loaded: list[int | None] = []

    def scores(*given: Any, **settings: Any) -> Any:
        found = score(*given, **settings)
        save(later, experiment, run)
        return found

    monkeypatch.setattr(report, "evaluate_run", scores)
    monkeypatch.setattr(
        report, "saved_model", lambda run, step, kernels: loaded.append(step) or load(run, step, kernels)
    )
    page = write_report(run, split="valid")
    assert loaded == [2]
    assert "checkpoint of step 2," in page.read_text()
    monkeypatch.setattr(report, "evaluate_run", score)
    assert "checkpoint of step 3," in write_report(run, split="valid").read_text()


def test_a_page_that_cannot_be_written_is_said_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished_run(tmp_path / "run", "tiny_made")
    (tmp_path / "run" / PAGE).mkdir()
    monkeypatch.setattr(report, "evaluate_run", lambda *given, **settings: pytest.fail("it was scored"))
    with pytest.raises(BadInput, match=r"report.html: cannot be written: it is a directory"):
        write_report(tmp_path / "run", split="valid")
