"""Targets opened as asked: every setting shows in the numbers and in the record of what computed them."""

import hashlib
import math
import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.inspection import export
from cluster.sampling import keep_tokenizer
from data_pipeline.config import BadInput
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.text import TextConfig
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.word import WordTokenizer
from evals import benchmark_table
from evals.backends.segue import token_model
from evals.checkpointed import checkpoint_hash, load_model, open_checkpoint
from evals.evaluate_tasks import evaluate_tasks
from evals.metric import Metric
from evals.results_file import ResultsFile
from evals.scoring.item import Item, TokenModel, score_items
from evals.targets import Target
from evals.tasks.data import DataSource
from pretrain import config
from pretrain.engines.engine import DTYPES
from pretrain.experiment import Experiment
from pretrain.run_directory import TOKENIZER
from tests.evals.runs import TEXT as DATA
from tests.evals.runs import finished_run, prepared_text, run_of_two_checkpoints
from tests.evals.tasks.fakes import folder_with

CONTEXT, DEVICE = 16, torch.device("cpu")
TEXT = "".join(f" {line} \n" for line in ("memory carries on", "segue é segue on", "on and on it carries memory") * 3)
WORDS = len(TEXT.split())
RUNS = ("tiny_gpt", "tiny_transformer_xl")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each kind with checkpoints of steps 1 and 2, its export beside it, and a text."""
    place = tmp_path_factory.mktemp("targets")
    data = prepared_text(place)
    for name in RUNS:
        run_of_two_checkpoints(place / name, name, data)
        export(place / name, place / f"{name}.safetensors", None, "float32")
    (place / "data" / "ptb").mkdir(parents=True)
    (place / "data" / "ptb" / "ptb.test.txt").write_text(TEXT, encoding="utf-8")
    return place


def measured(place: Path, name: str, **settings: Any) -> Metric:
    """Penn Treebank's perplexity per word."""
    with closing(ResultsFile(None)) as results:
        target, source = Target(name, **settings), DataSource(place / "data")
        (found,) = evaluate_tasks(target, ["ptb/tokenized"], source, results)
    (metric,) = (one for one in found.metrics if one.name == "ptb/tokenized/perplexity/words")
    assert metric.count == WORDS
    return metric


def nats(metric: Metric) -> float:
    return math.log(metric.value) * metric.count


def each_alone(name: str, num_seen: int) -> float:
    """Nats of the text where every token is a request of its own, after the `num_seen` tokens before it."""
    model, reader = Target(name).open()
    (tokens,) = reader.tokenizer.encode_batch([TEXT])
    read = np.concatenate([[reader.start], tokens]).astype(np.int64)
    items = [Item(read[max(0, end - num_seen) : end], read[end : end + 1]) for end in range(1, len(read))]
    return total(model, items)


def total(model: TokenModel, items: list[Item]) -> float:
    return math.fsum(score.total for score in score_items(model, items, rows=16))


def check_windows(place: Path, name: str) -> None:
    """A stride of one is every token after a full window, here of the model's length and of a shorter one."""
    plain = measured(place, name)
    assert plain.protocol["stride"] == CONTEXT
    for settings, length in (({}, CONTEXT), ({"context": 5}, 5)):
        strided, wanted = measured(place, name, stride=1, **settings), each_alone(name, length)
        assert strided.protocol["stride"] == 1
        assert strided.protocol["model"]["context"] == length
        assert nats(strided) == pytest.approx(wanted, rel=1e-5)
        assert nats(plain) != pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_windows_are_as_long_and_as_far_apart_as_asked(place: Path, suffix: str) -> None:
    check_windows(place, str(place / f"tiny_gpt{suffix}"))


def test_so_are_those_of_models_of_transformers(place: Path, tmp_path: Path) -> None:
    save_gpt2(tmp_path / "gpt2")
    check_windows(place, f"hf:{tmp_path / 'gpt2'}")


def save_gpt2(directory: Path) -> None:
    """One layer, a token for each byte."""
    pytest.importorskip("transformers", reason="the extra segue[evals] is not installed")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained(directory)
    sizes = GPT2Config(
        vocab_size=257, n_embd=16, n_layer=1, n_head=2, n_positions=CONTEXT, initializer_range=0.5, bos_token_id=256,
        eos_token_id=256,
    )  # fmt: skip
    GPT2LMHeadModel(sizes).save_pretrained(directory)


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_one_token_at_a_time_without_memory_sees_one_token(place: Path, suffix: str) -> None:
    """Positions are relative, so that each token is scored as if it were the second of a document."""
    name = str(place / f"tiny_transformer_xl{suffix}")
    found = measured(place, name, segment_length=1, memory_length=0)
    assert nats(found) == pytest.approx(each_alone(name, 1), rel=1e-5)
    assert found.protocol["model"]["target_length"] == 1
    for settings in ({}, {"segment_length": 1}, {"memory_length": 0}):
        assert nats(measured(place, name, **settings)) != pytest.approx(nats(found), rel=1e-4)


