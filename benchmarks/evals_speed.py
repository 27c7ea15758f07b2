"""Scoring against EleutherAI's lm-evaluation-harness: the same weights, the same requests, the same log-likelihoods.

    python -m benchmarks.evals_speed [--full]

A GPT-2 with random weights, tiny and of GPT-2-small's shape, is scored by the harness's `hf` back end, by ours with the
same model of transformers, and by ours with Segue's own GPT, which has read the exported weights; each on one thread,
in one process, with batches of equal size. Texts: LAMBADA, WSC273 and WikiText-2 from the directory of benchmark data
(SEGUE_BENCHMARK_DATA, or ../shared/data). Compared are processor seconds; results are equal where no log-likelihood
differs by more than 1e-5 relative and no greedy flag at all. Without arguments a part of the requests, so that it takes
less than ten minutes; `--full`: every request of the tiny model, a hundred of each task of the small one.

What is saved is the output layer where nothing is scored: nearly all of LAMBADA, a part of WSC273, nothing of running
text, of which every position counts for both.
"""

import gzip
import json
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.table import Figure, conclude
from evals.backends.huggingface import HuggingFaceNetwork, HuggingFaceTokenizer
from evals.backends.segue import token_model
from evals.lm_eval_adapter import SegueLM
from evals.scoring.window_model import WindowModel
from evals.tasks.wikitext import articles
from evals.zero_shot import Reader
from pretrain.exchange import gpt2 as exchange

DATA = Path(os.environ.get("SEGUE_BENCHMARK_DATA") or Path(__file__).parents[2] / "shared" / "data")
LIKELIEST, CONTEXTS = "likeliest", 20
"""Continuations that the model itself writes, after so many contexts of LAMBADA: whose flags are true."""
ROWS = {LIKELIEST: 16, "lambada": 16, "wsc273": 16, "wikitext2": 4, "wikitext2 paragraphs": 16}
"""Of a batch. More would take the harness, which holds all logits of a batch twice, beyond 20 GB on WikiText-2."""
TINY: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2}
SMALL: dict[str, Any] = {}
GOALS = {"tiny": 20.0, "small": 1.6}
"""Times as many requests per processor second as the harness."""
PART = {
    "tiny": {"lambada": 1000, "wsc273": 546, "wikitext2": 8},
    "small": {"lambada": 40, "wsc273": 40, "wikitext2 paragraphs": 10},
}
FULL = {
    "tiny": {"lambada": 5153, "wsc273": 1092, "wikitext2": 62},
    "small": {"lambada": 100, "wsc273": 100, "wikitext2 paragraphs": 100},
}
"""How many requests of each task. Of WikiText-2 one is an article, of some thousand tokens, or a paragraph."""


