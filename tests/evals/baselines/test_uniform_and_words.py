"""The uniform distribution, and words as ids."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from evals.baselines import BYTES, Uniform, Words, byte_ids, read_lines


@pytest.mark.parametrize("vocabulary_size", [1, 2, 10_000, 50_257])
def test_the_perplexity_of_uniform_is_the_vocabulary(vocabulary_size: int) -> None:
    model = Uniform(vocabulary_size)
    ids = np.random.default_rng(0).integers(0, vocabulary_size, 100)
    assert math.exp(model.nats(ids).mean()) == pytest.approx(vocabulary_size, rel=1e-12)
    assert model.log_prob(ids[:3], ids[3:]) == pytest.approx(-97 * math.log(vocabulary_size), rel=1e-14)
    assert np.exp(model.next_log_probs(ids)).sum() == pytest.approx(1, abs=1e-12)


def test_uniform_over_bytes_is_eight_bits_a_byte() -> None:
    for text in ("plain", "naïve ☃ 𝛑", b"\x00\xff"):
        ids = byte_ids(text)
        assert len(ids) == len(text.encode() if isinstance(text, str) else text)
        assert BYTES.nats(ids).sum() / math.log(2) / len(ids) == pytest.approx(8, rel=1e-14)
    assert byte_ids("né").tolist() == [0x6E, 0xC3, 0xA9]


def test_no_vocabulary_is_refused() -> None:
    with pytest.raises(BadInput, match="vocabulary_size"):
        Uniform(0)


def test_words_come_back() -> None:
    lines = [" the cat  sat ", "", "<unk> sat \n"[:-1]]
    words = Words.of(lines)
    spelled = {number: word for word, number in words.id_of.items()}
    ids = words.ids(lines)
    assert sorted(spelled) == list(range(words.size))
    assert "".join(spelled[number] + " " for number in ids) == "the cat sat \n \n <unk> sat \n "
    assert ids[-3] == words.unknown
    assert (ids == words.end_of_line).sum() == len(lines)


def test_only_spaces_part_words() -> None:
    words = Words.of(["a\u00a0b c\td e\u2028f"])
    assert list(words.id_of)[2:] == ["a\u00a0b", "c\td", "e\u2028f"]


def test_words_out_of_the_vocabulary_are_unknown() -> None:
    words = Words.of(["a b", "b c"])
    assert words.ids(["c x y", "a"]).tolist() == [4, 1, 1, 0, 2, 0]
    assert words.ids([]).tolist() == []


def test_lines_of_plain_and_packed_files(tmp_path: Path) -> None:
    text = "one two\n\n three\u2028four\r\nfive"
    for ending in ("", "\n"):
        (tmp_path / "text.txt").write_bytes((text + ending).encode())
        (tmp_path / "text.txt.gz").write_bytes(gzip.compress((text + ending).encode()))
        for name in ("text.txt", "text.txt.gz"):
            assert read_lines(tmp_path / name) == ["one two", "", " three\u2028four\r", "five"]
    (tmp_path / "one.txt").write_bytes(b"\n")
    assert read_lines(tmp_path / "one.txt") == [""]


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    whole = gzip.compress(b"some words\n" * 100)
    files = {
        "empty": b"",
        "latin": "é".encode("latin-1"),
        "plain.gz": b"no archive",
        "half.gz": whole[: len(whole) // 2],
        "damaged.gz": whole[:14] + bytes([whole[14] ^ 255]) + whole[15:],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for name in (*files, "absent"):
        with pytest.raises(BadInput, match=name):
            read_lines(tmp_path / name)
