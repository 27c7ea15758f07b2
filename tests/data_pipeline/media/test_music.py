"""Music: which keys sound at which step, against notes placed by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from data_pipeline.config import BadInput
from data_pipeline.media.music import KEYS, LOWEST, notes_of, roll_of
from tests.data_pipeline.media.media_files import abouts, chorales, config, midi, prepared, tar_of, write

ABC = b"""%%MIDI program 1
X:1
T:one
M:4/4
L:1/4
K:C
C E G2|
X:2
T:two
M:4/4
L:1/4
K:C
c4|
"""


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12).flatmap(lambda steps: arrays(np.uint8, (steps, KEYS), elements=st.integers(0, 1))))
def test_notes_and_rolls_are_the_same(roll: np.ndarray) -> None:
    np.testing.assert_array_equal(roll_of(notes_of(roll), len(roll)), roll)


def rolls(data: object) -> list[dict[int, list[int]]]:
    """Step -> MIDI note numbers, of each item; steps without any are left out."""
    shards, found = data.shards(), []  # type: ignore[attr-defined]
    for item in range(shards.num_items):
        roll = np.frombuffer(shards.payload(item)[-int(shards.lengths[item]) * KEYS :], np.uint8).reshape(-1, KEYS)
        found.append(
            {t: [int(key) + LOWEST for key in np.flatnonzero(roll[t])] for t in range(len(roll)) if roll[t].any()}
        )
    return found


def test_midi_is_put_on_the_grid(tmp_path: Path) -> None:
    notes = [(0, 480, 60), (230, 20, 64), (470, 250, 67)]  # steps of 240: a short note sounds for one
    corpus = write(tmp_path / "corpus", {"a.mid": midi(notes), "b.mid": midi([(0, 240, 72), (240, 240, 10)])})
    data = config("music", tmp_path / "out", corpus, ["*.mid"])
    prepared(data)
    assert rolls(data) == [{0: [60], 1: [60, 64], 2: [67]}, {0: [72]}]
    assert [about["outside_keys"] for about in abouts(tmp_path / "out")] == [0, 1]


def test_a_book_of_abc_is_cut_in_tunes(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.tar": tar_of({"./book.abc": ABC})})
    data = config("music", tmp_path / "out", corpus, ["a.tar"], steps_per_quarter=1)
    assert prepared(data).report == {}
    assert rolls(data) == [{0: [60], 1: [64], 2: [67], 3: [67]}, {t: [72] for t in range(4)}]
    assert [about["source"] for about in abouts(tmp_path / "out")] == ["a.tar/book.abc#0000", "a.tar/book.abc#0001"]


@pytest.mark.parametrize("form", ["roll", "notes"])
def test_chorales_are_divided_by_their_groups(form: str, tmp_path: Path) -> None:
    pieces = chorales(train=[[[60, 64], [], [60, -1]], [[21], [108]]], valid=[[[70]] * 3])
    corpus = write(tmp_path / "corpus", {"a.json.gz": pieces})
    data = config("music", tmp_path / "out", corpus, ["*"], form=form, corpus_valid=".*#valid/.*")
    prepared(data)
    vectors = data.vectors("train")
    assert [np.flatnonzero(row).tolist() for row in vectors.values] == [[39, 43], [], [39], [0], [87]]
    assert (vectors.values.shape, set(np.unique(vectors.values))) == ((5, 88), {0.0, 1.0})
    assert (data.shape, data.values, len(data.vectors("valid").labels)) == ((1, 1, 88), "binary", 3)
    pairs = config("music", tmp_path / "out", corpus, ["*"], form=form, corpus_valid=".*#valid/.*", steps=2)
    assert pairs.vectors("train").values.shape == (2, 176), "what is left at the end is left out"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("b.mid", b"MThd and nothing more", "broken"),
        ("b.mid", midi([(0, 100, 60)])[:-8], "broken"),
        ("b.mid", midi([]), "silent"),
        ("b.mid", midi([(0, 480, 36)], drums=True), "silent"),
        ("b.mid", midi([(0, 480, 5)]), "silent"),
        ("b.mid", midi([(t * 480, 480, 60) for t in range(40)]), "too_many_notes"),
        ("b.mid", midi([(10_000_000, 480, 60)]), "too_long"),
        ("b.abc", b"no tune at all", "broken"),
        ("b.abc", ABC[: ABC.index(b"X:2")].replace(b"T:one", b"%%abc-include /etc/passwd"), "broken"),
        ("b.json", b"{", "broken"),
        ("b.json", b"[[[60.5]]]", "broken"),
        ("b.json", b'{"train": 3}', "broken"),
        ("b.json.gz", b"\x1f\x8b\x08", "cut_off"),
    ],
)
def test_bad_music_is_counted_or_ends_it(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.mid": midi([(0, 480, 60)]), name: content})
    caps = {"notes": 30, "steps": 1000}
    assert prepared(config("music", tmp_path / "out", corpus, ["*"], corpus_caps=caps)).report == {reason: 1}
    with pytest.raises(BadInput, match=rf"{name}.*: {reason}: "):
        prepared(config("music", tmp_path / "strict", corpus, ["*"], corpus_caps=caps, corpus_broken="stop"))


def test_notes_outside_of_a_piano_can_be_a_reason(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.mid": midi([(0, 480, 60)]), "b.mid": midi([(0, 480, 60), (0, 480, 5)])})
    assert prepared(config("music", tmp_path / "out", corpus, ["*"], outside="unfit")).report == {"outside_keys": 1}
