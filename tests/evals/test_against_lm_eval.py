"""Our log-likelihoods against those of EleutherAI's lm-evaluation-harness, of the same random weights.

`python -m benchmarks.evals_speed --full` compares every request.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from benchmarks import evals_speed
from evals.backends.huggingface import HuggingFaceNetwork, HuggingFaceTokenizer
from evals.scorer import Scorer
from evals.scoring.window_model import WindowModel
from evals.zero_shot import Reader
from tests.evals.benchmark_data import benchmark_data

pytest.importorskip("lm_eval", reason="the extra segue[lm-eval] is not installed")
from lm_eval.api.instance import Instance

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


def test_what_a_tokenizer_puts_before_a_text_stands_before_contexts() -> None:
    """A Llama's tokenizer begins each text with a token of its own, as the harness lets it."""
    from lm_eval.models.huggingface import HFLM
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<s>", "<unk>", "the", "cat", "sat", "on", "mats", "a"]
    library = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    library.pre_tokenizer = pre_tokenizers.Whitespace()
    library.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, bos_token="<s>", eos_token="<s>", unk_token="<unk>")
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.5,
    )).eval()  # fmt: skip
    asked = [("the cat sat", " on mats"), ("the cat", " sat"), ("", "a cat sat on mats")]
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, max_length=32, device="cpu")
    wanted = [total for total, _ in harness.loglikelihood([Instance("loglikelihood", {}, one, 0) for one in asked])]
    ours, read = WindowModel(HuggingFaceNetwork(model, {})), HuggingFaceTokenizer(tokenizer)
    reader = Reader(read, read.start, ours.max_length, prefix=read.prefix)
    found = [-answer.total for answer in Scorer(ours, reader, rows=2).loglikelihood(asked)]
    assert found == pytest.approx(wanted, rel=1e-5)
    without = [-answer.total for answer in Scorer(ours, replace(reader, prefix=()), rows=2).loglikelihood(asked)]
    assert without[:2] != pytest.approx(wanted[:2], rel=1e-2), "it makes a difference"
