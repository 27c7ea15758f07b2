"""Tiny media and configurations for tests of preparing them."""

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import symusic
from PIL import Image
from pydantic import TypeAdapter

from data_pipeline.data import DataConfig
from data_pipeline.media.media_data import MediaData
from data_pipeline.media.media_manifest import MediaManifest
from data_pipeline.media.media_pipeline import prepare_media
from data_pipeline.prepare import LocalExecutor

READ = TypeAdapter[Any](DataConfig)


def config(kind: str, directory: Path, corpus: Path, files: list[str], **changes: Any) -> MediaData:
    """Of small rows; keys of the corpus are given as corpus_KEY."""
    usual: dict[str, Any] = {
        "images": {"height": 4, "width": 3},
        "audio": {"rate": 8000, "window": 10},
        "music": {"steps_per_quarter": 2},
    }[kind]
    inner = {key.removeprefix("corpus_"): value for key, value in changes.items() if key.startswith("corpus_")}
    outer = {key: value for key, value in changes.items() if not key.startswith("corpus_")}
    made = READ.validate_python(
        {
            "kind": kind,
            "directory": str(directory),
            "corpus": {"directory": str(corpus), "files": files, **inner},
            **usual,
            **outer,
        }
    )
    assert isinstance(made, MediaData)
    return made


def prepared(data: MediaData, workers: int = 1) -> MediaManifest:
    with LocalExecutor(workers) as executor:
        return prepare_media(data, executor=executor, report=lambda _: None)


def png(values: np.ndarray, format: str = "PNG") -> bytes:
    """uint8 [H, W] or [H, W, 3]."""
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, format=format)
    return stream.getvalue()


def random_images(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(count, *shape), dtype=np.uint8)


def sound(samples: np.ndarray, rate: int = 8000, format: str = "WAV", subtype: str = "PCM_16") -> bytes:
    """int16 or float [T] or [T, C]."""
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=format, subtype=subtype)
    return stream.getvalue()


def random_samples(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-32768, 32768, size=count, dtype=np.int16)


def midi(notes: list[tuple[int, int, int]], ticks: int = 480, *, drums: bool = False) -> bytes:
    """(begin, ticks, pitch) of each."""
    score = symusic.Score(ticks)
    track = symusic.Track(is_drum=drums)
    for begin, length, pitch in notes:
        track.notes.append(symusic.Note(begin, length, pitch, 64))
    score.tracks.append(track)
    return bytes(score.dumps_midi())


def idx(values: np.ndarray) -> bytes:
    """uint8 of any shape."""
    return (0x800 + values.ndim).to_bytes(4, "big") + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def write(directory: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory


def tar_of(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def chorales(**pieces: list[list[list[int]]]) -> bytes:
    """JSON in .gz: the steps of pieces by group."""
    return gzip.compress(json.dumps(pieces).encode())


def tars_of(directory: Path) -> dict[str, dict[str, bytes]]:
    """Tar -> member -> content, in order."""
    found = {}
    for path in sorted((directory / "shards").glob("*.tar")):
        with tarfile.open(path) as archive:
            found[path.name] = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    return found


def abouts(directory: Path) -> list[dict[str, Any]]:
    """The JSON members, in order."""
    return [
        json.loads(content)
        for members in tars_of(directory).values()
        for name, content in members.items()
        if name.endswith(".json")
    ]