@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_of_one_length_no_number_depends_on_the_segments(place: Path, suffix: str) -> None:
    """Each position attends as far back as the memory reaches, whatever its place in the segment."""
    name = str(place / f"tiny_transformer_xl{suffix}")
    alike = [nats(measured(place, name, segment_length=size, same_length=True)) for size in (1, 3, 8)]
    assert alike == pytest.approx([alike[0]] * 3, rel=1e-5)
    others = [nats(measured(place, name, segment_length=size, same_length=False)) for size in (3, 8)]
    assert others[0] != pytest.approx(others[1], rel=1e-4)


@pytest.mark.parametrize(("name", "value"), [("memory_length", 5), ("clamp_length", 2), ("same_length", True)])
@pytest.mark.parametrize("suffix", ["", ".safetensors"])
def test_settings_are_those_of_the_model_built_so(place: Path, suffix: str, name: str, value: int) -> None:
    run = place / "tiny_transformer_xl"
    found = measured(place, f"{run}{suffix}", **{name: value})
    assert found.protocol["model"][name] == value
    checkpoint = open_checkpoint(run)
    experiment = config.parse(Experiment, dict(checkpoint.manifest.experiment), source="test")
    kernels, dtype = experiment.kernels, DTYPES[experiment.engine.precision]
    changed = experiment.model.model_copy(update={name: value})
    tokenizer = load_tokenizer(run / TOKENIZER)
    (tokens,) = tokenizer.encode_batch([TEXT])
    item = Item(np.array([tokenizer.end_of_document]), tokens.astype(np.int64))
    wanted, unchanged = (
        total(token_model(load_model(checkpoint, one, dtype=dtype, device=DEVICE, kernels=kernels), {}), [item])
        for one in (changed, experiment.model)
    )
    assert nats(found) == pytest.approx(wanted, rel=1e-5)
    assert wanted != pytest.approx(unchanged, rel=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_a_checkpoint_is_the_one_asked_for_and_named_by_its_hash(place: Path, name: str) -> None:
    run = place / name
    found = {step: measured(place, str(run), checkpoint=step) for step in (1, 2, None)}
    for step, newest in ((1, 1), (2, 2), (None, 2)):
        checkpoint = open_checkpoint(run, newest)
        model = found[step].protocol["model"]
        assert model["checkpoint"] == {"step": newest, "hash": checkpoint_hash(checkpoint)}
        assert model["tokenizer_hash"] == load_tokenizer(run / TOKENIZER).hash
        assert (model["device"], model["kernels"]["default"]) == ("cpu", "auto")
        assert (model["kind"], model["dtype"]) == (name.removeprefix("tiny_"), "float32")
    assert found[1].protocol["model"]["checkpoint"]["hash"] != found[2].protocol["model"]["checkpoint"]["hash"]
    assert found[None].value == found[2].value
    assert nats(found[1]) != pytest.approx(nats(found[2]), rel=1e-4)


def test_other_kernels_are_another_protocol(place: Path) -> None:
    name = str(place / "tiny_gpt")
    plain, chosen = (measured(place, name, kernels=choice) for choice in ((), ("linear_cross_entropy=reference",)))
    assert plain.protocol["model"]["kernels"] != chosen.protocol["model"]["kernels"]
    file = f"{name}.safetensors"
    assert plain.protocol["model"]["kernels"] == measured(place, file).protocol["model"]["kernels"]
    exported = measured(place, file, kernels=("linear_cross_entropy=reference",))
    assert chosen.protocol["model"]["kernels"] == exported.protocol["model"]["kernels"]


@pytest.mark.parametrize("name", RUNS)
def test_an_export_is_named_by_its_bytes(place: Path, name: str) -> None:
    file = place / f"{name}.safetensors"
    model = measured(place, str(file)).protocol["model"]
    assert model["checkpoint"] == {"step": 2, "hash": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert model["tokenizer_hash"] == load_tokenizer(place / name / TOKENIZER).hash


def test_a_run_of_words_says_which_it_cannot_spell_and_that_it_loses_blanks(place: Path, tmp_path: Path) -> None:
    data = prepared_text(tmp_path).replace("{kind: byte}", "{kind: word}").replace("/shards", "/words")
    prepare_of("tiny_gpt", data)
    keep_tokenizer(finished_run(tmp_path / "run", "tiny_gpt", data, "model.vocab_size=7", steps=1), tmp_path / "run")
    text = " memory carries on \n never heard <unk> on \n"
    source = folder_with(tmp_path, "ptb", ptb__test__txt=text)
    (found,) = evaluate_tasks(Target(str(tmp_path / "run")), ["ptb/tokenized"], source, ResultsFile(None))
    for metric in found.metrics:
        assert (metric.protocol["unknown_tokens"], metric.protocol["tokenizer_lossless"]) == (2, False)
        assert benchmark_table.measured(metric).endswith(benchmark_table.UNSPELT)
    of_bytes = measured(place, str(place / "tiny_gpt"))
    assert (of_bytes.protocol["unknown_tokens"], of_bytes.protocol["tokenizer_lossless"]) == (0, True)
    assert not benchmark_table.measured(of_bytes).endswith(benchmark_table.UNSPELT)


def prepare_of(recipe: str, override: str) -> None:
    data = config.load(Experiment, config.recipe_path(recipe), [override]).data
    assert isinstance(data, TextConfig)
    prepare(data, executor=LocalExecutor(1), report=lambda progress: None)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("tiny_gpt", {"dtype": "bfloat16"}, "dtype: is of models of transformers; tiny_gpt has the weights that were"),
        ("tiny_gpt.safetensors", {"dtype": "bfloat16"}, "dtype: is of models of transformers"),
        ("tiny_gpt.safetensors", {"checkpoint": 1}, "an export has one checkpoint; leave out checkpoint"),
        ("tiny_gpt", {"segment_length": 4}, "segment_length: model tiny_gpt has no memory; use stride or context"),
        ("tiny_gpt", {"context": 17}, "context 17: must be from 1 to 16, what the model can read at a time"),
        ("tiny_gpt", {"stride": 17}, "stride 17: must be from 1 to 16, what the model reads at a time"),
        ("tiny_transformer_xl", {"stride": 3}, "stride, context: are of models without memory; segment_length says"),
        ("tiny_transformer_xl", {"context": 3}, "stride, context: are of models without memory"),
        ("tiny_transformer_xl", {"segment_length": 0}, "segment_length 0: must be at least 1"),
        ("uniform:bytes", {"dtype": "float32"}, "uniform:bytes: dtype, context and stride are of models of windows"),
        ("uniform:bytes", {"context": 3}, "dtype, context and stride are of models of windows; leave them out"),
        ("uniform:bytes", {"stride": 3}, "dtype, context and stride are of models of windows"),
        ("uniform:bytes", {"segment_length": 3}, "uniform:bytes: segment_length is of Segue's runs; leave it out"),
        ("uniform:bytes", {"checkpoint": 3}, "uniform:bytes: checkpoint is of Segue's runs"),
        ("uniform:bytes", {"kernels": ("auto",)}, "uniform:bytes: kernel is of Segue's runs"),
        ("hf:any", {"kernels": ("auto",)}, "hf:any: kernel is of Segue's runs; leave it out"),
    ],
)
def test_a_setting_that_a_target_has_not_is_refused(
    place: Path, name: str, settings: dict[str, Any], message: str
) -> None:
    target = name if ":" in name else str(place / name)
    with pytest.raises(BadInput) as refused:
        measured(place, target, **settings)
    assert message in str(refused.value)


