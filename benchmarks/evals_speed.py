"""Scoring against EleutherAI's lm-evaluation-harness: the same weights, the same requests, the same log-likelihoods.

    python -m benchmarks.evals_speed [--full]

A GPT-2 with random weights, tiny and of GPT-2-small's shape, is loaded by transformers and scored by the harness's `hf`
back end and by ours, each on one thread, in one process, with batches of equal size. Texts: LAMBADA, WSC273 and
WikiText-2 from the directory of benchmark data (SEGUE_BENCHMARK_DATA, or ../shared/data). Compared are processor
seconds; results are equal where no log-likelihood differs by more than 1e-5 relative and no greedy flag at all.
Without arguments a part of the requests, so that it takes less than ten minutes; `--full`: every request of the tiny
model, a hundred of each task of the small one.
"""

import gzip
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.table import Figure, conclude
from evals.backends.huggingface import HuggingFaceNetwork, HuggingFaceTokenizer
from evals.lm_eval_adapter import SegueLM
from evals.scoring.window_model import WindowModel
from evals.zero_shot import Reader

DATA = Path(os.environ.get("SEGUE_BENCHMARK_DATA") or Path(__file__).parents[2] / "shared" / "data")
ROWS = {"lambada": 16, "wsc273": 16, "wikitext2": 4}
"""Of a batch. More would take the harness, which holds all logits of a batch twice, beyond 20 GB on WikiText-2."""
TINY: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2}
SMALL: dict[str, Any] = {}
NEEDED = {"tiny": 20.0, "small": 1.6}
PART = {
    "tiny": {"lambada": 1000, "wsc273": 546, "wikitext2": 40},
    "small": {"lambada": 40, "wsc273": 40, "wikitext2": 3},
}
FULL: dict[str, dict[str, int]] = {"tiny": {}, "small": {"lambada": 100, "wsc273": 100, "wikitext2": 100}}
"""How many requests of each task; all, where nothing is said. Of WikiText-2, windows of 1,024 tokens."""


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
    text = "\n".join(_lines("wikitext2/wiki.test.raw.gz"))
    return {
        "lambada": [(context, " " + word) for context, word in pairs],
        "wsc273": partial,
        "wikitext2": [(text[begin : begin + 4_400],) for begin in range(0, len(text), 4_400)],
    }


def _lines(name: str) -> list[str]:
    content = (DATA / name).read_bytes()
    return (gzip.decompress(content) if name.endswith(".gz") else content).decode().splitlines()


Answers = list[tuple[float, bool]]


def harness(model: Any, tokenizer: Any, rows: int) -> Callable[[str, Sequence[tuple[str, ...]]], Answers]:
    """The harness's own back end for transformers."""
    from lm_eval.models.huggingface import HFLM

    return _ask(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows, max_length=1024, device="cpu"))


def ours(model: Any, tokenizer: Any, rows: int) -> Callable[[str, Sequence[tuple[str, ...]]], Answers]:
    """Our scoring of the same model, through our adapter for the harness."""
    scored = WindowModel(HuggingFaceNetwork(model, {}))
    words = HuggingFaceTokenizer(tokenizer)
    return _ask(SegueLM((scored, Reader(words, words.start, scored.max_length)), batch_size=rows))


def _ask(lm: Any) -> Callable[[str, Sequence[tuple[str, ...]]], Answers]:
    from lm_eval.api.instance import Instance

    def ask(task: str, asked: Sequence[tuple[str, ...]]) -> Answers:
        kind = "loglikelihood_rolling" if len(asked[0]) == 1 else "loglikelihood"
        instances = [Instance(kind, {}, arguments, place) for place, arguments in enumerate(asked)]
        found = getattr(lm, kind)(instances)
        return found if kind == "loglikelihood" else [(total, True) for total in found]

    return ask


def main() -> None:
    """Both in turn, the smaller model first."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("TQDM_DISABLE", "1")
    if not DATA.is_dir():
        sys.exit(f"there is no {DATA}: set SEGUE_BENCHMARK_DATA to the directory of the benchmark texts")
    torch.set_num_threads(1)
    counts = FULL if "--full" in sys.argv else PART
    figures, notes, same, worst = [], [], True, 0.0
    for name, sizes in (("tiny", TINY), ("small", SMALL)):
        model, tokenizer = gpt2(sizes)
        seconds = {"harness": 0.0, "ours": 0.0}
        for task, every in requests().items():
            asked = every[: counts[name].get(task, len(every))]
            answers = {}
            for who, make in (("ours", ours), ("harness", harness)):
                ask = make(model, tokenizer, ROWS[task])
                begun = time.process_time()
                answers[who] = ask(task, asked)
                taken = time.process_time() - begun
                seconds[who] += taken
                notes.append(f"{name} {task}: {len(asked)} requests, {who} {taken:.1f} s of processor time")
                print(notes[-1], flush=True)
            for (one, greedy), (other, flag) in zip(answers["ours"], answers["harness"], strict=True):
                worst = max(worst, abs(one - other) / max(1.0, abs(other)))
                same = same and greedy == flag and abs(one - other) <= 1e-5 * max(1.0, abs(other))
        ratio = seconds["ours"] / seconds["harness"]
        notes.append(f"{name}: {1 / ratio:.1f} times as many requests per processor second")
        figures.append(Figure(f"{name}: processor time, ours / harness", ratio, 1 / NEEDED[name]))
    notes.append(f"largest relative difference of a log-likelihood: {worst:.1e}")
    conclude("evals_speed", figures, same=same, notes=notes)


if __name__ == "__main__":
    main()
