"""Which files a corpus of media has: what cannot be read, and a directory of its own within it, are told at once."""

from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from tests.data_pipeline.media.media_files import config, png, prepared, random_images, write
from tests.data_pipeline.unreadable import open_folder, unreadable

IMAGE = png(random_images(1, 4, 3)[0])


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path: Path) -> None:
    with open_folder() as place:
        corpus = write(place / "corpus", {"a.png": IMAGE, "one/b.png": IMAGE})
        data = config("images", tmp_path / "out", corpus, ["**/*.png"])
        with (
            unreadable(corpus / "one"),
            pytest.raises(BadInput, match=r"corpus\.directory .*Permission denied.*one.*elsewhere in corpus\.files"),
        ):
            data.corpus.listing()


def test_links_are_followed_and_those_to_nothing_told(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": IMAGE})
    (corpus / "more").symlink_to(write(tmp_path / "elsewhere", {"b.png": IMAGE}), target_is_directory=True)
    (corpus / "round").symlink_to(corpus, target_is_directory=True)
    data = config("images", tmp_path / "out", corpus, ["**/*.png"])
    assert [span.name for spans in data.corpus.pieces(1) for span in spans] == ["a.png", "more/b.png"]
    (corpus / "z.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(BadInput, match=r"z\.png: is a link to .*nothing"):
        data.corpus.listing()


def test_what_is_no_glob_is_told(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": IMAGE})
    with pytest.raises(BadInput, match=r"corpus\.files \*\*\.png: is no glob"):
        config("images", tmp_path / "out", corpus, ["**.png"]).corpus.listing()


@pytest.mark.parametrize(("place", "pattern"), [("self", "**/*"), ("", "*/*.tar"), ("a/b", "a/**/*.tar"), ("", "*")])
def test_a_directory_where_the_corpus_would_see_its_files_is_refused(place: str, pattern: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": IMAGE, "a/b.tar": b"", "a/c/d.tar": b""})
    data = config("images", corpus / place, corpus, [pattern])
    with pytest.raises(BadInput, match=r"data\.directory .*within corpus\.directory.*corpus\.files .*such as "):
        prepared(data)
    assert not (corpus / place / "work").exists()


def test_a_directory_within_the_corpus_that_no_glob_sees_is_taken(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": IMAGE})
    data = config("images", corpus / "out", corpus, ["**/*.png"])
    assert prepared(data) == prepared(data)


def test_a_name_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {"a.png": IMAGE})
    (corpus / "bad\udcff.png").write_bytes(IMAGE)
    with pytest.raises(
        BadInput, match=r"corpus\.files: the name 'bad\\udcff\.png' in .* is not UTF-8; rename the file"
    ):
        config("images", tmp_path / "out", corpus, ["*"]).corpus.listing()
