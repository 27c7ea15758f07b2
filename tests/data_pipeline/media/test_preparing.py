"""Preparing media: the same bytes however it is done; WebDataset reads them; what has changed is refused."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import webdataset

from data_pipeline.config import BadInput, Refused
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_manifest import read_media_manifest
from data_pipeline.media.media_pipeline import prepare_media
from data_pipeline.mixing import fraction_of
from tests.data_pipeline.corpora import content_of
from tests.data_pipeline.media.media_files import abouts, config, png, prepared, random_images, tar_of, tars_of, write

ROOT = Path(__file__).parents[3]
COUNT = 60
IMAGES = random_images(COUNT, 4, 3)

SCRIPT = """
import sys, pathlib
sys.path.insert(0, {root!r})
from data_pipeline.media import media_pieces
from data_pipeline.media.media_pipeline import prepare_media
from data_pipeline.prepare import LocalExecutor
from tests.data_pipeline.media.test_preparing import many
write = media_pieces.write_atomically
def told(path, data):
    write(path, data)
    print("wrote", path.name, flush=True)
media_pieces.write_atomically = told
def report(event):
    print(event.stage, event.done, flush=True)
if __name__ == "__main__":
    with LocalExecutor({workers}) as executor:
        prepare_media(many(pathlib.Path({out!r}), pathlib.Path({corpus!r})), executor=executor, report=report)
