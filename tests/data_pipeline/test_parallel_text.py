"""Aligned files: what is read, what is left out and counted, which tokenizer is kept, and every kind of bad file."""

import gzip
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.parallel_text import ParallelTextConfig
from tests.evals.benchmark_data import benchmark_data

ENGLISH = ["a cat sits .", "a dog runs .", "the cat runs .", "two dogs sit ."]
FRENCH = ["un chat est assis .", "un chien court .", "le chat court .", "deux chiens sont assis ."]


def write(directory: Path, stem: str, source: list[str], target: list[str]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / f"{stem}.en").write_text("".join(f"{line}\n" for line in source), encoding="utf-8")
    with gzip.open(directory / f"{stem}.fr.gz", "wt", encoding="utf-8") as packed:
        packed.write("".join(f"{line}\n" for line in target))


def config(directory: Path, **settings: Any) -> ParallelTextConfig:
    given = {
        "kind": "parallel_text", "directory": str(directory / "kept"), "files": str(directory / "raw"), "source": "en",
        "target": "fr", "tokenizer": {"kind": "word", "end_of_line": False},
    }  # fmt: skip
    return ParallelTextConfig.model_validate(given | settings)


def written(
    tmp_path: Path, source: list[str] = ENGLISH, target: list[str] = FRENCH, **settings: Any
) -> ParallelTextConfig:
    write(tmp_path / "raw", "train", source, target)
    return config(tmp_path, **settings)


@pytest.mark.parametrize("tokenizer", [{"kind": "word", "end_of_line": False}, {"kind": "bpe", "vocab_size": 280}])
def test_lines_that_belong_together_are_pairs(tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    data = written(tmp_path, tokenizer=tokenizer)
    pairs = data.pairs("train")
    assert [data.text(pairs.sources[i].tolist()) for i in range(4)] == ENGLISH
    assert [data.text(pairs.targets[i].tolist()) for i in range(4)] == FRENCH
    assert pairs.boundary == data.boundary() < data.vocab_size()
    assert data.boundary() not in {*pairs.sources.tokens.tolist(), *pairs.targets.tokens.tolist()}
    assert data.report("train").to_json() == {"lines": 4, "empty": 0, "too_long": 0, "unknown": 0, "pairs": 4}


def test_what_is_left_out_is_counted_and_the_rest_stays_together(tmp_path: Path) -> None:
    data = written(tmp_path, max_length=4)
    write(
        tmp_path / "raw",
        "valid",
        ["", "a cat", "  ", "a zebra .", "a dog runs . . .", "a"],
        ["x", "un", "", "le z .", "un", ""],
    )
    assert data.report("valid").to_json() == {"lines": 6, "empty": 3, "too_long": 1, "unknown": 2, "pairs": 2}
    pairs = data.pairs("valid")
    shown = [(data.text(pairs.sources[i].tolist()), data.text(pairs.targets[i].tolist())) for i in range(len(pairs))]
    assert shown == [("a cat", "un"), ("a <unk> .", "le <unk> .")]
    assert data.report("train").too_long == 2, "five tokens in French"
    assert data.references("valid") == ("un", "le z ."), "as they were, unknown words too, beside their pairs"
    assert (data.unknown(), data.left_out("valid")["max_length"]) == (data.load_tokenizer().unknown, 4)


def test_lines_lose_the_white_space_around_them(tmp_path: Path) -> None:
    """Of byte pairs every space is a token; Windows ends lines with one more."""
    padded = [[f"  {line} \r" for line in side] for side in (ENGLISH, FRENCH)]
    data = written(tmp_path, *padded, tokenizer={"kind": "bpe", "vocab_size": 280})
    pairs = data.pairs("train")
    assert [data.text(pairs.sources[i].tolist()) for i in range(4)] == ENGLISH
    assert list(data.references("train")) == FRENCH


def test_other_settings_make_another_tokenizer(tmp_path: Path) -> None:
    """In one directory, of the same files."""
    sizes = {}
    for vocab_size in (270, 280):
        data = written(tmp_path, tokenizer={"kind": "bpe", "vocab_size": vocab_size})
        sizes[vocab_size] = data.load_tokenizer().vocab_size
    assert sizes == {270: 270, 280: 280}
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_the_tokenizer_is_trained_once_and_kept_by_hash(tmp_path: Path) -> None:
    data = written(tmp_path)
    made = data.load_tokenizer()
    (kept,) = (tmp_path / "kept").iterdir()
    again = data.model_copy(update={"max_length": 50}).load_tokenizer()
    assert again is not made
    assert again.hash == made.hash
    assert list((tmp_path / "kept").iterdir()) == [kept], "other lengths need no other tokenizer"
    other = written(tmp_path, [*ENGLISH, "one more ."], [*FRENCH, "encore un ."], max_length=51)
    assert other.load_tokenizer().hash != made.hash
    assert len(list((tmp_path / "kept").iterdir())) == 2
    (kept / "tokenizer.json").write_text((kept / "tokenizer.json").read_text().replace("cat", "cow"))
    write(tmp_path / "raw", "train", ENGLISH, FRENCH)
    with pytest.raises(Corrupt, match="its hash is"):
        data.model_copy(update={"max_length": 52}).load_tokenizer()
    (kept / "hash.json").write_text("{}")
    with pytest.raises(Corrupt, match="not the hash of a tokenizer"):
        data.model_copy(update={"max_length": 53}).load_tokenizer()


def test_sides_of_unequal_length_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path)
    write(tmp_path / "raw", "valid", ENGLISH[:3], FRENCH)
    with pytest.raises(BadInput, match=r"valid\.en has 3 lines and .*valid\.fr\.gz 4: line by line"):
        data.pairs("valid")


