"""GPT as the GPT-2 of the `transformers` library, and back: names of weights and sizes; that library is not needed.

transformers keeps GPT-2's projections as [in, out] (its `Conv1D`), torch's `Linear` and we as [out, in]. The output
layer is the embedding in both. It computes attention and GELU as we do: the logits are equal.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from data_pipeline.config import BadInput
from pretrain.models.autoregressive.gpt import GPT, GPTConfig

CONFIG, WEIGHTS = "config.json", "model.safetensors"

WHOLE = {
    "vocabulary.embedding": "wte.weight",
    "positions": "wpe.weight",
    "final_norm.weight": "ln_f.weight",
    "final_norm.bias": "ln_f.bias",
}
NORMS = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
PROJECTIONS = {
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward.inner": "mlp.c_fc",
    "feed_forward.output": "mlp.c_proj",
}


def names(num_layers: int) -> Iterator[tuple[str, str, bool]]:
    """Ours, theirs, and whether rows and columns change places."""
    for ours, theirs in WHOLE.items():
        yield ours, theirs, False
    for layer in range(num_layers):
        for ours, theirs in NORMS.items():
            for part in ("weight", "bias"):
                yield f"blocks.{layer}.{ours}.{part}", f"h.{layer}.{theirs}.{part}", False
        for ours, theirs in PROJECTIONS.items():
            yield f"blocks.{layer}.{ours}.weight", f"h.{layer}.{theirs}.weight", True
            yield f"blocks.{layer}.{ours}.bias", f"h.{layer}.{theirs}.bias", False


def theirs_of(weights: Mapping[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """The weights of `GPT2LMHeadModel`."""
    return {
        f"transformer.{theirs}": (weights[ours].T if turned else weights[ours]).contiguous()
        for ours, theirs, turned in names(num_layers)
    }


def config_of(config: GPTConfig, *, end_of_document: int, dtype: torch.dtype) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.context_length,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.inner_width,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "initializer_range": config.initial_std,
        "tie_word_embeddings": True,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": str(dtype).removeprefix("torch."),
    }


def write(
    directory: Path, weights: Mapping[str, Tensor], config: GPTConfig, *, end_of_document: int, dtype: torch.dtype
) -> None:
    """Write config.json and model.safetensors."""
    made = theirs_of({name: tensor.to(dtype) for name, tensor in weights.items()}, config.num_layers)
    path = directory / WEIGHTS
    path.touch()
    mode = path.stat().st_mode  # as the user's umask says; the library makes its file for the owner alone
    save_file(made, path, metadata={"format": "pt"})
    path.chmod(mode)
    content = json.dumps(config_of(config, end_of_document=end_of_document, dtype=dtype), indent=2) + "\n"
    (directory / CONFIG).write_text(content, encoding="utf-8")


SETTINGS = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
"""What config.json must say, or not say, for the weights to mean the same here."""


def read_config(directory: Path) -> GPTConfig:
    """The sizes of a GPT-2 in this directory; BadInput where there is none, or one that computes otherwise."""
    path = directory / CONFIG
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        kind = given.get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise BadInput(f"{path}: no configuration of a GPT-2 ({error})") from error
    if kind != "gpt2":
        raise BadInput(f"{path}: model_type is {kind!r}; only gpt2 can be read without transformers")
    for name, needed in SETTINGS.items():
        if given.get(name, needed) != needed:
            raise BadInput(f"{path}: {name} is {given[name]!r}; must be {needed!r}, as GPT-2 has it")
    try:
        return GPTConfig(
            kind="gpt",
            vocab_size=given["vocab_size"],
            num_layers=given["n_layer"],
            width=given["n_embd"],
            num_heads=given["n_head"],
            inner_width=given.get("n_inner") or 4 * given["n_embd"],
            context_length=given["n_positions"],
            dropout=given.get("resid_pdrop", 0.1),
            initial_std=given.get("initializer_range", 0.02),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: no configuration of a GPT-2 ({error})") from error


def read(directory: Path) -> GPT:
    """The model, in float32; BadInput where files, names or shapes are not those of a GPT-2."""
    config = read_config(directory)
    path = directory / WEIGHTS
    try:
        given = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from error
    model = config.build()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {}
    for ours, theirs, turned in names(config.num_layers):
        tensor = given.pop(theirs, None)
        if tensor is None:
            raise BadInput(f"{path}: lacks {theirs}")
        weights[ours] = (tensor.T if turned else tensor).float()
        if weights[ours].shape != shapes[ours]:
            raise BadInput(f"{path}: {theirs} has shape {tuple(tensor.shape)}, config.json says otherwise")
    left = [name for name in given if not name.endswith((".attn.bias", ".attn.masked_bias", "lm_head.weight"))]
    if left:
        raise BadInput(f"{path}: has {left[0]}, which GPT-2 has not")
    model.load_state_dict(weights)
    return model
