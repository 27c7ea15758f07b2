"""Text in tars: every member once; what is damaged or could do harm is noticed, named, and never unpickled."""

import gzip
import io
import json
import os
import pickle
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from pydantic import ValidationError

from data_pipeline.config import BadInput
from tests.data_pipeline.sources.reading import corpus_of, read, texts


def tar_of(members: dict[str, bytes], change: Callable[[tarfile.TarInfo], None] = lambda header: None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            change(header)
            archive.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


MEMBERS = {f"{number:03d}.{kind}": f"{kind} {number} é".encode() for number in range(20) for kind in ("txt", "jpg")}


def test_members_are_documents_under_their_names(tmp_path: Path) -> None:
    data = tar_of(MEMBERS | {"folder/x.y.txt": b"in a folder", "n" * 200 + ".txt": b"long name"})
    (tmp_path / "a.tar").write_bytes(data)
    documents, counts = read(corpus_of("webdataset", tmp_path))
    expected = [*(f"{number:03d}.txt" for number in range(20)), "folder/x.y.txt", "n" * 200 + ".txt"]
    assert [one.id for one in documents] == [f"a.tar:{name}" for name in expected]
    assert [data[one.start : one.stop].decode() for one in documents] == [one.text for one in documents]
    assert {one.source for one in documents} == {"a.tar"}
    assert counts == {"other_member": 20}


@pytest.mark.parametrize("compress", [gzip.compress, zstandard.compress])
def test_compressed_tars_hold_the_same(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of(MEMBERS))
    (tmp_path / f"b.tar.{'gz' if compress is gzip.compress else 'zst'}").write_bytes(compress(tar_of(MEMBERS)))
    plain, compressed = (texts(corpus_of("webdataset", tmp_path, pattern)) for pattern in ("a*", "b*"))
    assert plain == compressed
    assert len(plain) == 20


def test_json_members(tmp_path: Path) -> None:
    members = {
        "a.json": json.dumps({"text": "one"}).encode(),
        "b.json": b'{"text"',
        "c.json": b"\xef\xbb\xbf" + json.dumps({"text": "two"}).encode(),
        "d.json": b'{"text": "\\ud800"}',
        "e.json": b"",
        "f.json": b"{}",
    }
    (tmp_path / "a.tar").write_bytes(tar_of(members))
    documents, counts = read(corpus_of("webdataset", tmp_path, extension="json"))
    assert [one.text for one in documents] == ["one", "two"]
    assert counts == {"not_json": 1, "removed_byte_order_mark": 1, "lone_surrogate": 1, "empty": 1, "no_text": 1}
    with pytest.raises(BadInput, match=r"a\.tar:b\.json: no JSON.*corpus\.bad_record"):
        read(corpus_of("webdataset", tmp_path, extension="json", bad_record="stop"))


def link(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(header: tarfile.TarInfo) -> None:
        header.type, header.linkname, header.size = kind, "/etc/passwd", 0

    return change


@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("../up.txt", None, "its name leaves the folder"),
        ("a/../../up.txt", None, "its name leaves the folder"),
        ("a\\..\\up.txt", None, "its name leaves the folder"),
        ("/etc/up.txt", None, "its name is absolute"),
        ("C:\\up.txt", None, "its name is absolute"),
        ("up.txt", link(tarfile.SYMTYPE), "it is a link, to '/etc/passwd'"),
        ("up.txt", link(tarfile.LNKTYPE), "it is a link, to '/etc/passwd'"),
        ("up.txt", link(tarfile.CHRTYPE), "it is a device or the like"),
        ("up.txt", link(tarfile.FIFOTYPE), "it is a device or the like"),
        ("up.txt", link(tarfile.GNUTYPE_SPARSE), "it is sparse"),
    ],
)
@pytest.mark.parametrize("damaged_file", ["skip", "stop"])
def test_what_leaves_the_folder_is_refused_by_name(
    name: str, change: Callable[[tarfile.TarInfo], None] | None, problem: str, damaged_file: str, tmp_path: Path
) -> None:
    members = {"good.txt": b"good", name: b"bad"}
    (tmp_path / "a.tar").write_bytes(
        tar_of(members, lambda header: change(header) if change and header.name == name else None)
    )
    with pytest.raises(BadInput) as raised:
        read(corpus_of("webdataset", tmp_path, damaged_file=damaged_file))
    assert f"a.tar: member {name!r} is refused: {problem}" in str(raised.value)


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    (tmp_path / "a.tar").write_bytes(tar_of({"a.pkl": trap, "a.pyd": trap, "a.txt": b"text", "b.txt": trap}))
    documents, counts = read(corpus_of("webdataset", tmp_path, "a.tar"))
    assert documents[0].text == "text"
    assert counts["other_member"] == 2
    assert not (tmp_path / "sprung").exists()
    pickle.loads(trap)
    assert (tmp_path / "sprung").exists(), "the trap would not have sprung"