"""


def corpus_in(directory: Path) -> Path:
    """A tar with a bad member and one of another kind, and files; some in each split."""
    names = {f"{number % 3}/{number:02d}.png": png(values) for number, values in enumerate(IMAGES)}
    inside = {name: content for number, (name, content) in enumerate(names.items()) if number < 40}
    beside = {name: content for name, content in names.items() if name not in inside}
    packed = {"0/bad.png": b"x", **inside, "README": b"hello"}
    return write(directory, {"a.tar": tar_of(packed), **beside, "1/zbad.png": b"y"})


def many(out: Path, corpus: Path) -> MediaData:
    """Several tars in most pieces."""
    return config(
        "images",
        out,
        corpus,
        ["a.tar", "**/*.png"],
        shard_bytes=7 * 2048 + 1024,
        corpus_held_out=0.2,
        corpus_test=r".*/\d*7\.png",
        corpus_labels={"kind": "pattern", "pattern": r"(?P<label>\d)/[^/]*$"},
        corpus_classes=["0", "1", "2"],
    )


def test_all_worker_counts_give_the_same_bytes(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    for workers in (1, 2, 3):
        manifest = prepared(many(tmp_path / f"{workers}", corpus), workers)
    contents = [content_of(tmp_path / f"{workers}") for workers in (1, 2, 3)]
    assert contents[0] == contents[1] == contents[2]
    assert manifest.report == {"broken": 2, "other_kind": 1}
    assert sum(split.num_items for split in manifest.splits.values()) == COUNT
    assert len([path for path in contents[0] if path.endswith(".tar")]) > 8
    for path in (tmp_path / "1" / "shards").glob("*.tar"):
        assert path.stat().st_size <= 7 * 2048 + 1024


@pytest.mark.slow
def test_ray_writes_the_same_bytes(tmp_path: Path) -> None:
    from cluster.ray_session import ray_session  # not at the top: the processes that are killed import this file
    from data_pipeline.prepare.ray_executor import RayExecutor

    corpus = corpus_in(tmp_path / "corpus")
    prepared(many(tmp_path / "one", corpus))
    with ray_session(2), RayExecutor(2) as executor:
        prepare_media(many(tmp_path / "ray", corpus), executor=executor, report=lambda _: None)
    assert content_of(tmp_path / "one") == content_of(tmp_path / "ray")


def test_items_are_divided_by_their_own_names(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    prepared(many(tmp_path / "out", corpus))
    split_of = {
        json.loads(content)["source"]: tar.partition("-")[0]
        for tar, members in tars_of(tmp_path / "out").items()
        for name, content in members.items()
        if name.endswith(".json")
    }
    assert len(split_of) == COUNT
    for name, split in split_of.items():
        held = "valid" if fraction_of(name) < 0.2 else "train"
        assert split == ("test" if name[-5] == "7" else held)


@pytest.mark.parametrize(
    ("line", "workers"),
    [
        ("wrote piece-00000.json", 1),
        pytest.param("encode 1", 1, marks=pytest.mark.slow),
        pytest.param("encode 3", 1, marks=pytest.mark.slow),
        pytest.param("encode 2", 2, marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_can_be_finished_and_gives_the_same_bytes(line: str, workers: int, tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    prepared(many(tmp_path / "whole", corpus))
    code = SCRIPT.format(root=str(ROOT), out=str(tmp_path / "out"), corpus=str(corpus), workers=workers)
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(printed.strip() == line for printed in process.stdout), f"ended before {line}"
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    with pytest.raises(BadInput, match=r"run `launch\.py prepare` first"):
        many(tmp_path / "out", corpus).manifest()
    records = [json.loads(path.read_bytes()) for path in (tmp_path / "out" / "work").glob("piece-*.json")]
    written = {
        tmp_path / "out" / "shards" / f"{shard['name']}.tar"
        for record in records
        for so_far in record["splits"].values()
        for shard in so_far["shards"]
    }
    assert written
    stamps = {path: path.stat().st_mtime_ns for path in written}
    time.sleep(0.01)
    prepared(many(tmp_path / "out", corpus))
    assert content_of(tmp_path / "out") == content_of(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in written} == stamps, "finished tars were made again"


def test_a_piece_goes_on_from_each_of_its_tars(tmp_path: Path) -> None:
    """As if it had been killed after any tar: from every record that a piece has had, the same comes."""
    from data_pipeline.media import media_pieces

    corpus = corpus_in(tmp_path / "corpus")
    data = many(tmp_path / "out", corpus).model_copy(update={"shard_bytes": 9000})
    task = media_pieces.MediaTask(
        data.corpus, data.converter(), _whole_tar(data), 0, tmp_path / "out", 9000, data.corpus.listing()
    )
    seen: list[bytes] = []
    write_atomically = media_pieces.write_atomically

    def keep(path: Path, content: bytes) -> None:
        seen.append(content)
        write_atomically(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media_pieces, "write_atomically", keep)
        finished = media_pieces.convert_piece(task)
    whole = content_of(tmp_path / "out")
    assert len(seen) > 6
    assert finished.report == {"broken": 1, "other_kind": 1}
    for record in seen:
        task.record_path.write_bytes(record)
        assert media_pieces.convert_piece(task) == finished
        assert content_of(tmp_path / "out") == whole


def _whole_tar(data: MediaData) -> tuple:  # type: ignore[type-arg]
    (spans,) = list(data.corpus.pieces(1 << 30))
    return tuple(span for span in spans if span.name == "a.tar")


def test_webdataset_reads_the_tars(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    data = many(tmp_path / "out", corpus)
    prepared(data)
    tars = [str(path) for path in sorted((tmp_path / "out" / "shards").glob("train-*.tar"))]
    items = list(webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode("l8"))
    vectors = data.vectors("train")
    assert len({item["__key__"] for item in items}) == len(items) == len(vectors.labels)
    for item, values, label in zip(items, vectors.values, vectors.labels, strict=True):
        number = int(item["json"]["source"][-6:-4])
        np.testing.assert_array_equal(item["png"], IMAGES[number])
        np.testing.assert_array_equal(np.round(values * 255), IMAGES[number].reshape(-1))
        assert item["json"]["class"] == label == number % 3


def test_a_finished_directory_is_left_as_it_is_and_a_damaged_one_mended(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    data = many(tmp_path / "out", corpus)
    manifest, whole = prepared(data), content_of(tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert prepared(data) == manifest
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    (tmp_path / "out" / "shards" / "train-00000-000.tar").unlink()
    assert prepared(data) == manifest
    assert content_of(tmp_path / "out") == whole


def test_other_settings_and_other_files_are_refused(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    data = many(tmp_path / "out", corpus)
    prepared(data)
    with pytest.raises(Refused, match=r"data\.corpus\.held_out: 0\.2 -> 0\.1"):
        prepared(data.model_copy(update={"corpus": data.corpus.model_copy(update={"held_out": 0.1})}))
    with pytest.raises(Refused, match=r"data\.height: 4 -> 5"):
        data.model_copy(update={"height": 5}).vectors("train")
    data.model_copy(update={"pixels": "threshold"}).vectors("train")  # how they are read is free
    write(corpus, {"2/more.png": png(IMAGES[0])})
    with pytest.raises(Refused, match=r"prepared from other files \(2/more\.png is new\)"):
        prepared(data)


def test_an_archive_that_changed_a_little_is_named(tmp_path: Path) -> None:
    """Though its rows are as many and as large as before."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    np.savez(corpus / "some.npz", images=IMAGES, about=np.zeros(3))
    data = config("images", tmp_path / "out", corpus, ["*.npz"], shard_bytes=300)
    prepared(data)
    np.savez(corpus / "some.npz", images=IMAGES, about=np.zeros(4))
    with pytest.raises(Refused, match=r"other files \(some\.npz has another size\)"):
        prepared(data)


