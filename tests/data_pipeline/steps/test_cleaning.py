"""All steps together: the order of the list, resuming, and the same outcome whoever does it."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_pipeline.atomic import sha256_of
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.prepare.executor import LocalExecutor
from data_pipeline.sources.document import Report
from data_pipeline.steps.chain import passes
from data_pipeline.steps.cleaning import cleaned, files_of, forget, identity_of
from tests.data_pipeline.corpora import content_of
from tests.data_pipeline.steps.corpus import clean, files_of_lines, steps

pytest.importorskip("datasketch", reason="the extra segue[deduplicate] is not installed")

WORDS = ["the", "of", "and", "to", "cat", "dog", "sat", "ran", "house", "garden", "naïve", "mail@example.org"]


@pytest.fixture
def lines() -> list[list[str]]:
    """Four files: some text, with copies, near copies, short lines, and evaluation text, within and across files."""
    random = np.random.default_rng(0)
    texts = [" ".join(f"{WORDS[int(a)]}{b}" for a, b in random.integers(0, (12, 200), (60, 2))) for _ in range(60)]
    files = [texts[:15], texts[15:30], texts[30:45], texts[45:]]
    for number, file in enumerate(files):
        file.insert(3, files[0][1])
        file.insert(5 + number, "too short")
        file.insert(9, files[0][2].replace("cat", "dog", 1) + f" {number}")
        file.insert(
            11, " ".join([*(f"own{number}x{place}" for place in range(40)), *(f"leak{place}" for place in range(15))])
        )
        file.append(f"write to a{number}@example.org " + files[0][number] + "  ")
    return files


@pytest.fixture
def all_steps(tmp_path: Path) -> list[Any]:
    (tmp_path / "evaluation.txt").write_text(" ".join(f"leak{place}" for place in range(15)))
    return [
        "normalise",
        {"kind": "gopher_quality", "least_words": 5, "least_stop_words": 0},
        "exact_duplicates",
        {"kind": "near_duplicates", "shingle_words": 2},
        "gopher_repetition",
        {"kind": "decontaminate", "directory": str(tmp_path), "evaluation": ["evaluation.txt"], "words": 10},
        "redact",
    ]


REPORT = {
    "decontaminate/evaluation_text": 4,
    "exact_duplicates/duplicate": 4,
    "gopher_quality/few_words": 4,
}


def test_every_worker_count_and_piece_size_gives_the_same(
    lines: list[list[str]], all_steps: list[Any], tmp_path: Path
) -> None:
    corpus, chosen = files_of_lines(tmp_path / "corpus", *lines), steps(*all_steps)
    expected = clean(corpus, chosen, tmp_path / "one", piece_bytes=1 << 30)
    texts, report = expected
    assert report.items() > REPORT.items()
    assert report["near_duplicates/near_duplicate"] > 4
    assert len(texts) + sum(report[name] for name in report if name.split("/")[0] not in ("normalise", "redact")) == 80
    for workers, piece_bytes in ((1, 900), (2, 3000), (3, 5000)):
        folder = tmp_path / f"{workers}-{piece_bytes}"
        assert clean(corpus, chosen, folder, piece_bytes=piece_bytes, executor=LocalExecutor(workers)) == expected
    clean(corpus, chosen, tmp_path / "again", piece_bytes=3000)
    assert content_of(tmp_path / "again") == content_of(tmp_path / "2-3000")


@pytest.mark.slow
def test_ray_gives_the_same(lines: list[list[str]], all_steps: list[Any], tmp_path: Path) -> None:
    from cluster.ray_session import ray_session
    from data_pipeline.prepare.ray_executor import RayExecutor

    corpus, chosen = files_of_lines(tmp_path / "corpus", *lines), steps(*all_steps)
    expected = clean(corpus, chosen, tmp_path / "local", piece_bytes=3000)
    with ray_session(2):
        assert clean(corpus, chosen, tmp_path / "ray", piece_bytes=3000, executor=RayExecutor(2)) == expected
    assert content_of(tmp_path / "local") == content_of(tmp_path / "ray")


def test_steps_are_done_in_the_order_of_the_list(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["a b", "a b  ", "a b c d", "a b"])
    short = {"kind": "gopher_quality", "least_words": 3, "least_mean_word_length": 0, "least_stop_words": 0}
    assert clean(corpus, steps("exact_duplicates", "normalise"), tmp_path / "1") == (
        ["a b", "a b", "a b c d"],
        {"exact_duplicates/duplicate": 1, "normalise/white_space": 1},
    )
    assert clean(corpus, steps("normalise", "exact_duplicates"), tmp_path / "2") == (
        ["a b", "a b c d"],
        {"exact_duplicates/duplicate": 2},
    )
    assert clean(corpus, steps(short, "exact_duplicates"), tmp_path / "3") == (
        ["a b c d"],
        {"gopher_quality/few_words": 3},
    )


def test_a_dropped_document_hides_no_copy(tmp_path: Path) -> None:
    """What decontamination drops first cannot be the copy that stays."""
    (tmp_path / "evaluation.txt").write_text("x1 x2 x3")
    leak = {"kind": "decontaminate", "directory": str(tmp_path), "evaluation": ["evaluation.txt"], "words": 3}
    by_words = {"kind": "near_duplicates", "shingle_words": 1}
    many = " ".join(f"w{number}" for number in range(200))
    corpus = files_of_lines(tmp_path / "corpus", [f"{many} x1 x2 x3", f"{many} y1 y2 y3"])
    assert clean(corpus, steps(leak, by_words), tmp_path / "1")[0] == [f"{many} y1 y2 y3"]
    with pytest.raises(BadInput, match=r"all 2 documents were dropped \(1 near_dup.*1 decontam|\(1 decontam"):
        clean(corpus, steps(by_words, leak), tmp_path / "2")


def test_no_pass_is_made_for_what_is_done_while_reading() -> None:
    assert passes(steps("normalise", "redact", "c4_quality")) == []
    assert [(one.start, one.stop) for one in passes(steps("normalise", "gopher_quality", "redact"))] == [(0, 3)]
    assert [(one.start, one.stop) for one in passes(steps("normalise", "exact_duplicates", "redact"))] == [(0, 1)]


def test_reading_alone_drops_and_counts(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["a\x02", "\x01", "b"])
    assert clean(corpus, steps("normalise"), tmp_path / "work") == (
        ["a", "b"],
        {"normalise/control_characters": 1, "normalise/empty": 1},
    )
    assert not (tmp_path / "work").exists()


def test_everything_dropped_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["too short", "tiny", " ".join(["x" * 50] * 60)])
    message = r"data\.steps: all 3 documents were dropped \(2 gopher_quality/few_words, 1 gopher_quality/long_words\)"
    with pytest.raises(BadInput, match=message):
        clean(corpus, steps("gopher_quality"), tmp_path / "work")


class Interrupted(Exception):
    """Stands for a kill."""


class Stopping(LocalExecutor):
    """Ends after so many results."""

    def __init__(self, after: int) -> None:
        super().__init__(1)
        self.left = after

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        for result in super().map(function, items):
            if not self.left:
                raise Interrupted
            self.left -= 1
            yield result


def test_interrupted_anywhere_it_goes_on_and_ends_with_the_same_files(
    lines: list[list[str]], all_steps: list[Any], tmp_path: Path
) -> None:
    corpus, chosen = files_of_lines(tmp_path / "corpus", *lines), steps(*all_steps)
    expected = clean(corpus, chosen, tmp_path / "whole", piece_bytes=8000)
    times = 0
    for after in range(0, 200, 7):
        try:
            found = clean(corpus, chosen, tmp_path / "parts", piece_bytes=8000, executor=Stopping(after))
        except Interrupted:
            times += 1
        else:
            break
    assert times > 5
    assert found == expected
    assert content_of(tmp_path / "parts") == content_of(tmp_path / "whole")


def test_what_is_finished_is_not_written_again(lines: list[list[str]], all_steps: list[Any], tmp_path: Path) -> None:
    corpus, chosen = files_of_lines(tmp_path / "corpus", *lines), steps(*all_steps)
    expected = clean(corpus, chosen, tmp_path / "work", piece_bytes=8000)
    before = {path: path.stat().st_ino for path in (tmp_path / "work").rglob("*.npy") if "evaluation" not in path.name}
    assert clean(corpus, chosen, tmp_path / "work", piece_bytes=8000) == expected
    assert {path: path.stat().st_ino for path in before} == before
    damaged = sorted(before)[5]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert clean(corpus, chosen, tmp_path / "work", piece_bytes=8000) == expected
    assert damaged.read_bytes() == content


def test_other_text_of_the_same_size_is_read_again(tmp_path: Path) -> None:
    corpus, chosen = files_of_lines(tmp_path / "corpus", ["one", "two", "one"]), steps("exact_duplicates")
    assert clean(corpus, chosen, tmp_path / "work")[0] == ["one", "two"]
    files_of_lines(tmp_path / "corpus", ["two", "two", "one"])
    assert clean(corpus, chosen, tmp_path / "work")[0] == ["two", "one"]


@pytest.mark.parametrize("lines", [["one", "two", "six"], ["one"], ["one", "two", "one", "two"]])
def test_a_corpus_that_changes_meanwhile_is_noticed(lines: list[str], tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["one", "two", "one"])
    (piece,) = corpus.pieces(1 << 20)
    with LocalExecutor(1) as executor:
        found = cleaned(
            corpus,
            steps("exact_duplicates"),
            [piece],
            work_folder=tmp_path / "work",
            executor=executor,
            told=lambda *_: None,
        )
    files_of_lines(tmp_path / "corpus", lines)
    if len(lines) == 4:
        os.truncate(tmp_path / "corpus" / "000.txt", 16)
        piece = type(piece)(piece.split, tuple(type(span)(span.name, 0, 16, span.size) for span in piece.spans))
        with pytest.raises(Corrupt, match="what the steps found cannot be read"):
            list(found.read(piece, Report()))
    else:
        with pytest.raises(BadInput, match=r"000\.txt .*changed while it was prepared"):
            list(found.read(piece, Report()))


class Changing(LocalExecutor):
    """Does something after each round of work."""

    def __init__(self, change: Callable[[], object]) -> None:
        super().__init__(1)
        self.change = change

    def map(self, function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        yield from super().map(function, items)
        self.change()


def test_a_corpus_that_changes_between_passes_is_noticed(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["one", "two", "one"])
    chosen = steps("exact_duplicates", {"kind": "exact_duplicates", "compare": "words"})
    executor = Changing(lambda: files_of_lines(tmp_path / "corpus", ["two", "two", "one"]))
    with pytest.raises(BadInput, match=r"000\.txt .*changed while it was prepared"):
        clean(corpus, chosen, tmp_path / "work", executor=executor)
    assert clean(corpus, chosen, tmp_path / "work")[0] == ["two", "one"]


def test_what_passes_left_can_be_removed(tmp_path: Path) -> None:
    corpus = files_of_lines(tmp_path / "corpus", ["one", "one"])
    clean(corpus, steps("exact_duplicates"), tmp_path / "work")
    assert list((tmp_path / "work").rglob("*.npy"))
    forget(tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_identity_names_settings_and_no_place(all_steps: list[Any], tmp_path: Path) -> None:
    chosen = steps(*all_steps)
    assert str(tmp_path) not in str(identity_of(chosen))
    assert identity_of(chosen)["1 gopher_quality"]["least_words"] == 5
    assert files_of(chosen) == [("evaluation.txt", sha256_of(tmp_path / "evaluation.txt"))]
