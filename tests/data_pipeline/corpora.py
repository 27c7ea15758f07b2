"""Small corpora and configurations for tests of preparing."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.text import TextConfig

SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"
"""Public benchmark texts, where this checkout has them beside it."""

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "naïve",
    "東京",
    "sat;",
    "ran\tso\n\n",
    "",
    "odd_name(x)",
    "3.14",
    "<eos>",
    "<unk>",
    "I'm",
]


def write_files(directory: Path, *, count: int = 24, seed: int = 0, words: int = 300) -> Path:
    """`count` text files of random words, of different lengths; the same for the same arguments."""
    random = np.random.default_rng(seed)
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        size = int(random.integers(1, words))
        text = " ".join(WORDS[int(i)] + str(i * number % 7) for i in random.integers(0, len(WORDS), size))
        (directory / f"file-{number:03d}.txt").write_text(text + "\n", encoding="utf-8")
    return directory


def text_config(directory: Path, files: Path, **changes: Any) -> TextConfig:
    """Whole files, byte pairs, several shards."""
    fields = {
        "kind": "text",
        "directory": str(directory),
        "corpus": {"kind": "files", "directory": str(files), "train": ["*.txt"], "document": "file", "held_out": 0.2},
        "tokenizer": {"kind": "bpe", "vocab_size": 300, "sample_bytes": 8000},
        "shard_bytes": 4000,
    }
    return TextConfig.model_validate(fields | changes)


def prepared_text(place: Path) -> TextConfig:
    """Of `place/out`, made of `place/corpus` by this process."""
    config = text_config(place / "out", write_files(place / "corpus"))
    with LocalExecutor(1) as executor:
        prepare(config, executor=executor, report=lambda _: None)
    return config


def content_of(directory: Path) -> dict[str, str]:
    """Every file's path and hash."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
