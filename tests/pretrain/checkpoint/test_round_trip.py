"""What is saved by any workers in any cut is read back by any others in any other cut, bit for bit."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from data_pipeline.config import Corrupt
from pretrain.checkpoint import (
    CheckpointReader,
    Piece,
    gather_tensors,
    gather_weights,
    newest_good,
    verify,
    worker_file,
)
from pretrain.checkpoint import verified as verified_module
from tests.pretrain.checkpoint.cases import DESCRIPTION, cut, same_bits, save_shares, saved, tensors


@pytest.mark.parametrize("seed", range(24))
def test_any_cut_is_read_in_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(worker_file, "MAX_BLOCK_BYTES", chance.choice([8, 24, 2**26]))
    whole = tensors(seed)
    results = save_shares(tmp_path, seed, cut(whole, 1 + seed % 3, chance))
    assert len(set(results)) == 1
    assert verify(results[0]) == []
    reader = CheckpointReader(results[0])
    assert reader.names() == whole.keys()
    for name, tensor in whole.items():
        assert reader.shape(name) == tuple(tensor.shape)
        for _ in range(8):
            start, end = sorted(chance.randint(0, tensor.numel()) for _ in range(2))
            assert same_bits(reader.read(name, start, end - start), tensor.reshape(-1)[start:end]), (name, start, end)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_every_dtype_keeps_every_bit(tmp_path: Path, dtype: str) -> None:
    source = torch.randint(0, 2 if dtype == "bool" else 256, (64,), dtype=torch.uint8).view(getattr(torch, dtype))
    reader = CheckpointReader(saved(tmp_path, 1, whole={"x": source}))
    assert same_bits(reader.read("x", 0, source.numel()), source)


def test_other_dtypes_are_refused(tmp_path: Path) -> None:
    (error,) = save_shares(tmp_path, 1, [[Piece("x", (2,), 0, torch.zeros(2, dtype=torch.complex64))]])
    assert "complex64" in str(error)
    assert "float32" in str(error)


def test_views_and_parameters_are_stored_in_reading_order(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).view(3, 4)
    pieces = [
        Piece("weights/transposed", (4, 3), 0, matrix.t()),
        Piece("weights/strided", (6,), 0, matrix.view(-1)[::2]),
        Piece("weights/parameter", (3, 4), 0, torch.nn.Parameter(matrix)),
    ]
    (path,) = save_shares(tmp_path, 1, [pieces])
    weights = gather_weights(CheckpointReader(path))
    assert torch.equal(weights["transposed"], matrix.t())
    assert torch.equal(weights["strided"], matrix.view(-1)[::2])
    assert torch.equal(weights["parameter"], matrix)


def test_whole_tensors_come_out_by_kind(tmp_path: Path) -> None:
    whole = tensors()
    reader = CheckpointReader(saved(tmp_path, 1, num_workers=3, whole=whole))
    assert gather_weights(reader).keys() == {"layers.0.w_BLD"}
    assert same_bits(gather_weights(reader)["layers.0.w_BLD"], whole["weights/layers.0.w_BLD"])
    buffers = gather_tensors(reader, kind="buffers")
    assert {name: same_bits(value, whole[f"buffers/{name}"]) for name, value in buffers.items()} == {
        "count": True,
        "none": True,
    }


def test_description_comes_back(tmp_path: Path) -> None:
    manifest = CheckpointReader(saved(tmp_path, 7, num_workers=2)).manifest
    assert {name: getattr(manifest, name) for name in type(DESCRIPTION).model_fields} == dict(DESCRIPTION)
    assert isinstance(manifest.scalars["optimizer_steps"], int)
    assert (manifest.step, manifest.num_workers) == (7, 2)
    assert manifest.versions["torch"] == torch.__version__
    assert {"python", "deepspeed"} <= manifest.versions.keys()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    reader = CheckpointReader(saved(tmp_path, 1))
    for ask in (reader.shape, reader.dtype, lambda name: reader.read(name, 0, 0)):
        with pytest.raises(Corrupt, match="has no tensor weights/other"):
            ask("weights/other")
    for start, length in ((-1, 2), (30, 6), (0, -1)):
        with pytest.raises(ValueError, match="a tensor of 35"):
            reader.read("weights/layers.0.w_BLD", start, length)


def test_what_is_read_is_the_readers_own(tmp_path: Path) -> None:
    path = saved(tmp_path, 1)
    reader = CheckpointReader(path)
    reader.read("exp_avg/layers.0.w_BLD", 0, 35).zero_()
    assert same_bits(reader.read("exp_avg/layers.0.w_BLD", 0, 35), tensors(1)["exp_avg/layers.0.w_BLD"].reshape(-1))
    assert verify(path) == []


def test_each_piece_is_verified_once_and_only_if_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "MAX_BLOCK_BYTES", 40)
    reader = CheckpointReader(saved(tmp_path, 1, whole={"x": torch.arange(100.0)}))
    hashed: list[int] = []
    monkeypatch.setattr(verified_module, "hash_in_file", counting(hashed, verified_module.hash_in_file))
    bounds = [(piece.start, piece.end) for _, piece in reader.stored]
    assert len(bounds) >= 10
    reader.read("x", 33, 5)
    touched = [end - start for start, end in bounds if start < 38 and end > 33]
    assert hashed == [4 * length for length in touched]
    reader.read("x", 33, 5)
    assert len(hashed) == len(touched)
    reader.read("x", 0, 100)
    assert len(hashed) == len(bounds)


def counting(sizes: list[int], function: Any) -> Any:
    def counted(path: Path, offset: int, num_bytes: int) -> str:
        sizes.append(num_bytes)
        return str(function(path, offset, num_bytes))

    return counted


def test_files_are_plain_safetensors_with_aligned_elements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_file, "MAX_BLOCK_BYTES", 24)
    whole = tensors()
    shares = [*cut(whole, 2, random.Random(5)), []]
    path = save_shares(tmp_path, 1, shares)[0]
    found: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        assert (8 + length) % 64 == 0
        loaded = safetensors.torch.load(content)
        for key, entry in json.loads(content[8 : 8 + length]).items():
            assert entry["data_offsets"][0] % loaded[key].element_size() == 0
            assert entry["data_offsets"][1] - entry["data_offsets"][0] <= 24
        found |= loaded
    assert len(list(path.glob("*.safetensors"))) == 3
    for name, tensor in whole.items():
        parts = sorted((int(key.split("|")[1]), value) for key, value in found.items() if key.split("|")[0] == name)
        joined = torch.cat([value for _, value in parts]) if parts else tensor.new_empty(0)
        assert same_bits(joined, tensor.reshape(-1))


def test_nothing_but_safetensors_and_json_is_written(tmp_path: Path) -> None:
    saved(tmp_path, 1, num_workers=3)
    saved(tmp_path, 2, num_workers=2)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    assert len(files) == 1 + (1 + 3) + (1 + 2)
    for path in files:
        if path.suffix == ".json":
            assert json.loads(path.read_text())
    reader = newest_good(tmp_path, log=pytest.fail)
    assert reader is not None
    assert reader.step == 2
