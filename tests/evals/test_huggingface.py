"""A run's GPT, exported for transformers and scored there, against the run itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cluster.huggingface_export import export_huggingface
from cluster.inspection import export
from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput, Corrupt
from evals.backends.huggingface import HuggingFaceNetwork, HuggingFaceTokenizer, weights_hash
from evals.scoring.encoding import Request, encode_requests
from evals.scoring.item import Item, score_items
from evals.scoring.output_layer import LinearOutput, WholeOutput
from evals.scoring.window_model import WindowModel
from evals.targets import Target
from tests.evals.runs import TEXT, finished_run, prepared_text

pytest.importorskip("transformers", reason="the extra segue[evals] is not installed")

PAIRS = [
    Request("memory carries on", " and on"),
    Request("memory carries on", " segue"),
    Request("memory carries on ", "é segue memory"),
    Request("", "carries on"),
    Request("segue " * 40, "memory"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("export")
    text = prepared_text(place).replace("{kind: byte}", "{kind: bpe, vocab_size: 270}").replace("/shards", "/bpe")
    prepare_again(text)
    experiment = finished_run(place / "run", "tiny_gpt", text, "model.vocab_size=270", "model.initial_std=0.3", steps=2)
    keep_tokenizer(experiment, place / "run")
    return place / "run"


def prepare_again(text: str) -> None:
    from data_pipeline.prepare import LocalExecutor, prepare
    from data_pipeline.text import TextConfig
    from pretrain import config
    from pretrain.experiment import Experiment

    data = config.load(Experiment, config.recipe_path("tiny_transformer_xl"), [text]).data
    assert isinstance(data, TextConfig)
    prepare(data, executor=LocalExecutor(1), report=lambda progress: None)


def scores(target: str, dtype: str | None = None) -> list[list[float]]:
    """Nats of each token, and last whether all are the likeliest."""
    model, reader = Target(target, dtype=dtype).open()
    encoded = encode_requests(PAIRS, reader.tokenizer, start=reader.start, max_length=reader.max_length)
    found = score_items(model, [one.item for one in encoded], 3)
    return [[*one.nats, float(one.greedy.all())] for one in found]


def test_transformers_gives_the_scores_of_the_run(run: Path) -> None:
    exported = run.parent / "exported"
    export_huggingface(run, exported, None, "float32")
    assert sorted(path.name for path in exported.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"
    ]  # fmt: skip
    for ours, theirs in zip(scores(str(run)), scores(f"hf:{exported}"), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1, "readable by whom the others are"
    card = (exported / "README.md").read_text()
    assert "library_name: transformers" in card
    assert "kind: gpt" in card


def test_exports_are_scored_as_the_run_is(run: Path) -> None:
    file, directory = run.parent / "weights.safetensors", run.parent / "directory"
    export(run, file, None, "float32")
    export_huggingface(run, directory, None, "float32")
    wanted = scores(str(run))
    for target in (file, directory):
        for found, own in zip(scores(str(target)), wanted, strict=True):
            np.testing.assert_allclose(found, own, rtol=1e-6, atol=1e-6)
        identity = Target(str(target)).open()[0].identity()
        assert len(identity["checkpoint"]["hash"]) == 64
        assert len(identity["tokenizer_hash"]) == 64


def test_a_run_in_bfloat16_is_its_export_in_bfloat16(run: Path, tmp_path: Path) -> None:
    """Weights rounded once and computed in float32: both dtypes are told, and the numbers are equal."""
    text = TEXT % (run.parent / "bpe", run.parent / "corpus")
    text = text.replace("{kind: byte}", "{kind: bpe, vocab_size: 270}")
    rounded, whole, file, directory = (tmp_path / name for name in ("run", "a.safetensors", "b.safetensors", "c"))
    more = ("model.vocab_size=270", "model.initial_std=0.3", "engine.precision=bfloat16")
    keep_tokenizer(finished_run(rounded, "tiny_gpt", text, *more, steps=2), rounded)
    export(rounded, whole, None, "float32")
    export(rounded, file, None, "bfloat16")
    export_huggingface(rounded, directory, None, "bfloat16")
    wanted = scores(str(rounded))
    assert wanted != scores(str(whole)), "rounding is seen"
    for target in (rounded, file, directory):
        identity = Target(str(target)).open()[0].identity()
        assert (identity["weights_dtype"], identity["dtype"]) == ("bfloat16", "float32")
        assert scores(str(target)) == wanted
    identity = Target(str(whole)).open()[0].identity()
    assert (identity["weights_dtype"], identity["dtype"]) == ("float32", "float32")


def test_files_that_are_no_exports(tmp_path: Path) -> None:
    bare, damaged = tmp_path / "bare.safetensors", tmp_path / "damaged.safetensors"
    save_file({"a": torch.zeros(2)}, bare)
    damaged.write_bytes(b"no weights")
    for path, message in (
        (bare, "its metadata has no experiment; only files of `launch.py export` can be evaluated"),
        (damaged, "cannot be read"),
        (tmp_path / "none.safetensors", "there is no such file"),
    ):
        with pytest.raises((BadInput, Corrupt), match=message):
            Target(str(path)).open()


SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2}
MORE = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32, "max_position_embeddings": 32}


def others() -> dict[str, tuple[Any, bool]]:
    """Models of transformers by what is odd about them, and whether a context is shared."""
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        CohereConfig,
        CohereForCausalLM,
        Gemma2Config,
        Gemma2ForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        GPTNeoConfig,
        GPTNeoForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
    )

    torch.manual_seed(0)
    gemma = Gemma2Config(**SIZES, **MORE, head_dim=8, final_logit_softcapping=0.1, sliding_window=4)
    neo = GPTNeoConfig(
        vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, attention_types=[[["local"], 2]], window_size=8,
        max_position_embeddings=32,
    )  # fmt: skip
    bloom = BloomConfig(vocab_size=50, hidden_size=16, n_layer=2, n_head=2)
    return {
        "nothing": (GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=32)), True),
        "rotary positions": (LlamaForCausalLM(LlamaConfig(**SIZES, **MORE)), True),
        "soft caps, a sliding window": (Gemma2ForCausalLM(gemma), False),
        "scaled logits": (CohereForCausalLM(CohereConfig(**SIZES, **MORE, logit_scale=0.0625, pad_token_id=0)), True),
        "slopes of attention": (BloomForCausalLM(bloom), False),
        "local attention": (GPTNeoForCausalLM(neo), False),
    }


def test_a_rotary_encoding_by_the_length_of_a_batch_is_read_row_by_row() -> None:
    """Phi-3's factors are those of the longest row; so a row beside a long one has other numbers than alone."""
    from transformers import Phi3Config, Phi3ForCausalLM

    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [5.0, 7.0, 9.0, 11.0]}
    torch.manual_seed(0)
    model = Phi3ForCausalLM(Phi3Config(
        **SIZES, **MORE | {"max_position_embeddings": 64}, original_max_position_embeddings=16, pad_token_id=0,
        rope_parameters=factors | {"rope_theta": 10_000.0, "original_max_position_embeddings": 16},
        initializer_range=0.5,
    )).eval()  # fmt: skip
    network = HuggingFaceNetwork(model, {})
    generator = np.random.default_rng(0)
    items = [Item(generator.integers(50, size=size), generator.integers(50, size=3)) for size in (6, 30)]
    alone, together = (score_items(WindowModel(network), items, rows=rows) for rows in (1, 2))
    assert [score.total for score in together] == [score.total for score in alone]
    network.rows_alone = False
    assert score_items(WindowModel(network), items, rows=2)[0].total != pytest.approx(alone[0].total, rel=1e-3)


