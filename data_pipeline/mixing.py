"""Random 64-bit numbers as a pure function of what they are for: no state, the same on every machine and version.

`mix` is the finalizer of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators");
`keys` derives independent keys from a path, by BLAKE2b and then `mix`.
"""

import hashlib

import numpy as np

Words = np.ndarray
"""An array of uint64, of any shape."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def keys(count: int, *path: int | str) -> Words:
    """[count] uint64: equal paths give equal keys, others are independent."""
    text = "/".join(f"{type(part).__name__[0]}{part}" for part in path)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return mix(np.arange(count, dtype=np.uint64), np.uint64(int.from_bytes(digest, "little")))


def mix(words: Words, key: np.uint64) -> Words:
    """A bijection of the 64-bit words, keyed: one changed bit changes half of the result's bits."""
    z = (words ^ key) + GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(words: Words) -> np.ndarray:
    """float64 in [0, 1) from the upper 53 bits of each word."""
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def fraction_of(text: str) -> float:
    """A fixed number in [0, 1) for a text (a document's id): what splits and samples are chosen by."""
    return (int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 11) * 2.0**-53
