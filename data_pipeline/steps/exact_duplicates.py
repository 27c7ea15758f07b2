"""Documents with equal text: the first in the corpus's order stays, whatever its split."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import xxhash

from data_pipeline.steps.first_copies import dropped_copies, sorted_keys
from data_pipeline.steps.step import CorpusStep, Signatures
from data_pipeline.steps.words import blocks, plain_words

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor

Compared = Literal["text", "words"]


class ExactDuplicatesConfig(CorpusStep):
    """By XXH3 of 128 bits: among 10^12 documents two different ones are taken for equal with probability 2^-49."""

    reason: ClassVar[str] = "duplicate"

    kind: Literal["exact_duplicates"]
    compare: Compared = "text"
    """The text as it is, or its words in lower case without punctuation and white space."""

    def collector(self, folder: Path) -> "TextHashes":
        return TextHashes(self.compare)

    def resolve(self, signatures: Signatures, executor: "Executor") -> np.ndarray:
        return dropped_copies(signatures, 1, executor)


class TextHashes:
    """128 bits of each text."""

    def __init__(self, compare: Compared) -> None:
        self._compare = compare
        self._positions: list[int] = []
        self._digests = bytearray()

    def add(self, position: int, text: str) -> None:
        digest = xxhash.xxh3_128()
        for part in self._parts(text):
            digest.update(part.encode("utf-8", "surrogatepass"))
        self._positions.append(position)
        self._digests += digest.digest()

    def arrays(self) -> dict[str, np.ndarray]:
        digests = np.frombuffer(bytes(self._digests), dtype=">u8").astype(np.uint64)
        return sorted_keys(digests.reshape(-1, 1, 2), self._positions)

    def _parts(self, text: str) -> Iterator[str]:
        for block in blocks(text):
            yield block if self._compare == "text" else "".join(f"{word} " for word in plain_words(block))
