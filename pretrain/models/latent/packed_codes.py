"""Codes as bytes: each takes the bits that its number needs, one after the other.

Shape legend: N rows, P positions.
"""

import numpy as np

from data_pipeline.config import BadInput


def bits_of(num_codes: int) -> int:
    """Of one code: log2 of their number, rounded up."""
    return (num_codes - 1).bit_length()


def pack(codes_NP: np.ndarray, num_codes: int) -> bytes:
    """N P bits_of(num_codes) bits, the last byte filled up with zeros."""
    _check(codes_NP, num_codes)
    places = np.arange(bits_of(num_codes))
    return np.packbits((codes_NP.astype(np.int64).reshape(-1, 1) >> places & 1).astype(np.uint8)).tobytes()


def unpack(content: bytes, num_codes: int, num_positions: int, num_rows: int) -> np.ndarray:
    """[N, P] int64; BadInput where the length is of other numbers, or a code is none of them."""
    count, bits = num_rows * num_positions, bits_of(num_codes)
    size = -(-count * bits // 8)
    if len(content) != size:
        raise BadInput(f"{len(content)} bytes: {num_rows} rows of {num_positions} codes of {bits} bits take {size}")
    found = np.unpackbits(np.frombuffer(content, np.uint8), count=count * bits).reshape(count, bits).astype(np.int64)
    codes_NP: np.ndarray = (found << np.arange(bits)).sum(1).reshape(num_rows, num_positions)
    _check(codes_NP, num_codes)
    return codes_NP


def _check(codes_NP: np.ndarray, num_codes: int) -> None:
    if codes_NP.size and not 0 <= int(codes_NP.min()) <= int(codes_NP.max()) < num_codes:
        raise BadInput(f"codes from {codes_NP.min()} to {codes_NP.max()}: must lie from 0 to {num_codes - 1}")