def test_a_tokenizer_of_more_tokens_than_the_model_has_is_not_its_own(place: Path, tmp_path: Path) -> None:
    data = DATA % (place / "shards", place / "corpus")
    experiment = finished_run(tmp_path / "run", "tiny_gpt", data, "model.vocab_size=257", steps=1)
    keep_tokenizer(experiment, tmp_path / "run")
    many = ["<eos>", "<unk>", *map(str, range(256))]
    WordTokenizer(many, end_of_line=True).save(tmp_path / "many")
    shutil.rmtree(tmp_path / "run" / TOKENIZER)
    shutil.copytree(tmp_path / "many", tmp_path / "run" / TOKENIZER)
    with pytest.raises(BadInput, match=r"its tokenizer has 258 tokens and the model 257; they do not belong together"):
        Target(str(tmp_path / "run")).open()


def test_a_name_is_checked_without_being_opened(place: Path) -> None:
    for name in ("uniform:bytes", "hf:any", str(place / "tiny_gpt"), str(place / "tiny_gpt.safetensors")):
        Target(name).check()
    for name, message in (
        ("kneser-ney:none.txt", "'none.txt' does not exist; give the text that the n-grams are counted in"),
        (f"kneser-ney:{place}", "is no file; give the text"),
        (str(place / "none"), "is no run"),
    ):
        with pytest.raises(BadInput, match=message):
            Target(name).check()