def test_a_table_tells_labels_and_captions(tmp_path: Path) -> None:
    files = {f"{number}.png": png(IMAGES[number]) for number in range(4)}
    table = 'file,label,caption\n0.png,cat,a cat\n1.png,dog,"a dog, barking"\n3.png,cow,a cow\n'
    corpus = write(tmp_path / "corpus", {**files, "labels.csv": table.encode()})
    labels = {"kind": "table", "file": "labels.csv"}
    options = {"corpus_labels": labels, "corpus_classes": ["dog", "cat"]}
    data = config("images", tmp_path / "out", corpus, ["*.png"], **options)
    assert prepared(data).report == {"no_label": 1, "unknown_label": 1}
    assert data.vectors("train").labels.tolist() == [1, 0]
    assert [about["caption"] for about in abouts(tmp_path / "out")] == ["a cat", "a dog, barking"]
    write(corpus, {"labels.csv": table.replace("a cat", "no cat").encode()})
    with pytest.raises(Refused, match="table of labels"):
        prepared(data)
    rows = [json.dumps({"file": f"{number}.png", "label": "cat", "words": number}) for number in range(4)]
    write(corpus, {"labels.jsonl": "\n".join(rows).encode()})
    other = {**options, "corpus_labels": {**labels, "file": "labels.jsonl"}}
    assert prepared(config("images", tmp_path / "other", corpus, ["*.png"], **other)).report == {}
    write(corpus, {"labels.jsonl": "\n".join([*rows, rows[0]]).encode()})
    with pytest.raises(BadInput, match=r"0\.png has two rows"):
        prepared(config("images", tmp_path / "third", corpus, ["*.png"], **other))


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["*.jpg"], {}, "no such file"),
        (["../*"], {}, "within it"),
        (["*.txt"], {}, r"no item for the split train .*left out: 1 other_kind, the first a\.txt"),
        (["*.png"], {"corpus_valid": "nothing"}, r"no item for the split valid.*correct corpus\.valid"),
    ],
)
def test_a_corpus_without_items_is_refused(
    files: list[str], options: dict[str, str], message: str, tmp_path: Path
) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": png(IMAGES[0]), "a.txt": b"hello"})
    with pytest.raises(BadInput, match=message):
        prepared(config("images", tmp_path / "out", corpus, files, **options))
    assert not (tmp_path / "out" / "media.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"corpus_valid": ".*valid.*"},
            r"no item for the split valid, by the names of the files, such as 0\.png; .*corpus\.valid",
        ),
        ({"corpus_valid": ".*"}, r"no item for the split train, .*corpus\.files or corpus\.valid"),
        ({"corpus_held_out": 1e-9}, r"no item for the split valid, .*corpus\.held_out"),
    ],
)
def test_a_split_without_items_is_told_before_any_is_converted(
    options: dict[str, object], message: str, tmp_path: Path
) -> None:
    """By names alone: none of these files is an image."""
    corpus = write(tmp_path / "corpus", {f"{number}.png": b"no image" for number in range(5)})
    data = config("images", tmp_path / "out", corpus, ["*.png"], **options)
    with pytest.raises(BadInput, match=message):
        prepared(data)
    assert not list((tmp_path / "out").rglob("piece-*"))


def test_names_within_archives_may_be_of_the_split(tmp_path: Path) -> None:
    members = tar_of({"a.png": png(IMAGES[0]), "b-valid.png": png(IMAGES[1])})
    corpus = write(tmp_path / "corpus", {"some.tar": members, "c.png": png(IMAGES[2])})
    data = config("images", tmp_path / "out", corpus, ["*"], corpus_valid=".*valid.*")
    assert prepared(data).splits["valid"].num_items == 1


@pytest.mark.parametrize(
    "options",
    [
        {"corpus_valid": "("},
        {"corpus_classes": ["a"]},
        {"corpus_labels": {"kind": "folder"}, "corpus_classes": ["a", "a"]},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regular expression|no labels|differ"):
        config("images", tmp_path, tmp_path, ["*"], **options)


def test_workers_import_no_torch() -> None:
    code = "import sys, data_pipeline.media.media_pipeline; assert 'torch' not in sys.modules; print('light')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "light", done.stderr


def test_the_manifest_says_what_there_is(tmp_path: Path) -> None:
    corpus = corpus_in(tmp_path / "corpus")
    prepared(many(tmp_path / "out", corpus))
    manifest = read_media_manifest(tmp_path / "out")
    assert manifest.config["height"] == 4
    assert "directory" not in manifest.config["corpus"]
    assert len({manifest.fingerprint(split) for split in manifest.splits}) == 3
