"""Documents with nearly the same words, by MinHash and locality-sensitive hashing: Broder 1997; Indyk and Motwani 1998.

A document is its set of *shingles*, the runs of n words (lower case, no punctuation). Each of `num_perm` permutations
gives the least of the permuted hashes; these values are cut in b bands of r rows. Two documents whose sets have the
Jaccard similarity s agree in some band, and so are taken for near-duplicates, with probability 1 - (1 - s^r)^b. Of
documents connected through such pairs the first in the corpus's order stays. The permutations, and the best b and r for
a threshold, are those of `datasketch` (extra `segue[deduplicate]`).
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.steps.first_copies import dropped_copies, sorted_keys
from data_pipeline.steps.step import CorpusStep, Signatures
from data_pipeline.steps.words import plain_words, run_hashes, text_runs, word_hashes

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor

SCHEME = "affine32"
"""datasketch's permutations; named, so that another version cannot choose others."""

BATCH = 1 << 12
"""Shingles that are permuted at a time: with 128 permutations that is 2 MiB."""

TOGETHER = 1 << 12
"""Documents whose values are held before they become hashes of bands."""


class NearDuplicatesConfig(CorpusStep):
    """Documents without a word are never duplicates; those of fewer words than a shingle are one shingle."""

    reason: ClassVar[str] = "near_duplicate"

    kind: Literal["near_duplicates"]
    threshold: float = Field(default=0.7, gt=0, lt=1)
    """Jaccard similarity about which pairs begin to be found: at 0.7, with 14 bands of 9, they are with probability
    0.0003 for 0.3, 0.03 for 0.5, 0.44 for 0.7, 0.87 for 0.8 and 0.999 for 0.9."""
    shingle_words: int = Field(default=5, ge=1)
    num_perm: int = Field(default=128, ge=2)
    seed: int = Field(default=1, ge=0, lt=2**32)
    """Of the permutations."""

    def start(self, folder: Path) -> str:
        bands, rows = bands_and_rows(self.threshold, self.num_perm)
        return f"{SCHEME}, {bands} bands of {rows}"

    def collector(self, folder: Path) -> "BandHashes":
        return BandHashes(self)

    def resolve(self, signatures: Signatures, executor: "Executor") -> np.ndarray:
        return dropped_copies(signatures, bands_and_rows(self.threshold, self.num_perm)[0], executor)


class BandHashes:
    """One hash for each band of each document."""

    def __init__(self, config: NearDuplicatesConfig) -> None:
        self._config = config
        self._bands, self._rows = bands_and_rows(config.threshold, config.num_perm)
        self._empty = _datasketch().MinHash(
            num_perm=config.num_perm, seed=config.seed, hashfunc=_as_it_is, scheme=SCHEME
        )
        self._positions: list[int] = []
        self._values: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []

    def add(self, position: int, text: str) -> None:
        values = self.values(text)
        if values is not None:
            self._positions.append(position)
            self._values.append(values[: self._bands * self._rows])
        if len(self._values) == TOGETHER:
            self._mix()

    def values(self, text: str) -> np.ndarray | None:
        """[num_perm] uint32, the least value of each permutation; None for a text without words."""
        signature, found = self._empty.copy(), False
        for runs in text_runs(text, self._config.shingle_words):
            found = True
            for start in range(0, len(runs), BATCH):
                signature.update_batch(_upper_half(runs[start : start + BATCH]))
        if not found and not (words := plain_words(text)):
            return None
        if not found:
            signature.update_batch(_upper_half(run_hashes(word_hashes(words), len(words))))
        values: np.ndarray = signature.hashvalues
        return values

    def arrays(self) -> dict[str, np.ndarray]:
        self._mix()
        return sorted_keys(np.concatenate(self._keys)[:, :, None], self._positions)

    def _mix(self) -> None:
        """The values so far become one hash for each band."""
        values = np.array(self._values, dtype=np.uint64).reshape(-1, self._bands, self._rows)
        self._keys.append(np.stack([_mixed(values[:, band]) for band in range(self._bands)], axis=1))
        self._values.clear()


@lru_cache(maxsize=16)
def bands_and_rows(threshold: float, num_perm: int) -> tuple[int, int]:
    """With the least sum of the integrals of false positives and negatives over all similarities.

    BadInput if one band is best.
    """
    try:
        found = _datasketch().MinHashLSH(threshold=threshold, num_perm=num_perm)
    except ValueError as error:
        raise BadInput(
            f"data.steps near_duplicates: threshold {threshold} with num_perm {num_perm} leaves fewer than two bands; "
            "use more permutations or a lower threshold"
        ) from error
    return int(found.b), int(found.r)


def _mixed(rows: np.ndarray) -> np.ndarray:
    """One hash of each row [documents, values] uint64: [documents] uint64."""
    total = np.zeros(len(rows), dtype=np.uint64)
    for column in rows.T:
        total = (total ^ column) * np.uint64(0xFF51AFD7ED558CCD)
        total ^= total >> np.uint64(32)
    return total


def _upper_half(hashes: np.ndarray) -> list[int]:
    halves: list[int] = (hashes >> np.uint64(32)).tolist()
    return halves


def _as_it_is(value: int) -> int:
    return value


def _datasketch() -> Any:
    try:
        import datasketch
    except ImportError as error:
        raise BadInput(
            'data.steps near_duplicates: needs datasketch, which is not installed: pip install "segue[deduplicate]"'
        ) from error
    return datasketch
