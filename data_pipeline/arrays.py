"""Arrays as .npy files; never of objects, which would have to be unpickled."""

import io
from pathlib import Path

import numpy as np


def array_path(folder: Path, name: str, kind: str) -> Path:
    """Where one array of a piece of the corpus lies."""
    return folder / f"{name}.{kind}.npy"


def load_array(path: Path) -> np.ndarray:
    """As a memory map."""
    found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def npy_bytes(array: np.ndarray) -> bytes:
    """The content of a .npy file: the same bytes for equal arrays."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def npy_array(content: bytes) -> np.ndarray:
    """ValueError where it is none, or has Python objects."""
    array: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
    return array
