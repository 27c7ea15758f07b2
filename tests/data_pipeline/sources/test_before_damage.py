"""What comes before damage in a compressed file is kept: to the last whole line or record, and nothing of a cut one."""

import gzip
import io
import json
import tarfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from data_pipeline.archives.decompression import DAMAGE, InSteps
from data_pipeline.sources.document import Report
from data_pipeline.sources.folder import folder_at
from data_pipeline.sources.opening import opened
from tests.data_pipeline.sources.reading import corpus_of, read
from tests.data_pipeline.sources.test_warc import Archive

RANDOM = np.random.default_rng(0)
NUMBERS = [" ".join(map(str, row)) for row in RANDOM.integers(0, 1 << 20, (20_000, 6)).tolist()]
WRITERS: dict[str, Callable[[str], bytes]] = {
    "jsonl": lambda text: json.dumps({"text": text}).encode() + b"\n",
    "line": lambda text: text.encode() + b"\n",
    "separator": lambda text: text.encode() + b"<|end|>",
}
FIELDS = {
    "jsonl": {"kind": "jsonl"},
    "line": {"kind": "files", "document": "line"},
    "separator": {"kind": "files", "document": "separator", "separator": "<|end|>"},
}


def before_damage(path: Path) -> bytes:
    """All that the reader of blocks gets."""
    found = bytearray()
    with opened(folder_at(str(path.parent)), path.name) as stream:
        try:
            while part := InSteps(stream).read(1 << 20):
                found += part
        except DAMAGE:
            return bytes(found)
    pytest.fail("the damage was not told")


def by_library(data: bytes, suffix: str) -> bytes:
    """All that can come out of a file that is cut off."""
    if suffix == ".gz":
        return zlib.decompressobj(31).decompress(data)
    return zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("kind", WRITERS)
def test_all_whole_documents_before_a_cut_are_kept(kind: str, suffix: str, tmp_path: Path) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    whole = pack(b"".join(WRITERS[kind](text) for text in NUMBERS))
    for share in (0.02, 0.3, 0.7):
        cut = whole[: int(share * len(whole))]
        (tmp_path / f"a{suffix}").write_bytes(cut)
        ending = WRITERS[kind]("")[-1:] if kind != "separator" else b"<|end|>"
        expected = by_library(cut, suffix).count(ending)
        assert expected > 0 or share == 0.02
        documents, counts = read(corpus_of(place=tmp_path, damaged_file="skip", **FIELDS[kind]))
        assert [one.text for one in documents] == NUMBERS[:expected]
        assert counts == {"damaged_file": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_whole_frames_and_members_before_a_cut_are_kept(suffix: str, tmp_path: Path) -> None:
    pack = gzip.compress if suffix == ".gz" else zstandard.compress
    frames = [pack(b"".join(WRITERS["line"](text) for text in NUMBERS[10 * at : 10 * at + 10])) for at in range(200)]
    (tmp_path / f"a{suffix}").write_bytes(b"".join(frames)[:-8])
    documents, counts = read(corpus_of(place=tmp_path, damaged_file="skip", **FIELDS["line"]))
    kept = 1990 if suffix == ".zst" else 2000  # the last eight bytes of a gzip member are sum and length
    assert [one.text for one in documents] == NUMBERS[:kept]
    assert counts == {"damaged_file": 1}


@pytest.mark.parametrize("lines", [50, 5000])
def test_a_gzip_member_with_a_wrong_sum_is_kept_whole(lines: int, tmp_path: Path) -> None:
    """What cannot be told apart from damage in its last byte: the text is there, and so is the count."""
    content = bytearray(gzip.compress(b"".join(WRITERS["line"](text) for text in NUMBERS[:lines])))
    content[-8] ^= 1
    (tmp_path / "a.gz").write_bytes(content)
    documents, counts = read(corpus_of(place=tmp_path, damaged_file="skip", **FIELDS["line"]))
    assert [one.text for one in documents] == NUMBERS[:lines]
    assert counts == {"damaged_file": 1}


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_whole_records_of_a_web_archive_before_a_cut_are_kept(suffix: str, tmp_path: Path) -> None:
    archive = Archive(compressed=suffix == ".gz")
    ends = []
    for text in NUMBERS[:30]:
        archive.conversion(text)
        ends.append(archive.buffer.tell())
    whole = archive.buffer.getvalue()
    data = b"".join(zstandard.compress(whole[a:b]) for a, b in zip([0, *ends], ends, strict=False)) + b"("
    cut = data if suffix == ".zst" else whole[: (ends[10] + ends[11]) // 2]
    (tmp_path / f"a.warc{suffix}").write_bytes(cut)
    documents, counts = read(corpus_of("warc", tmp_path, damaged_file="skip"))
    assert [one.text for one in documents] == NUMBERS[: 30 if suffix == ".zst" else 11]
    if suffix != ".gz":
        for one, start in zip(documents, [0, *ends], strict=False):
            assert one.start == start
            assert whole[one.start : one.stop].rstrip().endswith(one.text.encode())
    assert counts == {"damaged_file": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_whole_members_of_a_packed_tar_before_a_cut_are_kept(suffix: str, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for number in range(40):
            member = tarfile.TarInfo(f"{number}.txt")
            text = "\n".join(NUMBERS[400 * number : 400 * number + 400]).encode()
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    whole = (gzip.compress if suffix == ".gz" else zstandard.compress)(packed.getvalue())
    cut = whole[: int(0.9 * len(whole))]
    (tmp_path / f"a.tar{suffix}").write_bytes(cut)
    members, tar = 0, by_library(cut, suffix)
    with tarfile.open(fileobj=io.BytesIO(packed.getvalue())) as archive:
        for header in archive:
            members += header.offset_data + -(-header.size // 512) * 512 <= len(tar)
    documents, counts = read(corpus_of("webdataset", tmp_path, damaged_file="skip"))
    assert len(documents) == members > 0
    assert counts == {"damaged_file": 1}


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_all_bytes_before_a_cut_or_a_flipped_bit_are_given(suffix: str, tmp_path: Path) -> None:
    data = "\n".join(NUMBERS[:9000]).encode()
    whole = gzip.compress(data) if suffix == ".gz" else zstandard.ZstdCompressor(write_checksum=True).compress(data)
    path = tmp_path / f"a{suffix}"
    for length in [5, 30, *range(100, len(whole), len(whole) // 9), len(whole) - 4, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert before_damage(path) == by_library(whole[:length], suffix)
    for at in range(40, len(whole) - 8, len(whole) // 9):
        flipped = bytearray(whole)
        flipped[at] ^= 4
        path.write_bytes(flipped)
        least = by_library(whole[: at - 1], suffix)
        assert before_damage(path).startswith(least)


def test_memory_stays_bounded_before_damage(tmp_path: Path) -> None:
    content = b"".join(WRITERS["line"](text) for text in NUMBERS) * 6
    for suffix, pack in ((".gz", gzip.compress), (".zst", zstandard.compress)):
        whole = pack(content)
        (tmp_path / f"a{suffix}").write_bytes(whole[: len(whole) - 40])
        corpus = corpus_of(place=tmp_path, pattern=f"a{suffix}", damaged_file="skip", **FIELDS["line"])
        (piece,) = corpus.pieces(1 << 30)
        tracemalloc.start()
        assert sum(1 for _ in corpus.read(piece, Report())) > 80_000
        assert tracemalloc.get_traced_memory()[1] < 3_000_000 < len(content)
        tracemalloc.stop()
