"""What `launch.py export` wrote, as a model to score: one safetensors file, or a GPT-2 directory."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer
from data_pipeline.tokenizers.stored import parse_tokenizer
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, VOCABULARY_FILE, Tokenizer
from pretrain import config
from pretrain.exchange import gpt2
from pretrain.experiment import Experiment
from pretrain.kernels_config import KernelsConfig
from pretrain.models import ModelConfig

SUFFIX = ".safetensors"
TOKENIZER_CONFIG = "tokenizer_config.json"
FLOATS = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
"""Safetensors' names of dtypes, and torch's."""


@dataclass(frozen=True)
class Exported:
    """A model in float32, its parts apart: it may be built with other settings than those of training."""

    model: ModelConfig
    weights: dict[str, Tensor]
    kernels: KernelsConfig
    tokenizer: Tokenizer
    identity: dict[str, Any]


def is_export(path: Path) -> bool:
    """Whether this is a file of weights, or a directory of transformers."""
    return path.suffix == SUFFIX or (path / gpt2.CONFIG).is_file()


def open_export(path: Path) -> Exported:
    """BadInput where something is missing, or is not of ours; Corrupt where it cannot be read."""
    return _open_directory(path) if path.is_dir() else _open_file(path)


def _open_file(path: Path) -> Exported:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise BadInput(f"{path}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise Corrupt(f"{path}: cannot be read ({error}); export it anew") from error
    if "experiment" not in metadata:
        raise BadInput(f"{path}: its metadata has no experiment; only files of `launch.py export` can be evaluated")
    if SETTINGS_FILE not in metadata:
        raise BadInput(f"{path}: has no tokenizer, so no text can be asked of it; tasks need a model of text")
    experiment = config.parse(Experiment, json.loads(metadata["experiment"]), source=str(path))
    tokenizer = parse_tokenizer(metadata[VOCABULARY_FILE], json.loads(metadata[SETTINGS_FILE]))
    identity = {
        "model": experiment.name,
        "kind": experiment.model.kind,
        "checkpoint": {"step": int(metadata["step"]), "hash": _sha256(path)},
        "weights_dtype": _weights_dtype(path),
    }
    return Exported(experiment.model, weights, experiment.kernels, tokenizer, identity)


def _open_directory(path: Path) -> Exported:
    try:
        gpt2.read_config(path)
    except BadInput as error:
        raise BadInput(f"{error}; a model of another kind is read by transformers, as hf:{path}") from error
    model = gpt2.read(path)
    weights = path / gpt2.WEIGHTS
    identity = {
        "model": path.name,
        "kind": "gpt",
        "checkpoint": {"hash": _sha256(weights)},
        "weights_dtype": _weights_dtype(weights),
    }
    return Exported(model.config, model.state_dict(), KernelsConfig(), _tokenizer(path), identity)


def _tokenizer(path: Path) -> Tokenizer:
    try:
        vocabulary = (path / VOCABULARY_FILE).read_text(encoding="utf-8")
        settings = path / TOKENIZER_CONFIG
        named = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
        end = named.get("eos_token", "<|endoftext|>")
        end = end["content"] if isinstance(end, dict) else end
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{path}: {VOCABULARY_FILE} or {TOKENIZER_CONFIG} cannot be read ({error})") from error
    return BytePairTokenizer.parse(vocabulary, {"kind": "file", "end_of_document": str(end)})


def _weights_dtype(path: Path) -> str:
    """What its numbers were rounded to, as the file says it."""
    with safe_open(path, framework="pt") as file:
        found = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return "/".join(sorted(FLOATS[dtype] for dtype in found if dtype in FLOATS))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
