"""Arrays as the bytes of a .npy file; never of objects."""

import io

import numpy as np


def npy_bytes(array: np.ndarray) -> bytes:
    """The same bytes for equal arrays."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npy_array(content: bytes) -> np.ndarray:
    """ValueError where it is none, or has Python objects."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array
