"""JSON files that carry the hash of their own bytes, and the hash that all of a checkpoint is verified with.

The first line of a sealed file is `{"hash": "<32 hexadecimal digits>",`, the hash of every byte after that line; the
rest makes it one plain JSON object, with a line for each key and for each key within. So each flipped bit is found, in
white space as well.

The hash is xxh3-128: 30 GB/s on one core where blake2b of the standard library makes 0.8 (and sha256 1.8), so that
hashing costs little beside the disk. It guards against accidents, not against someone who rewrites the hash too.
"""

import json
from pathlib import Path
from typing import Any

import xxhash
from torch import Tensor, uint8

from data_pipeline.config import Corrupt

HASH = "xxh3-128"


def hash_of(content: bytes | memoryview) -> str:
    """32 hexadecimal digits."""
    return xxhash.xxh3_128_hexdigest(content)


def bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a [n] tensor on the CPU, not copied."""
    return tensor.detach().contiguous().view(uint8).numpy().data


def seal(values: dict[str, Any]) -> bytes:
    """The bytes of a file that `unseal` accepts; raises ValueError for what JSON cannot say, such as NaN."""
    try:
        text = ",\n".join(f" {json.dumps(key)}: {_lines(value)}" for key, value in values.items())
    except ValueError as error:
        raise ValueError(f"cannot be stored as JSON: {error}") from error
    body = f"{text}\n}}\n".encode()
    return _first_line(body) + body


def _lines(value: Any) -> str:
    """A dictionary with a line for each key; json's own indent takes ten times as long, and a line for each number."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, allow_nan=False)
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(part, allow_nan=False)}" for key, part in value.items())
    return f"{{\n{lines}\n }}"


def unseal(path: Path) -> dict[str, Any]:
    """The values in a sealed file; raises Corrupt, naming it, where it is missing or not as it was written."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Corrupt(f"{path}: cannot be read: {error.strerror}") from error
    first_line, _, body = content.partition(b"\n")
    if first_line + b"\n" != _first_line(body):
        raise Corrupt(f"{path}: its bytes do not have the hash in its first line; it was damaged or edited")
    try:
        values: dict[str, Any] = json.loads(content)
    except ValueError as error:
        raise Corrupt(f"{path}: no JSON: {error}") from error
    del values["hash"]
    return values


def _first_line(body: bytes) -> bytes:
    return f'{{"hash": "{hash_of(body)}",\n'.encode()
