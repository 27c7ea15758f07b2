"""Whole tensors out of a checkpoint: for one process that evaluates or samples, or for a file read without Segue."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.checkpoint.durable import sync_directory
from pretrain.checkpoint.layout import PARTIAL
from pretrain.checkpoint.phases import NotSaved
from pretrain.checkpoint.piece import Reader
from pretrain.checkpoint.read import CheckpointReader
from pretrain.checkpoint.space import check_room


def gather_weights(reader: Reader) -> dict[str, Tensor]:
    """Every parameter, in its shape, by the name that the model gives it."""
    return gather_tensors(reader, kind="weights")


def gather_tensors(reader: Reader, *, kind: str) -> dict[str, Tensor]:
    """Every tensor named `<kind>/<name>`, in its shape, by `<name>`."""
    names = sorted(name for name in reader.names() if name.startswith(f"{kind}/"))
    return {name.removeprefix(f"{kind}/"): whole(reader, name) for name in names}


def whole(reader: Reader, name: str) -> Tensor:
    """The whole tensor, in its shape."""
    shape = reader.shape(name)
    return reader.read(name, 0, math.prod(shape)).reshape(shape)


def export_weights(
    reader: CheckpointReader, file: Path, *, dtype: torch.dtype, more: Mapping[str, str] | None = None
) -> int:
    """Write weights and buffers, by the names that the model gives them, to one new safetensors file; its bytes.

    Floating-point weights become `dtype`, buffers stay as they are. The metadata hold the resolved experiment and
    counters as JSON, and `more`. The file is there whole or not at all. Raises BadInput where it cannot be made there,
    NotSaved where the disk has no room, Corrupt where the checkpoint is damaged.
    """
    if file.exists():
        raise BadInput(f"{file} is there already; choose another name, or remove it")
    if not file.parent.is_dir():
        raise BadInput(f"{file}: there is no directory {file.parent}; make it first")
    weights = {name: _as(tensor, dtype) for name, tensor in gather_weights(reader).items()}
    tensors = weights | gather_tensors(reader, kind="buffers")
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    check_room(file.parent, size + 2**16 + 1024 * len(tensors), what="the export")
    manifest = reader.manifest
    metadata = {
        "format": "pt",
        "step": str(reader.step),
        "experiment": json.dumps(manifest.experiment),
        "counters": json.dumps(manifest.counters),
        "versions": json.dumps(manifest.versions),
        **(more or {}),
    }
    draft = file.with_name(f"{file.name}{PARTIAL}{uuid4().hex[:8]}")
    try:
        draft.touch()
        mode = draft.stat().st_mode  # as the user's umask says; the library makes its file for the owner alone
        save_file(tensors, draft, metadata=metadata)
        draft.chmod(mode)
        with open(draft, "rb") as written:
            os.fsync(written.fileno())
        os.replace(draft, file)
        sync_directory(file.parent)
    except SafetensorError as error:  # of the library, which has its own where a disk is full
        raise NotSaved(
            f"{file} cannot be written ({error}); nothing of it is left; free space, and export again"
        ) from error
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error.strerror or error}") from error
    finally:
        draft.unlink(missing_ok=True)
    return file.stat().st_size


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
