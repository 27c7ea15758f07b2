"""Our log-likelihoods against those of EleutherAI's lm-evaluation-harness, of the same random weights.

`python -m benchmarks.evals_speed --full` compares every request.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import evals_speed
from evals.backends.huggingface import HuggingFaceNetwork, HuggingFaceTokenizer
from evals.evaluate_tasks import evaluate_tasks
from evals.results_file import ResultsFile
from evals.scorer import Scorer
from evals.scoring.item import Group, ItemScore, Segments
from evals.scoring.window_model import WindowModel
from evals.targets import Target
from evals.zero_shot import Reader
from tests.evals.benchmark_data import benchmark_data
from tests.evals.tasks.fakes import folder_with

pytest.importorskip("lm_eval", reason="the extra segue[lm-eval] is not installed")
from lm_eval.api.instance import Instance

from evals.lm_eval_adapter import SegueLM

TASKS = {"lambada": slice(24), "wsc273": slice(534, 558), "wikitext2": slice(9, 10), "wikitext2 paragraphs": slice(5)}
"""Of WSC273 partial requests, and whole sentences with no context; of WikiText-2 a text of several windows."""


@pytest.fixture(scope="module")
def contenders() -> Iterator[evals_speed.Contenders]:
    for name in ("gpt2_bpe", "lambada", "wsc273", "wikitext2"):
        if not (benchmark_data() / name).is_dir():
            pytest.skip(f"{benchmark_data() / name} is missing: set SEGUE_BENCHMARK_DATA to the benchmark texts")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, tokenizer = evals_speed.gpt2(evals_speed.TINY)
    yield evals_speed.contenders(model, tokenizer)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", TASKS)
def test_log_likelihoods_and_greedy_flags_are_those_of_the_harness(
    contenders: evals_speed.Contenders, task: str
) -> None:
    asked = evals_speed.requests()[task][TASKS[task]]
    answers = {name: ask(task, asked) for name, ask in contenders(4).items()}
    wanted = answers.pop(evals_speed.HARNESS)
    for name, found in answers.items():
        for (ours, greedy), (theirs, flag) in zip(found, wanted, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-5), name
            assert greedy == flag, name
    assert len({round(total, 3) for total, _ in wanted}) > 1 or len(wanted) == 1, "requests that differ"


def test_what_the_model_itself_would_write_is_greedy_and_nothing_else(contenders: evals_speed.Contenders) -> None:
    """Both kinds occur, so that neither a constant nor a look at one token alone would do."""
    contexts = [context for context, _ in evals_speed.requests()["lambada"][:12]]
    asked = evals_speed.likeliest(*evals_speed.gpt2(evals_speed.TINY), contexts)
    assert len(asked) > 6, "hardly any context has a continuation that is read as it was written"
    answers = {name: ask("likeliest", asked) for name, ask in contenders(4).items()}
    wanted = [flag for _, flag in answers.pop(evals_speed.HARNESS)]
    assert wanted[::2] == [True] * (len(asked) // 2)
    assert not any(wanted[1::2])
    for name, found in answers.items():
        assert [greedy for _, greedy in found] == wanted, name


WORDS = ("<s>", "<unk>", "the", "cat", "sat", "on", "mats", "a", "</s>")
BEGIN, END = WORDS.index("<s>"), WORDS.index("</s>")


def llama(begin: str | None = "<s>", end: str = "</s>") -> tuple[Any, Any]:
    """A Llama with random weights, and a tokenizer of words that puts `begin` before each text, as Llama's do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    library = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.decoder = decoders.Fuse()
    if begin is not None:
        special = [(begin, WORDS.index(begin))]
        library.post_processor = processors.TemplateProcessing(single=f"{begin} $A", special_tokens=special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, bos_token=begin, eos_token=end, unk_token="<unk>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.5,
    )).eval()  # fmt: skip
    return model, tokenizer


def harness_of(model: Any, tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=32, device="cpu")


def asked_of(lm: Any, asked: Sequence[tuple[str, ...]]) -> list[float]:
    """Log-likelihoods of pairs."""
    return [total for total, _ in lm.loglikelihood([Instance("loglikelihood", {}, one, 0) for one in asked])]


def opened(model: Any, tokenizer: Any) -> tuple[WindowModel, Reader]:
    ours, read = WindowModel(HuggingFaceNetwork(model, {})), HuggingFaceTokenizer(tokenizer)
    return ours, Reader(read, read.start, ours.max_length, prefix=read.prefix)


