"""A keyed pseudo-random permutation of range(n) in O(1) memory: any place of a shuffled epoch, without the others.

A Feistel network over pairs (left, right) in range(a) x range(b), a * b >= n, a and b near sqrt(n): each round adds to
one half a keyed function of the other, which is undone by subtracting it, so every round is a bijection of the pairs.
Results beyond n are sent through the network again until they fall below it (cycle walking: Black and Rogaway 2002,
"Ciphers with arbitrary finite domains"); since a * b < n + sqrt(n) + 1, hardly any are.
"""

import math

import numpy as np

from data_pipeline.mixing import Words, keys, mix

ROUNDS = 16
"""With 8, some orders of five things are twice as likely as others; from 12 on, none is found to be."""


AT_ONCE = 1 << 14
"""Indices: what they become in between stays in the processor's cache."""


class Permutation:
    """`permutation(indices)` is where the shuffled order of range(size) has those places."""

    def __init__(self, size: int, *path: int | str) -> None:
        """The permutation of range(size) that `path` (seed, epoch, what is shuffled) is the key of."""
        if size < 1 or size >= 2**62:
            raise ValueError(f"size {size}: a permutation needs 0 < size < 2**62")
        self.size = size
        height = math.isqrt(size - 1) + 1
        self._height, self._width = np.uint64(height), np.uint64(-(-size // height))
        self._keys = keys(ROUNDS, *path)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """int64 of the shape of `indices`, which must lie in range(size)."""
        if indices.size and (int(indices.min()) < 0 or int(indices.max()) >= self.size):
            raise IndexError(f"indices must lie in range({self.size})")
        flat = indices.ravel()
        images = np.empty(flat.shape, dtype=np.int64)
        for start in range(0, flat.size, AT_ONCE):
            images[start : start + AT_ONCE] = self._images(flat[start : start + AT_ONCE].astype(np.uint64))
        return images.reshape(indices.shape)

    def _images(self, words: Words) -> Words:
        images = self._rounds(words)
        while (outside := images >= np.uint64(self.size)).any():
            images[outside] = self._rounds(images[outside])
        return images

    def _rounds(self, words: Words) -> Words:
        left: Words = words // self._width
        right: Words = words % self._width
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + mix(left, key) % self._width) % self._width
            else:
                left = (left + mix(right, key) % self._height) % self._height
        return left * self._width + right
