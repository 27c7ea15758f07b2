"""Words and runs of n words as 64-bit hashes, in bounded memory however long a text is.

A word's hash is XXH3's; that of a run is sum_i hash(word_i) * M^(n - 1 - i) mod 2^64 with an odd M: two different runs
have the same one with probability about 2^-64.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
import xxhash

BLOCK = 1 << 20
"""Characters of a text that are in work at a time."""

REMEMBERED = 1 << 19
"""Words whose hashes are kept at hand."""

_MULTIPLIER = 0x9E3779B97F4A7C15
_PUNCTUATION = re.compile(r"[^\w\s]|_")
_WHITE_SPACE = re.compile(r"\s")


class _Hashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= REMEMBERED:
            self.clear()
        self[word] = found = xxhash.xxh3_64_intdigest(word.encode("utf-8", "surrogatepass"))
        return found


_hashes = _Hashes()


def plain_words(text: str) -> list[str]:
    """In lower case, without punctuation, split at white space: GPT-3's "grams" (arXiv 2005.14165, appendix C)."""
    return _PUNCTUATION.sub("", text.lower()).split()


def word_hashes(words: Sequence[str]) -> np.ndarray:
    """[len(words)] uint64."""
    return np.fromiter(map(_hashes.__getitem__, words), dtype=np.uint64, count=len(words))


def run_hashes(hashes: np.ndarray, length: int) -> np.ndarray:
    """Of each run of `length` consecutive words: [max(0, len(hashes) - length + 1)] uint64."""
    count = max(0, len(hashes) - length + 1)
    total = np.zeros(count, dtype=np.uint64)
    if count:
        multiplier = np.uint64(_MULTIPLIER)
        for start in range(length):
            total *= multiplier
            total += hashes[start : start + count]
    return total


def text_runs(text: str, length: int) -> Iterator[np.ndarray]:
    """The hashes of all runs of `length` plain words of a text, block after block; none for fewer words."""
    carried = np.zeros(0, dtype=np.uint64)
    for block in blocks(text):
        hashes = np.concatenate([carried, word_hashes(plain_words(block))])
        found = run_hashes(hashes, length)
        if len(found):
            yield found
        carried = hashes[max(0, len(hashes) - length + 1) :]


def blocks(text: str) -> Iterator[str]:
    """The text in parts of about BLOCK characters, cut at white space."""
    start = 0
    while start < len(text):
        cut = _WHITE_SPACE.search(text, start + BLOCK)
        stop = cut.start() if cut else len(text)
        yield text[start:stop]
        start = stop
