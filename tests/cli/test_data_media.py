"""`data` and `prepare --status` on media: images of two classes, recordings and a piece of music."""

import json
from pathlib import Path

import pytest

from pretrain.run_directory import read_events
from tests.cli.command_line import Forks
from tests.cli.conftest import segue  # noqa: F401
from tests.data_pipeline.media.media_files import png, random_images, random_samples, sound, write

REST = """
batch: {micro_batches: 2, rows: 2}
optimizer: {learning_rate: 0.01}
schedule: {kind: constant}
engine: {kind: local, device: cpu}
log: {tensorboard: false}
"""
RECIPES = {
    "images": """
name: images
steps: 4
model: {kind: made, num_values: 12, hidden_widths: [8], classes: null}
data:
  kind: images
  directory: images
  corpus:
    {directory: corpus, files: ["*/*.png"], valid: ".*7.png", labels: {kind: folder}, classes: [cat, dog]}
  shard_bytes: 20000
  height: 4
  width: 3
  pixels: threshold
""",
    "audio": """
name: audio
steps: 4
model: {kind: wavenet, length_of_wave: 500, levels: 65536, residual_features: 4, skip_features: 4, dilations: [1, 2]}
data:
  kind: audio
  directory: audio
  corpus: {directory: corpus, files: ["*.wav"]}
  window: 500
  rate: 8000
""",
    "music": """
name: music
steps: 4
model: {kind: nade, num_values: 176, num_hidden: 4}
data:
  kind: music
  directory: music
  corpus: {directory: corpus, files: ["*.json"]}
  steps: 2
""",
}
LENGTHS = (2000, 1100, 4000)


@pytest.fixture
def place(segue: Forks, tmp_path: Path) -> Path:  # noqa: F811
    """A recipe of each kind, its corpus and its tars."""
    images = {f"{'cat' if n % 3 else 'dog'}/{n:02d}.png": png(v) for n, v in enumerate(random_images(40, 4, 3))}
    sounds = {f"{n}.wav": sound(random_samples(length, n)) for n, length in enumerate(LENGTHS)}
    pieces = json.dumps([[[60, 64], [], [62], [60 + n]] for n in range(6)]).encode()
    write(tmp_path / "corpus", {**images, **sounds, "pieces.json": pieces})
    for kind, recipe in RECIPES.items():
        (tmp_path / f"{kind}.yaml").write_text(recipe + REST)
        done = segue.run("prepare", f"{kind}.yaml", "--workers", "1", cwd=tmp_path)
        assert done.code == 0, done
        assert " items, " in done.out
        assert "documents" not in done.out
    return tmp_path


def tars_of(place: Path) -> list[Path]:
    return sorted((place / "images" / "shards").glob("train-*.tar"))


def flip(path: Path) -> None:
    """One bit of the first item's JSON, which no training reads."""
    content = bytearray(path.read_bytes())
    content[content.index(b'"source"') + 1] ^= 1
    path.write_bytes(content)


def test_status_counts_pieces_and_items(segue: Forks, place: Path) -> None:  # noqa: F811
    told = segue.run("prepare", "images.yaml", "--status", cwd=place)
    assert told.out.startswith("images: finished, 40 items, ")
    (found,) = json.loads(segue.run("prepare", "images.yaml", "--status", "--json", cwd=place).out)
    assert found["converted"] == found["pieces"] == 1
    (place / "images" / "media.json").unlink()
    assert "images: unfinished, 1 of 1 pieces converted, 40 items, " in (
        segue.run("prepare", "images.yaml", "--status", cwd=place).out
    )
    new = segue.run("prepare", "images.yaml", "data.directory=new", "--status", cwd=place)
    assert new.out == "new: not begun\n"
    assert not (place / "new").exists()


