"""Data of kind `parallel_text`: two files for each split whose lines belong together, as translations are published.

One tokenizer is trained on both sides of the training split and kept in `directory`, under a name that is a hash of the
training files and of the tokenizer's settings: whoever has the same files and settings has the same tokenizer, and
other ones never mix. It is stored with its own hash, by which it is checked whenever it is read back.
"""

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from data_pipeline.atomic import sha256_of, write_atomically
from data_pipeline.config import BadInput, Corrupt
from data_pipeline.pair_data import PairData
from data_pipeline.streams.pairs import Pairs, Sequences
from data_pipeline.tokenizers import TokenizerConfig
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer

HASH_FILE = "hash.json"


@dataclass(frozen=True, slots=True)
class Report:
    """What became of the lines of a split."""

    lines: int
    empty: int
    """Pairs left out as one side, or both, has no token."""
    too_long: int
    """Pairs left out as one side, or both, has more tokens than `max_length`."""
    unknown: int
    """Tokens of the pairs that are left which the vocabulary cannot spell; they stand as its unknown token."""
    pairs: int

    def to_json(self) -> dict[str, int]:
        return asdict(self)


class ParallelTextConfig(PairData):
    """Which files, how they are tokenized, and what is left out."""

    kind: Literal["parallel_text"]
    directory: str
    """Where the tokenizer is kept, such as data/multi30k-en-fr."""
    files: str
    """The directory of the text files."""
    source: str
    """The files of the source are named STEM.SOURCE or STEM.SOURCE.gz, such as train.en.gz."""
    target: str
    train: str = "train"
    """Stem of the files of this split."""
    valid: str = "valid"
    test: str = "test"
    tokenizer: TokenizerConfig
    max_length: int = Field(default=100, ge=1)
    """Tokens of a side; longer pairs are left out, and counted."""

    def vocab_size(self) -> int:
        return self.load_tokenizer().vocab_size

    def boundary(self) -> int:
        """The tokenizer's end of document, which no text encodes to."""
        return self.load_tokenizer().end_of_document

    def text(self, ids: Sequence[int]) -> str:
        return self.load_tokenizer().decode(ids)

    def unknown(self) -> int | None:
        return self.load_tokenizer().unknown

    def references(self, split: str) -> tuple[str, ...]:
        """The lines of the target's file that belong to the pairs."""
        return _read(self, split)[2]

    def report(self, split: str) -> Report:
        """What was left out of a split."""
        return _read(self, split)[1]

    def left_out(self, split: str) -> dict[str, int]:
        return {**self.report(split).to_json(), "max_length": self.max_length}

    def load_tokenizer(self) -> Tokenizer:
        """The kept one; the first time it is trained."""
        return _tokenizer(self)

    def _pairs(self, split: str) -> Pairs:
        return _read(self, split)[0]

    def paths(self, split: str) -> tuple[Path, Path]:
        """The split's source and target; BadInput where there is no such file."""
        return self._path(split, "source"), self._path(split, "target")

    def _path(self, split: str, side: Literal["source", "target"]) -> Path:
        stem, suffix = getattr(self, split), getattr(self, side)
        path = Path(self.files) / f"{stem}.{suffix}"
        for existing in (path, path.with_name(f"{path.name}.gz")):
            if existing.is_file():
                return existing
        raise BadInput(
            f"data.files {self.files}: has no {path.name} (or .gz), the {side} of the split {split}; "
            f"set data.files, data.{split} or data.{side} so that it is found"
        )


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file, plain or .gz, without white space at their ends; BadInput where it is none."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give UTF-8 text, plain or .gz") from error
    return [line.strip() for line in text.removesuffix("\n").split("\n")] if text else []


def _aligned_lines(config: ParallelTextConfig, split: str) -> tuple[list[str], list[str]]:
    source_path, target_path = config.paths(split)
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise BadInput(
            f"{source_path} has {len(sources):,} lines and {target_path} {len(targets):,}: line by line, one must be "
            "the translation of the other; get both files again"
        )
    return sources, targets


@lru_cache(maxsize=8)
def _read(config: ParallelTextConfig, split: str) -> tuple[Pairs, Report, tuple[str, ...]]:
    """The pairs of a split, what was left out, and the lines of their targets; BadInput where nothing is left."""
    lines = _aligned_lines(config, split)
    tokenizer = config.load_tokenizer()
    every = list(zip(*(tokenizer.encode_batch(side) for side in lines), strict=True))
    full = [number for number, pair in enumerate(every) if all(len(side) for side in pair)]
    left = [number for number in full if max(map(len, every[number])) <= config.max_length]
    kept = [every[number] for number in left]
    report = Report(
        lines=len(every),
        empty=len(every) - len(full),
        too_long=len(full) - len(kept),
        unknown=sum(int((side == tokenizer.unknown).sum()) for pair in kept for side in pair)
        if tokenizer.unknown is not None
        else 0,
        pairs=len(kept),
    )
    if not kept:
        raise BadInput(
            f"data.files {config.files}: the split {split} has no pair left: of {report.lines:,} lines {report.empty:,}"
            f" were empty and {report.too_long:,} above data.max_length={config.max_length} tokens; give more text, or "
            "raise it"
        )
    sources, targets = (Sequences.of(side) for side in zip(*kept, strict=True))
    return Pairs(sources, targets, tokenizer.end_of_document), report, tuple(lines[1][number] for number in left)


@lru_cache(maxsize=8)
def _tokenizer(config: ParallelTextConfig) -> Tokenizer:
    hashes = [sha256_of(path) for path in config.paths("train")]
    identity = json.dumps([hashes, config.tokenizer.model_dump(mode="json")], sort_keys=True)
    directory = Path(config.directory) / f"tokenizer-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"
    if (directory / HASH_FILE).is_file():
        return load_tokenizer(directory, _kept_hash(directory / HASH_FILE))
    texts = [line for side in _aligned_lines(config, "train") for line in side if line]
    if not texts:
        raise BadInput(f"data.files {config.files}: the training files have no text to train a tokenizer on")
    made = config.tokenizer.build(iter(texts), Counter(word for text in texts for word in text.split()))
    made.save(directory)
    write_atomically(directory / HASH_FILE, (json.dumps({"hash": made.hash}) + "\n").encode())
    return made


def _kept_hash(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["hash"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Corrupt(
            f"{path}: not the hash of a tokenizer ({error}); remove its directory to train it anew"
        ) from error
