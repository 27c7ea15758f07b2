"""One file of the weights, read by safetensors alone."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from data_pipeline.config import BadInput
from pretrain.checkpoint import CheckpointReader, NotSaved, export, export_weights, space
from tests.pretrain.checkpoint.cases import DESCRIPTION, same_bits, saved, tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_buffers_and_nothing_else(tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "weights.safetensors"
    reader = CheckpointReader(saved(tmp_path / "run", 7, num_workers=2))
    assert export_weights(reader, file, dtype=dtype) == file.stat().st_size
    whole, found = tensors(7), load_file(file)
    assert found.keys() == {"layers.0.w_BLD", "count", "none"}
    assert same_bits(found["layers.0.w_BLD"], whole["weights/layers.0.w_BLD"].to(dtype))
    assert same_bits(found["count"], whole["buffers/count"])
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    assert metadata["step"] == "7"
    assert json.loads(metadata["experiment"]) == DESCRIPTION.experiment
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]


def test_nothing_is_overwritten_or_left_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, file = CheckpointReader(saved(tmp_path / "run", 1)), tmp_path / "weights.safetensors"
    file.write_text("mine")
    with pytest.raises(BadInput, match="is there already"):
        export_weights(reader, file, dtype=torch.float32)
    assert file.read_text() == "mine"
    with pytest.raises(BadInput, match="there is no directory"):
        export_weights(reader, tmp_path / "none" / "x", dtype=torch.float32)

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "save_file", full)
    with pytest.raises(BadInput, match="No space left on device"):
        export_weights(reader, tmp_path / "other", dtype=torch.float32)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "weights.safetensors"]


def test_a_disk_without_room_is_named_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = CheckpointReader(saved(tmp_path / "run", 1))
    monkeypatch.setattr(space.shutil, "disk_usage", lambda path: space.shutil._ntuple_diskusage(10**6, 10**6, 10))
    with pytest.raises(NotSaved, match=rf"the export needs [\d,]+ bytes in {tmp_path}, where 10 bytes are free"):
        export_weights(reader, tmp_path / "x", dtype=torch.float32)