@pytest.mark.parametrize("context", [0, -3, 33])
def test_no_context_is_longer_than_what_a_model_reads(context: int) -> None:
    model, _ = others()["nothing"]
    with pytest.raises(BadInput, match=rf"context {context}: must be from 1 to 32, what the model can read at a time"):
        HuggingFaceNetwork(model, {}, max_length=context)


def test_weights_of_other_names_have_another_hash() -> None:
    one, other = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False)
    names = [torch.nn.ModuleDict({"a": one, "b": other}), torch.nn.ModuleDict({"b": one, "c": other})]
    assert weights_hash(names[0]) == weights_hash(torch.nn.ModuleDict({"a": one, "b": other}))
    assert weights_hash(names[0]) != weights_hash(names[1])


@pytest.mark.parametrize("name", ["nothing", "rotary positions", "soft caps, a sliding window", "scaled logits",
                                  "slopes of attention", "local attention"])  # fmt: skip
def test_any_causal_model_is_scored_by_its_own_logits(name: str) -> None:
    model, shares = others()[name]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network = HuggingFaceNetwork(model.eval(), {}, max_length=32)
    assert network.shares_contexts == shares
    assert isinstance(network.output, LinearOutput), "no model here needs all logits at once"
    generator = np.random.default_rng(0)
    context = generator.integers(50, size=9)
    items = [Item(context, generator.integers(50, size=size)) for size in (1, 4, 3)]
    for item, score in zip(items, score_items(WindowModel(network), items, rows=2), strict=True):
        read = torch.from_numpy(np.concatenate([item.context, item.continuation]))[None]
        with torch.no_grad():
            log_p = model(read).logits[0, 8:-1].float().log_softmax(-1)
        wanted = -log_p[torch.arange(len(item.continuation)), read[0, 9:]]
        np.testing.assert_allclose(score.nats, wanted.numpy(), rtol=1e-5, atol=1e-5)
        assert score.greedy.tolist() == (log_p.argmax(-1) == read[0, 9:]).tolist()


