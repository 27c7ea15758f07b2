"""GPT-2 in the form of transformers: the same weights and logits there and back, and what is not one is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from data_pipeline.config import BadInput
from pretrain.exchange import gpt2
from pretrain.models import GPTConfig

CONFIG = GPTConfig(
    kind="gpt", vocab_size=31, num_layers=2, width=12, num_heads=3, inner_width=40, context_length=9, initial_std=0.3
)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    model = CONFIG.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    gpt2.write(tmp_path, model.state_dict(), CONFIG, end_of_document=30, dtype=torch.float32)
    return tmp_path


def test_there_and_back(written: Path) -> None:
    model = gpt2.read(written)
    assert model.config == CONFIG
    again = written / "again"
    again.mkdir()
    gpt2.write(again, model.state_dict(), model.config, end_of_document=30, dtype=torch.float32)
    one, other = load_file(written / gpt2.WEIGHTS), load_file(again / gpt2.WEIGHTS)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert (again / gpt2.CONFIG).read_text() == (written / gpt2.CONFIG).read_text()


def test_transformers_computes_the_same_logits(written: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra segue[evals] is not installed")
    theirs, info = transformers.GPT2LMHeadModel.from_pretrained(written, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ours, tokens_BL = gpt2.read(written).eval(), torch.randint(31, (3, 9))
    with torch.no_grad():
        age_BL = torch.arange(9).expand(3, 9)
        logits = ours.vocabulary.logits(ours.hidden(tokens_BL, age_BL))
        torch.testing.assert_close(logits, theirs.eval()(tokens_BL).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; only gpt2 can be read without"),
        ({"activation_function": "relu"}, "activation_function is 'relu'; must be 'gelu_new'"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx is True; must be False"),
        ({"scale_attn_weights": False}, "scale_attn_weights is False; must be True"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False; must be True"),
        ({"add_cross_attention": True}, "add_cross_attention is True; must be False"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06; must be 1e-05"),
        ({"n_layer": 3}, "lacks h.2.ln_1.weight"),
        ({"n_layer": 1}, "has h.1."),
        ({"n_inner": 41}, "h.0.mlp.c_fc.weight has shape (12, 40), config.json says otherwise"),
    ],
)
def test_what_is_none_is_refused(written: Path, change: dict[str, Any], message: str) -> None:
    content = json.loads((written / gpt2.CONFIG).read_text()) | change
    (written / gpt2.CONFIG).write_text(json.dumps(content))
    with pytest.raises(BadInput) as refused:
        gpt2.read(written)
    assert message in str(refused.value)
    assert str(refused.value).count(str(written)) == 1, "told once"


def test_missing_and_damaged_files_are_refused(written: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no configuration of a GPT-2"):
        gpt2.read(tmp_path / "nowhere")
    (written / gpt2.WEIGHTS).write_bytes(b"not a safetensors file")
    with pytest.raises(BadInput, match="cannot be read"):
        gpt2.read(written)


def test_weights_saved_without_the_prefix_are_read_too(written: Path) -> None:
    """As the original GPT-2 lies on the hub, with the masks that older versions kept."""
    given = {name.removeprefix("transformer."): tensor for name, tensor in load_file(written / gpt2.WEIGHTS).items()}
    save_file(given | {"h.0.attn.bias": torch.ones(1, 1, 9, 9)}, written / gpt2.WEIGHTS)
    assert gpt2.read(written).config == CONFIG


@pytest.mark.parametrize("given", [{"n_inner": None}, {}])
def test_an_inner_width_that_is_not_given_is_four_times_the_width(written: Path, given: dict[str, Any]) -> None:
    content = json.loads((written / gpt2.CONFIG).read_text())
    del content["n_inner"]
    (written / gpt2.CONFIG).write_text(json.dumps(content | given))
    assert gpt2.read_config(written).inner_width == 4 * CONFIG.width