def test_names_that_are_not_utf8_have_ids_that_are(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"caf\udce9.txt": b"one"}))
    documents, _ = read(corpus_of("webdataset", tmp_path))
    assert [one.id for one in documents] == [r"a.tar:caf\xe9.txt"]


@pytest.mark.parametrize("extension", ["pkl", "pickle", "txt.pyd", "pth", "", ".txt", "a/b", "npy"])
def test_extensions_that_hold_no_text_are_refused(extension: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="extension"):
        corpus_of("webdataset", tmp_path, extension=extension)


def test_a_tar_cut_anywhere_is_an_error_or_counted(tmp_path: Path) -> None:
    whole = tar_of({f"{number}.txt": b"x" * 700 for number in range(3)})
    content = 3 * (512 + 1024)
    path = tmp_path / "a.tar"
    for length in [*range(100, content + 512, 256), content]:
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"a\.tar: cannot be read .*corpus\.damaged_file"):
            read(corpus_of("webdataset", tmp_path))
        documents, counts = read(corpus_of("webdataset", tmp_path, damaged_file="skip"))
        assert counts == {"damaged_file": 1}
        assert all(one.text == "x" * 700 for one in documents)
    path.write_bytes(whole[: content + 1024])
    assert len(texts(corpus_of("webdataset", tmp_path))) == 3


@pytest.mark.parametrize("place", ["name", "magic", "second", "after"])
def test_other_damage(place: str, tmp_path: Path) -> None:
    data = bytearray(tar_of({"a.txt": b"one", "b.txt": b"two"}))
    if place == "after":
        data += tar_of({"c.txt": b"three"})
    else:
        data[{"name": 0, "magic": 150, "second": 1024 + 3}[place]] ^= 0x55
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(BadInput, match=r"a\.tar: cannot be read"):
        read(corpus_of("webdataset", tmp_path))


def test_bombs_are_cut_off(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_of({"a.txt": b"good", "b.txt": b"x" * 30_000_000}), 9))
    (tmp_path / "b.tar").write_bytes(tar_of({"a.txt": b"too long" * 20, "b.txt": b"good"}))
    corpus = corpus_of("webdataset", tmp_path, max_document_bytes=100)
    documents, counts = read(corpus)
    assert [one.id for one in documents] == ["a.tar.gz:a.txt", "b.tar:b.txt"]
    assert counts == {"expands_too_far": 1, "too_long": 2}


def test_a_header_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    (tmp_path / "a.tar").write_bytes(header.tobuf() + bytes(10_000))
    with pytest.raises(BadInput, match="a header of 1073741824 bytes"):
        read(corpus_of("webdataset", tmp_path))


def test_many_members_take_no_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 5000):
        (tmp_path / "a.tar").write_bytes(tar_of({f"{number}.txt": b"x" for number in range(count)}))
        corpus = corpus_of("webdataset", tmp_path)
        tracemalloc.start()
        assert sum(1 for _ in corpus.documents("train")) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (1 << 20)