def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is there already"):
        export_huggingface(run, tmp_path, None, "float32")
    with pytest.raises(BadInput, match="there is no directory"):
        export_huggingface(run, tmp_path / "no" / "where", None, "float32")
    finished_run(tmp_path / "rbm", "tiny_rbm")
    with pytest.raises(BadInput, match="only models of kind gpt can be exported so, not rbm"):
        export_huggingface(tmp_path / "rbm", tmp_path / "out", None, "float32")
    finished_run(tmp_path / "markov", "tiny_gpt")
    with pytest.raises(BadInput, match="has no tokenizer"):
        export_huggingface(tmp_path / "markov", tmp_path / "out", None, "float32")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("out.partial*"))


def test_targets_that_cannot_be_opened(run: Path, tmp_path: Path) -> None:
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    for target, message in (
        (Target("hf:" + str(tmp_path)), "no causal language model of transformers"),
        (Target(str(tmp_path / "none")), "is no run (experiment.yaml is missing), no export"),
        (Target(str(run), memory_length=4), "model.kind gpt has no such setting"),
        (Target(str(run), segment_length=4), "has no memory; use stride"),
        (Target("hf:" + str(tmp_path / "none")), f"hf:{tmp_path / 'none'}: there is no such directory"),
        (Target("hf:./none"), "hf:./none: there is no such directory; a model of the hub has a name such as gpt2"),
        (Target(str(llama)), "model_type is 'llama'; only gpt2 can be read without transformers; a model of another "),
        (Target(str(llama)), f"is read by transformers, as hf:{llama}"),
        (Target("hf:gpt2", memory_length=3), "memory_length is of Segue's runs"),
    ):
        with pytest.raises(BadInput) as refused:
            target.open()
        assert message in str(refused.value)