def test_missing_and_broken_files(tmp_path: Path) -> None:
    data = written(tmp_path)
    with pytest.raises(BadInput, match=r"has no test\.en \(or \.gz\), the source of the split test"):
        data.pairs("test")
    with pytest.raises(BadInput, match="split 'dev'"):
        data.pairs("dev")
    write(tmp_path / "raw", "valid", ENGLISH, FRENCH)
    packed = tmp_path / "raw" / "valid.fr.gz"
    packed.write_bytes(packed.read_bytes()[:20])
    with pytest.raises(BadInput, match=r"valid\.fr\.gz: cannot be read"):
        data.pairs("valid")
    (tmp_path / "raw" / "valid.en").write_bytes(b"caf\xe9\n")
    with pytest.raises(BadInput, match=r"valid\.en: cannot be read"):
        data.pairs("valid")


def test_a_split_of_which_nothing_is_left(tmp_path: Path) -> None:
    data = written(tmp_path, max_length=3)
    with pytest.raises(BadInput, match=r"no pair left: of 4 lines 0 were empty and 4 above data.max_length=3"):
        data.pairs("train")
    empty = written(tmp_path / "empty", ["", ""], ["", ""]) if (tmp_path / "empty").mkdir() is None else data
    with pytest.raises(BadInput, match="no text to train a tokenizer on"):
        empty.pairs("train")


def test_multi30k_is_aligned(tmp_path: Path) -> None:
    """The published sizes (https://github.com/multi30k/dataset): 29,000, 1,014 and 1,000 lines."""
    files = benchmark_data() / "multi30k"
    if not files.is_dir():
        pytest.skip(f"there is no {files}")
    names = {"valid": "val", "test": "test_2016_flickr", "files": str(files)}
    data = config(tmp_path, **names, tokenizer={"kind": "word", "min_count": 10, "end_of_line": False})
    reports = {split: data.report(split) for split in ("train", "valid", "test")}
    assert {split: report.lines for split, report in reports.items()} == {
        "train": 29_000,
        "valid": 1_014,
        "test": 1_000,
    }
    assert all(report.empty == report.too_long == 0 for report in reports.values())