def test_what_a_tokenizer_puts_before_a_text_stands_before_contexts() -> None:
    """A Llama's tokenizer begins each text with a token of its own, as the harness lets it."""
    model, tokenizer = llama()
    asked = [("the cat sat", " on mats"), ("the cat", " sat"), ("", "a cat sat on mats")]
    wanted = asked_of(harness_of(model, tokenizer), asked)
    ours, reader = opened(model, tokenizer)
    found = [-answer.total for answer in Scorer(ours, reader, rows=2).loglikelihood(asked)]
    assert found == pytest.approx(wanted, rel=1e-5)
    without = [-answer.total for answer in Scorer(ours, replace(reader, prefix=()), rows=2).loglikelihood(asked)]
    assert without[:2] != pytest.approx(wanted[:2], rel=1e-2), "it makes a difference"


def test_so_it_does_in_tasks_of_a_model_by_name(tmp_path: Path) -> None:
    """From the directory to the record of each example."""
    model, tokenizer = llama()
    model.save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    texts = ("the cat sat on mats", "a cat sat", "on a cat the mats sat on a cat")
    source = folder_with(tmp_path, "lambada", lambada_test__jsonl="".join(f'{{"text": "{one}"}}\n' for one in texts))
    wanted = asked_of(harness_of(model, tokenizer), [(*one.rsplit(" ", 1)[:1], " " + one.split()[-1]) for one in texts])
    with closing(ResultsFile(tmp_path / "out.jsonl")) as results:
        (found,) = evaluate_tasks(Target(f"hf:{tmp_path / 'llama'}"), ["lambada"], source, results)
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()[1:]]
    by_name = {record["example"]: -record["nats"] for record in records}
    assert [by_name[name] for name in sorted(by_name)] == pytest.approx(wanted, rel=1e-5)
    assert all(metric.protocol["context_prefix"] == [BEGIN] for metric in found.metrics)


@pytest.mark.parametrize(("begin", "start"), [("<s>", BEGIN), (None, END)])
def test_a_text_starts_from_the_token_that_begins_one_or_else_from_that_which_ends_one(
    begin: str | None, start: int
) -> None:
    model, tokenizer = llama(begin)
    ours, reader = opened(model, tokenizer)
    assert reader.start == start
    asked = [("", "a cat sat on mats"), ("", "mats")]
    wanted = asked_of(harness_of(model, tokenizer), asked)
    scorer = Scorer(ours, reader, rows=2)
    assert [-answer.total for answer in scorer.loglikelihood(asked)] == pytest.approx(wanted, rel=1e-5)
    other = Scorer(ours, replace(reader, start=BEGIN + END - start), rows=2)
    assert [-answer.total for answer in other.loglikelihood(asked)] != pytest.approx(wanted, rel=1e-3)


def test_running_text_in_the_harness_has_its_numbers_and_ours_without_what_stands_before() -> None:
    """Of one window, and of several; the harness scores the `<s>` that the tokenizer puts before a text."""
    model, tokenizer = llama()
    texts = ["the cat sat on mats", "the cat sat on a mats " * 12]
    instances = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    wanted = harness_of(model, tokenizer).loglikelihood_rolling(instances)
    ours, reader = opened(model, tokenizer)
    assert SegueLM((ours, reader), batch_size=2).loglikelihood_rolling(instances) == pytest.approx(wanted, rel=1e-5)
    scorer = Scorer(ours, reader, rows=2)
    (alone,) = scorer.loglikelihood([("", texts[0])])
    assert scorer.rolling(texts[:1]) == pytest.approx([alone.total], rel=1e-5)
    assert -alone.total != pytest.approx(wanted[0], rel=1e-2)


class FirstIsWrong:
    """Finds the last token of each continuation the likeliest, and no other; notes the sizes of its batches."""

    vocab_size, max_length = len(WORDS), 32
    segments: Segments | None = None

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        self.sizes.append(len(groups))
        return [[self._score(len(item.continuation)) for item in group.items] for group in groups]

    def _score(self, size: int) -> ItemScore:
        return ItemScore(np.ones(size), np.arange(size) == size - 1, size == 1)

    def identity(self) -> dict[str, Any]:
        return {}


def test_a_continuation_is_greedy_where_every_token_is_and_batches_have_the_size_asked_for() -> None:
    _, tokenizer = llama()
    read, model = HuggingFaceTokenizer(tokenizer), FirstIsWrong()
    lm = SegueLM((model, Reader(read, read.start, 32)), batch_size="2")
    asked = [("the cat", " sat on"), ("the cat", " sat"), ("a cat", " sat on mats"), ("", "mats"), ("on", " a")]
    found = lm.loglikelihood([Instance("loglikelihood", {}, one, 0) for one in asked])
    assert found == [(-2.0, False), (-1.0, True), (-3.0, False), (-1.0, True), (-1.0, True)]
    assert max(model.sizes) == 2