def test_a_dtype_stands_in_config_and_weights(run: Path) -> None:
    from safetensors.torch import load_file

    exported = run.parent / "half"
    export_huggingface(run, exported, None, "bfloat16")
    assert json.loads((exported / "config.json").read_text())["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in load_file(exported / "model.safetensors").values()} == {torch.bfloat16}


def test_a_dtype_is_what_is_computed_in(run: Path) -> None:
    exported = run.parent / "in bfloat16"
    export_huggingface(run, exported, None, "float32")
    target = f"hf:{exported}"
    model, _ = Target(target, dtype="bfloat16").open()
    assert model.identity()["dtype"] == "bfloat16"
    assert {tensor.dtype for tensor in model.network.model.parameters()} == {torch.bfloat16}
    wanted, found = (np.concatenate(scores(target, dtype)) for dtype in (None, "bfloat16"))
    assert 1e-4 < (np.abs(found - wanted) / np.maximum(wanted, 1)).max() < 2**-6, "of eight bits"


def test_tokenizers_that_change_the_text_are_found(run: Path) -> None:
    exported = run.parent / "its tokenizer"
    export_huggingface(run, exported, None, "float32")
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    found = {}
    for name, change in (("as it is", None), ("small letters", normalizers.Lowercase()), ("NFKC", normalizers.NFKC())):
        tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
        if change is not None:
            tokenizer.normalizer = change
        wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=tokenizer.id_to_token(0))
        found[name] = HuggingFaceTokenizer(wrapped).lossless
    assert found == {"as it is": True, "small letters": False, "NFKC": False}


def test_a_mask_that_is_not_obeyed_is_noticed_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings are a short cut: what is tried shows local attention by itself."""
    model, _ = others()["local attention"]
    monkeypatch.setattr("evals.backends.huggingface.OWN_MASKS", ())
    assert not HuggingFaceNetwork(model.eval(), {}, max_length=32).shares_contexts


def test_settings_of_the_part_that_is_of_text_are_read() -> None:
    """As models of images and text have them, in a configuration within theirs."""
    model, shares = others()["nothing"]
    assert shares
    model.config.get_text_config = lambda *_, **__: SimpleNamespace(
        n_positions=20, sliding_window=4, rope_parameters={"rope_type": "dynamic"}
    )
    network = HuggingFaceNetwork(model.eval(), {})
    assert (network.max_length, network.rows_alone) == (20, True)
    assert not network._takes_masks()


def test_logits_that_are_changed_in_unknown_ways_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = others()["soft caps, a sliding window"]
    monkeypatch.setattr("evals.backends.huggingface._linear_output", lambda head, _: LinearOutput(head.weight))
    network = HuggingFaceNetwork(model.eval(), {}, max_length=32)
    assert isinstance(network.output, WholeOutput)


def test_weights_that_do_not_fit_their_configuration_are_refused(run: Path) -> None:
    """The library would draw what is missing at random, and score it."""
    exported = run.parent / "layers"
    export_huggingface(run, exported, None, "float32")
    settings = json.loads((exported / "config.json").read_text())
    for layers in (settings["n_layer"] + 1, settings["n_layer"] - 1):
        (exported / "config.json").write_text(json.dumps(settings | {"n_layer": layers}))
        with pytest.raises(BadInput, match=r"its weights are not those of its config\.json: (missing|unexpected) keys"):
            Target(f"hf:{exported}").open()


def test_models_that_look_ahead_or_have_no_numbers_are_refused() -> None:
    from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    with pytest.raises(BadInput, match="what comes later changes its logits"):
        HuggingFaceNetwork(BertLMHeadModel(BertConfig(vocab_size=50, **sizes)), {})
    model = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    torch.nn.init.constant_(model.transformer.ln_f.weight, torch.nan)
    with pytest.raises(BadInput, match="its logits are not finite"):
        HuggingFaceNetwork(model, {})


def test_the_adapter_refuses_what_it_does_not_know(run: Path) -> None:
    pytest.importorskip("lm_eval", reason="the extra segue[lm-eval] is not installed")
    from evals.lm_eval_adapter import SegueLM

    with pytest.raises(BadInput, match="model_args batchsize: is no setting of a target"):
        SegueLM(str(run), batchsize=4)
    with pytest.raises(BadInput, match="batch_size auto: must be a number of rows"):
        SegueLM(str(run), batch_size="auto")
    with pytest.raises(BadInput, match="checkpoint 99: "):
        SegueLM(str(run), checkpoint=99)
