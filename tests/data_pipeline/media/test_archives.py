"""Archives: nothing that points out of them is read; cut off, damaged and huge ones end, and are told."""

import gzip
import itertools
import tarfile
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.config import BadInput
from data_pipeline.media.archive_entries import members, starts
from data_pipeline.media.item import Caps
from tests.data_pipeline.media.media_files import abouts, config, png, prepared, random_images, tar_of, write

IMAGES = {f"folder/{number}.png": png(values) for number, values in enumerate(random_images(9, 4, 3))}
PLAIN = tar_of(IMAGES)
PACKED = {
    "a.tar": PLAIN,
    "a.tar.gz": gzip.compress(PLAIN),
    "a.tgz": gzip.compress(PLAIN),
    "a.tar.zst": zstandard.compress(PLAIN),
}


@pytest.mark.parametrize("name", PACKED)
def test_members_are_items(name: str, tmp_path: Path) -> None:
    corpus = write(tmp_path / "corpus", {name: PACKED[name]})
    data = config("images", tmp_path / "out", corpus, ["a.*"])
    assert prepared(data).report == {}
    assert [about["source"] for about in abouts(tmp_path / "out")] == [f"{name}/{member}" for member in IMAGES]
    parts = config("images", tmp_path / "parts", corpus, ["a.*"], shard_bytes=200)
    assert len(parts.corpus.pieces(200)) > 2
    assert prepared(parts).report == {}
    names = sorted(about["source"] for about in abouts(tmp_path / "parts"))
    assert names == sorted(f"{name}/{member}" for member in IMAGES)


def _header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, link: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.size, header.linkname = kind, size, link
    return header


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (_header("/etc/evil.png", size=9), "absolute_path"),
        (_header("a/../../evil.png", size=9), "parent_path"),
        (_header("evil.png", tarfile.SYMTYPE, link="/etc/passwd"), "link"),
        (_header("evil.png", tarfile.LNKTYPE, link="folder/0.png"), "link"),
        (_header("evil.png", tarfile.CHRTYPE), "device"),
        (_header("evil.png", tarfile.BLKTYPE), "device"),
        (_header("evil.png", tarfile.FIFOTYPE), "device"),
        (_header("evil.png", tarfile.GNUTYPE_SPARSE), "sparse"),
        (_header("C:\\evil.png", size=9), "absolute_path"),
        (_header("a\\..\\evil.png", size=9), "parent_path"),
        (_header("evil.png", size=2000), "too_large"),
        (_header("README.md", size=9), "other_kind"),
    ],
)
def test_members_that_are_no_plain_files_below_it_are_refused(
    header: tarfile.TarInfo, reason: str, tmp_path: Path
) -> None:
    corpus = write(tmp_path / "corpus", {"a.tar": _joined(header)})
    data = config("images", tmp_path / "out", corpus, ["a.tar"], corpus_caps={"item_bytes": 1000})
    assert prepared(data).report == {reason: 1}
    assert len(data.vectors("train").labels) == 9
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "evil" in path.name]
    assert not written
    assert not Path("/etc/evil.png").exists()


def _joined(header: tarfile.TarInfo) -> bytes:
    """The member, and then the images."""
    return header.tobuf() + bytes(-(-header.size // 512) * 512) + PLAIN


CUTS = {
    "within a member": (PLAIN[: 512 * 3 + 20], "cut_off", 1),
    "between members": (PLAIN[: 512 * 4], "cut_off", 2),
    "within a header": (PLAIN[: 512 * 4 + 100], "cut_off", 2),
    "a damaged header": (PLAIN[: 512 * 4] + b"\xff" * 512 + PLAIN[512 * 5 :], "broken", 2),
    "a second archive behind": (PLAIN + PLAIN, "broken", 9),
    "no tar": (b"x" * 3000, "broken", 0),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cut", CUTS)
def test_what_is_before_the_damage_is_kept_and_the_damage_told(cut: str, packed: bool, tmp_path: Path) -> None:
    content, reason, whole = CUTS[cut]
    name, content = ("a.tar.gz", gzip.compress(content)) if packed else ("a.tar", content)
    corpus = write(tmp_path / "corpus", {name: content, "z.png": png(random_images(1, 4, 3)[0])})
    for number, piece_bytes in enumerate((1 << 20, 150)):
        data = config("images", tmp_path / f"{number}", corpus, ["*"], shard_bytes=piece_bytes)
        assert prepared(data).report == {reason: 1}
        assert len(data.vectors("train").labels) == whole + 1


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tar.zst"])
def test_a_packed_tar_that_is_cut_off_or_a_bomb_ends_there(name: str, tmp_path: Path) -> None:
    noise = {"noise.png": np.random.default_rng(0).bytes(200_000), **IMAGES}
    pack = gzip.compress if name.endswith("gz") else zstandard.compress
    cut = pack(tar_of(noise))
    bomb = pack(tar_of({**IMAGES, "z.png": bytes(30_000_000)}))
    corpus = write(
        tmp_path / "corpus", {name: cut[: len(cut) - 60], "bomb" + name: bomb, "z.png": IMAGES["folder/0.png"]}
    )
    report = prepared(config("images", tmp_path / "out", corpus, ["*"])).report
    assert report["expands_too_far"] == 1
    assert report["cut_off"] == 1


@pytest.mark.parametrize("piece_bytes", [1, 1000, 3000, 1 << 20])
def test_pieces_of_a_tar_have_each_member_once(piece_bytes: int, tmp_path: Path) -> None:
    path = write(tmp_path, {"a.tar": PLAIN}) / "a.tar"
    ends = [*starts(path, piece_bytes), len(PLAIN)]
    assert len(ends) > 2 or piece_bytes > len(PLAIN) - 10_240
    found = [entry for start, stop in itertools.pairwise(ends) for entry in members(path, "a.tar", start, stop, Caps())]
    assert {entry.name.removeprefix("a.tar/"): entry.content for entry in found} == IMAGES
    assert len(found) == len(IMAGES)


def test_a_long_name_is_whole_and_a_header_without_end_is_refused(tmp_path: Path) -> None:
    long = "folder/" * 40 + "a.png"
    path = write(tmp_path, {"a.tar": tar_of({long: b"1"})}) / "a.tar"
    assert [entry.name for entry in members(path, "a.tar", 0, 1 << 20, Caps())] == [f"a.tar/{long}"]
    header = _header("x", tarfile.XHDTYPE, size=1 << 30)
    path.write_bytes(header.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    (entry,) = members(path, "a.tar", 0, 1 << 20, Caps())
    assert entry.problem is not None
    assert entry.problem.reason == "broken"


def test_an_archive_that_is_gone_is_no_broken_item(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.tar: cannot be read"):
        list(members(tmp_path / "a.tar", "a.tar", 0, 1, Caps()))
