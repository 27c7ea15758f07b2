"""A run's model as it was saved, on one process."""

import json
import sys
from pathlib import Path

import torch

from data_pipeline.config import BadInput
from pretrain import checkpoint
from pretrain.checkpoint.layout import MANIFEST
from pretrain.contract import Model
from pretrain.kernels_config import KernelsConfig
from pretrain.models import ModelConfig


def open_checkpoint(directory: Path, step: int | None = None) -> checkpoint.CheckpointReader:
    """A run's newest good checkpoint, or that of a step, held against retention; BadInput where there is none such."""
    if step is None:
        reader = checkpoint.newest_good(directory, log=_warn, hold=True)
        if reader is None:
            raise BadInput(f"{directory} has no checkpoint yet; train until it has saved one")
        return reader
    found = checkpoint.list_checkpoints(directory)
    for info in reversed(found):
        if info.step == step:
            return checkpoint.CheckpointReader(info.path, hold=True)
    steps = ", ".join(str(info.step) for info in found) or "none"
    raise BadInput(f"checkpoint {step}: {directory} has no checkpoint of this step; it has {steps}")


def _warn(line: str) -> None:
    print(f"warning: {line}", file=sys.stderr)


def checkpoint_hash(reader: checkpoint.CheckpointReader) -> str:
    """Of the manifest, which holds the hash of every tensor."""
    return str(json.loads((reader.path / MANIFEST).read_bytes())["hash"])


def load_model(
    reader: checkpoint.CheckpointReader,
    config: ModelConfig,
    *,
    dtype: torch.dtype,
    device: torch.device,
    kernels: KernelsConfig,
    computed_in: torch.dtype | None = None,
) -> Model:
    """The saved weights in a model of `config`, in evaluation mode; they are rounded to `dtype`, as in training.

    `computed_in`: the dtype that they are kept in after that, and that all is computed in; None: `dtype`. Raises
    BadInput where `kernels` names one that cannot run on this device in this dtype.
    """
    model = config.build()
    model.load_state_dict(checkpoint.gather_weights(reader) | checkpoint.gather_tensors(reader, kind="buffers"))
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).to(computed_in or dtype)
    kernels.tell(model, device, computed_in or dtype)
    return model.to(device).eval()