@pytest.mark.parametrize("kind", RECIPES)
def test_inspect_shows_what_there_is_and_a_batch(segue: Forks, place: Path, kind: str) -> None:  # noqa: F811
    manifest = json.loads((place / kind / "media.json").read_text())
    for target in (f"{kind}.yaml", kind):
        shown = segue.run("data", "inspect", target, "--png", "batch.png", "--rows", "2", cwd=place)
        assert shown.code == 0, shown
        assert f"items {manifest['source']}" in shown.out
        assert f"{sum(one['num_items'] for one in manifest['splits']['train']['shards'])} items" in shown.out
        assert (place / "batch.png").read_bytes().startswith(b"\x89PNG")
        (place / "batch.png").unlink()
        row = shown.out[shown.out.index("row 1: sample ") :]
        if kind == "images":
            assert "(cat)" in row or "(dog)" in row
        if kind == "music":
            assert "step 0: " in row
    if kind == "music":
        pieces = segue.run("data", "inspect", "music.yaml", "data.steps=4", "--rows", "2", cwd=place).out
        assert pieces.count("step 0: C4 E4\n  step 1: silence\n  step 2: D4\n") == 2


def test_stats_are_of_lengths_and_sizes(segue: Forks, place: Path) -> None:  # noqa: F811
    found = {kind: json.loads(segue.run("data", "stats", kind, "--json", cwd=place).out)["splits"] for kind in RECIPES}
    (sounds,) = found["audio"]
    assert (sounds["items"], sounds["samples"], sounds["seconds"]) == (3, sum(LENGTHS), sum(LENGTHS) / 8000)
    assert sounds["length"] == {"least": 1100, "median": 2000, "ninety_percent": 4000, "most": 4000}
    assert [(one["from"], one["items"]) for one in sounds["histogram"]] == [(1024, 2), (2048, 1)]
    (music,) = found["music"]
    assert (music["items"], music["steps"]) == (6, 24)
    train, valid = found["images"]
    assert (train["items"], valid["items"]) == (36, 4)
    assert train["classes"] == {"cat": 23, "dog": 13}
    assert train["length"]["most"] == max(len(png(one)) for n, one in enumerate(random_images(40, 4, 3)) if n % 10 != 7)
    table = segue.run("data", "stats", "images.yaml", "--png", "sizes.png", cwd=place)
    assert table.code == 0, table
    assert "train: items by class: cat: 23, dog: 13" in table.out
    assert "train: items by bytes" in table.out
    assert (place / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_verify_names_every_file_and_sets_it_aside(segue: Forks, place: Path) -> None:  # noqa: F811
    """Prepared again, all is as it was."""
    whole = {path: path.read_bytes() for path in (place / "images" / "shards").iterdir()}
    good = segue.run("data", "verify", "images", cwd=place)
    assert f"{len(whole)} files, " in good.out
    tars = tars_of(place)
    flip(tars[1])
    tars[2].with_suffix(".index.npy").unlink()
    found = segue.run("data", "verify", "images.yaml", "--set-aside", cwd=place)
    assert found.code == 4
    message = found.one_message()
    assert f"2 of {len(whole)} files are damaged" in message
    assert f"{tars[1].name}: its content is not what was written" in message
    assert f"{tars[2].stem}.index.npy: is missing" in message
    assert not tars[1].exists()
    again = segue.run("prepare", "images.yaml", "--workers", "1", cwd=place)
    assert again.code == 0, again
    assert {path: path.read_bytes() for path in whole} == whole
    assert segue.run("data", "verify", "images", cwd=place).code == 0


def test_damage_is_found_while_training_and_before_a_run_goes_on(segue: Forks, place: Path) -> None:  # noqa: F811
    path = tars_of(place)[1]
    content = path.read_bytes()
    flip(path)
    stopped = segue.run("train", "images.yaml", "--run", "run", "steps=100000", "data.verify=background", cwd=place)
    assert stopped.code == 4, stopped
    assert f"{path.name}: its content is not what was written" in stopped.one_message()
    assert [one["event"] for one in read_events(place / "run")].count("data damaged") == 1
    path.write_bytes(content)
    onward = ("run", "steps=100001", "--allow", "steps")
    verified = segue.run("data", "verify", "run", cwd=place)
    assert verified.code == 0, verified
    shown = segue.run("data", "inspect", "run", "--rows", "1", cwd=place)
    assert "train: 36 items" in shown.out
    flip(path)
    refused = segue.run("resume", *onward, cwd=place)
    assert refused.code == 3, refused
    assert path.name.replace(".", "_") in refused.one_message()
