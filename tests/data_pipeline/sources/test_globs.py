"""What globs mean: as pathlib takes them, but that links are followed and nothing is passed over in silence."""

import os
import re
from pathlib import Path

import pytest

from data_pipeline.config import BadInput
from data_pipeline.sources.globs import files_matching, matches
from tests.data_pipeline.sources.reading import corpus_of, read
from tests.data_pipeline.unreadable import open_folder, unreadable

NAMES = ("a.txt", "b.md", ".hidden.txt", "one/a.txt", "one/two/c.txt", "one/two/[x].txt", "three/a.txt.gz", "ä/ö.txt")


def tree(base: Path) -> Path:
    for name in NAMES:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return base


@pytest.mark.parametrize(
    "pattern",
    ["*", "**/*", "*.txt", "**/*.txt", "one/**/*", "one/*/c.txt", "**/two/*", "*/a.*", "**/**/a.txt", "[ab].*", "?.md",
     "one", "no/such", "a.txt/x", "**/one/**/*.txt", "[!a]*/*", "./a.txt"],
)  # fmt: skip
def test_plain_files_are_those_that_pathlib_finds(pattern: str, tmp_path: Path) -> None:
    base = tree(tmp_path)
    expected = {path.relative_to(base).as_posix() for path in base.glob(pattern) if path.is_file()}
    assert files_matching(base, pattern) == {name: len(name.encode()) for name in expected}
    assert {name for name in NAMES if matches(pattern, name)} == expected


@pytest.mark.parametrize("pattern", ["**.txt", "a**/b", "."])
def test_what_is_no_glob_is_told(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"stands for whole names|names nothing"):
        files_matching(tmp_path, pattern)


def test_folders_are_looked_into_once_whatever_links_lead_there(tmp_path: Path) -> None:
    elsewhere = tree(tmp_path / "elsewhere")
    base = tmp_path / "base"
    (base / "real").mkdir(parents=True)
    (base / "real" / "x.txt").write_text("x")
    (base / "a_link_within").symlink_to("real", target_is_directory=True)
    (base / "round").symlink_to(base, target_is_directory=True)
    (base / "out").symlink_to(elsewhere, target_is_directory=True)
    (base / "out_again").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(base, target_is_directory=True)
    (base / "file_link.txt").symlink_to(base / "real" / "x.txt")
    outside = {f"out/{name}" for name in NAMES if name.endswith(".txt")}
    assert set(files_matching(base, "**/*.txt")) == {"real/x.txt", "file_link.txt", *outside}
    assert set(files_matching(base, "a_link_within/*.txt")) == {"a_link_within/x.txt"}
    assert "out_again/one/a.txt" in files_matching(base, "out_again/**/*.txt")
    documents, _ = read(corpus_of("files", base, "**/*.txt", document="file"))
    assert {one.id for one in documents} == {"real/x.txt", "file_link.txt", *outside}


def test_links_to_nothing_are_an_error_where_a_glob_names_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    (tmp_path / "round.md").symlink_to(tmp_path / "round.md")
    assert read(corpus_of("files", tmp_path, "a.*", document="file"))[0]
    for pattern in ("gone.txt", "*.txt", "**/*.txt", "*.md"):
        with pytest.raises(BadInput, match=r"(gone\.txt|round\.md): is a link to .*, which cannot be had .*remove the"):
            corpus_of("files", tmp_path, pattern, document="file").pieces(9)


def test_a_folder_that_may_not_be_read_is_an_error() -> None:
    with open_folder() as place:
        base = tree(place / "base")
        with unreadable(base / "one" / "two"):
            for pattern in ("**/*.txt", "one/two/*", "one/two/c.txt", "*/*/*"):
                with pytest.raises(BadInput, match=rf"{re.escape(str(base))}.*Permission denied.*one/two.*may be read"):
                    corpus_of("files", base, pattern, document="file").pieces(9)
            assert corpus_of("files", base, "*.txt", document="file").pieces(9)
        assert os.geteuid() == os.getuid()


def test_a_corpus_below_a_folder_that_may_not_be_read_is_an_error() -> None:
    with open_folder() as place:
        base = tree(place / "base")
        with unreadable(base / "one"), pytest.raises(BadInput, match=r"cannot be reached .*Permission denied"):
            corpus_of("files", base / "one" / "two", "*", document="file").pieces(9)


def test_a_link_round_to_itself_that_no_glob_names_and_a_disks_own_folder_are_no_matter() -> None:
    with open_folder() as place:
        base = tree(place / "base")
        before = files_matching(base, "**/*.txt")
        (base / "loop").symlink_to(base / "loop")
        (base / "lost+found").mkdir()
        with unreadable(base / "lost+found"):
            assert files_matching(base, "**/*.txt") == before
            assert files_matching(base, "*/*.txt") == {
                name: size for name, size in before.items() if name.count("/") == 1
            }
