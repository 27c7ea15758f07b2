"""The committed recipes of media, prepared from the benchmark data as a user would, read as their models read them."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.config import BadInput
from data_pipeline.media.media_data import MediaData
from pretrain import config
from pretrain.experiment import Experiment
from tests.data_pipeline.media.media_files import config as media_config
from tests.data_pipeline.media.media_files import prepared
from tests.evals.benchmark_data import benchmark_data

FOLDERS = {"made_mnist_tars": "mnist", "wavenet_spoken_digits_tars": "fsdd", "nade_chorales": "jsb_chorales"}


def recipe(name: str, tmp_path: Path) -> tuple[Experiment, MediaData]:
    place = benchmark_data() / FOLDERS[name]
    if not place.is_dir():
        pytest.skip(f"{place} is missing: set SEGUE_BENCHMARK_DATA to the benchmark data")
    overrides = [f"data.corpus.directory={place}", f"data.directory={tmp_path / 'tars'}"]
    experiment = config.load(Experiment, config.recipe_path(name), overrides)
    assert isinstance(experiment.data, MediaData)
    return experiment, experiment.data


@pytest.mark.parametrize(
    ("name", "counts", "rows"),
    [
        ("nade_chorales", {"train": 229, "valid": 76, "test": 77}, None),
        pytest.param(
            "wavenet_spoken_digits_tars", {"train": 2400, "valid": 300, "test": 300}, None, marks=pytest.mark.slow
        ),
        pytest.param(
            "made_mnist_tars", {"train": 50_000, "valid": 10_000, "test": 10_000}, 50_000, marks=pytest.mark.slow
        ),
    ],
)
def test_it_is_prepared_whole_and_read(name: str, counts: dict[str, int], rows: int | None, tmp_path: Path) -> None:
    experiment, data = recipe(name, tmp_path)
    manifest = prepared(data)
    assert {split: record.num_items for split, record in manifest.splits.items()} == counts
    assert set(manifest.report) <= {"other_kind"}
    experiment.check_data()
    batch = experiment.stream().micro_batch(0, 0)
    assert batch.rows == experiment.batch.rows
    if rows is not None:
        assert len(data.vectors("train").labels) == rows


def test_the_separated_chorales_are_not_unpickled(tmp_path: Path) -> None:
    """Published as an .npz of Python objects."""
    place = benchmark_data() / "jsb_chorales"
    if not place.is_dir():
        pytest.skip(f"{place} is missing: set SEGUE_BENCHMARK_DATA to the benchmark data")
    data = media_config("images", tmp_path, place, ["Jsb16thSeparated.npz"], corpus_array="train")
    with pytest.raises(BadInput, match=r"Jsb16thSeparated\.npz: train holds Python objects"):
        prepared(data)


def test_the_tunes_of_nottingham_are_read(tmp_path: Path) -> None:
    """Cleaned ABC of 1,034 tunes, in a .tar.zst; a few here."""
    place = benchmark_data() / "nottingham" / "nottingham.tar.zst"
    if not place.is_file():
        pytest.skip(f"{place} is missing: set SEGUE_BENCHMARK_DATA to the benchmark data")
    wanted = {"./ABC_cleaned/xmas.abc", "./MIDI/xmas1.mid", "./MIDI/xmas2.mid"}
    with (
        place.open("rb") as file,
        zstandard.ZstdDecompressor().stream_reader(file) as plain,
        tarfile.open(fileobj=plain, mode="r|") as archive,
    ):
        for member in archive:
            if member.name in wanted:
                content = archive.extractfile(member)
                assert content is not None
                (tmp_path / Path(member.name).name).write_bytes(content.read())
    data = media_config("music", tmp_path / "out", tmp_path, ["*.abc", "*.mid"], steps_per_quarter=4)
    manifest = prepared(data)
    assert manifest.report == {}
    tunes = (tmp_path / "xmas.abc").read_text().count("\nX:")
    assert manifest.splits["train"].num_items >= tunes
    keys = np.flatnonzero(data.vectors("train").values.any(axis=0))
    assert keys.min() > 10
    assert keys.max() < 80