def gpt2(sizes: dict[str, Any]) -> tuple[Any, Any]:
    """A model of transformers with random weights, and GPT-2's tokenizer."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocabulary = json.loads(gzip.decompress((DATA / "gpt2_bpe" / "encoder.json.gz").read_bytes()))
    lines = (DATA / "gpt2_bpe" / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:]
    library = Tokenizer(
        models.BPE(vocab=vocabulary, merges=[(a, b) for a, b in (line.split(" ") for line in lines if line)])
    )
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=library, bos_token=end, eos_token=end, unk_token=end)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)  # so that predictions differ from uniform
    return model, tokenizer


def requests() -> dict[str, list[tuple[str, ...]]]:
    """Context and continuation, or running text alone."""
    lambada = _lines("lambada/lambada_test.jsonl.gz")
    pairs: list[list[str]] = [json.loads(line)["text"].rsplit(" ", 1) for line in lambada]
    wsc = [json.loads(line) for line in _lines("wsc273/wsc273.jsonl")]
    partial: list[tuple[str, ...]] = [
        (f"{row['txt1']} {option}", " " + row["txt2"]) for row in wsc for option in row["options"]
    ]
    full: list[tuple[str, ...]] = [
        ("", f"{row['txt1']} {option} {row['txt2']}") for row in wsc for option in row["options"]
    ]
    text = [line + "\n" for line in _lines("wikitext2/wiki.test.raw.gz")]
    return {
        "lambada": [(context, " " + word) for context, word in pairs],
        "wsc273": partial + full,
        "wikitext2": [("".join(article),) for article in articles(text)],
        "wikitext2 paragraphs": [(line,) for line in text if len(line) > 100],
    }


def likeliest(model: Any, tokenizer: Any, contexts: Sequence[str], length: int = 2) -> list[tuple[str, ...]]:
    """What the model itself would write after each context, and the same with another last token: of random weights
    hardly anything else has a true flag."""
    found: list[tuple[str, ...]] = []
    for context in contexts:
        before = tokenizer(context)["input_ids"]
        ids = list(before)
        for _ in range(length):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        text = tokenizer.decode(ids[len(before) :], clean_up_tokenization_spaces=False)
        other = tokenizer.decode([*ids[len(before) : -1], ids[-1] + 1], clean_up_tokenization_spaces=False)
        if tokenizer(context + text)["input_ids"] == ids:  # else they are not the tokens that anybody would read
            found += [(context, text), (context, other)]
    return found


def _lines(name: str) -> list[str]:
    content = (DATA / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    return text.removesuffix("\n").split("\n")


Answers = list[tuple[float, bool]]
Ask = Callable[[str, Sequence[tuple[str, ...]]], Answers]
Contenders = Callable[[int], dict[str, Ask]]
HARNESS, OURS, OWN = "harness", "ours", "ours, Segue's GPT"


def contenders(model: Any, tokenizer: Any) -> Contenders:
    """By name, for batches of so many rows, all of one model of transformers."""
    from lm_eval.models.huggingface import HFLM

    words = HuggingFaceTokenizer(tokenizer)
    with TemporaryDirectory() as place:
        model.save_pretrained(place)
        own = token_model(exchange.read(Path(place)).eval(), {})
    theirs = WindowModel(HuggingFaceNetwork(model, {}))

    def of(rows: int) -> dict[str, Ask]:
        harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows, max_length=1024, device="cpu")
        ours = {
            name: SegueLM((scored, Reader(words, words.start, scored.max_length)), batch_size=rows)
            for name, scored in ((OURS, theirs), (OWN, own))
        }
        return {name: _ask(lm) for name, lm in {HARNESS: harness, **ours}.items()}

    return of


def _ask(lm: Any) -> Callable[[str, Sequence[tuple[str, ...]]], Answers]:
    from lm_eval.api.instance import Instance

    def ask(task: str, asked: Sequence[tuple[str, ...]]) -> Answers:
        kind = "loglikelihood_rolling" if len(asked[0]) == 1 else "loglikelihood"
        instances = [Instance(kind, {}, arguments, place) for place, arguments in enumerate(asked)]
        found = getattr(lm, kind)(instances)
        return found if kind == "loglikelihood" else [(total, True) for total in found]

    return ask


def times(speed: float, other: float) -> str:
    """How many times as fast, rounded down: what is printed is never more than what was measured."""
    return f"{math.floor(10 * speed / other) / 10:.1f}"


def main() -> None:
    """Both in turn, the smaller model first."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TQDM_DISABLE", "1")
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: set SEGUE_BENCHMARK_DATA to the directory of the benchmark texts")
    torch.set_num_threads(1)
    counts = FULL if "--full" in sys.argv else PART
    figures, notes, same, worst, flags = [], [], True, 0.0, 0
    for name, sizes in (("tiny", TINY), ("small", SMALL)):
        model, tokenizer = gpt2(sizes)
        of, every = contenders(model, tokenizer), requests()
        every[LIKELIEST] = likeliest(model, tokenizer, [context for context, _ in every["lambada"][:CONTEXTS]])
        for task, count in {**counts[name], LIKELIEST: 2 * CONTEXTS}.items():
            asked, answers, seconds = every[task][:count], {}, {}
            for who, ask in of(ROWS[task]).items():
                begun = time.process_time()
                answers[who] = ask(task, asked)
                seconds[who] = time.process_time() - begun
            speed = {who: len(asked) / taken for who, taken in seconds.items()}
            said = ", ".join(f"{who} {each:.2f} ({times(each, speed[HARNESS])}x)" for who, each in speed.items())
            notes.append(f"{name} {task}, {len(asked)} requests; per processor second: {said}")
            print(notes[-1], flush=True)
            for who in (OURS, OWN):
                for (one, greedy), (other, flag) in zip(answers[who], answers[HARNESS], strict=True):
                    worst = max(worst, abs(one - other) / max(1.0, abs(other)))
                    same = same and greedy == flag
            if task == LIKELIEST:
                flags += sum(flag for _, flag in answers[HARNESS])
                continue
            for who in (OURS, OWN):
                ratio = seconds[who] / seconds[HARNESS]
                figures.append(Figure(f"{name} {task}: processor time, {who} / harness", ratio, 1 / GOALS[name]))
    notes.append(
        f"largest relative difference of a log-likelihood: {worst:.1e}; greedy flags equal: {same} (true: {flags})"
    )
    conclude("evals_speed", figures, same=same and flags > 0 and worst <= 1e-5, notes=notes)


if __name__ == "__main__":
    main()
