"""Vocabularies that several tests of tokenizers use."""

import os
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from data_pipeline.tokenizers.byte_pairs import BytePairConfig, BytePairTokenizer
from data_pipeline.tokenizers.gpt2 import GPT2Config

GPT2_FILES = Path(os.environ.get("SEGUE_BENCHMARK_DATA") or Path(__file__).parents[4] / "shared" / "data") / "gpt2_bpe"

TRAINING = [
    "the cat sat on the mat; the dog didn't. naïve 東京\n\n    def f(x):\n        return x\n",
    "It's they're we've aaaaaaaa    ======== 1234 1999 ... <eos> <|endoftext|>\r\n\t\t"
    "\u0434\u043e\u043c \u0434\u043e\u043c\u0430 👩‍👩‍👧 é é",
] * 40


@cache
def gpt2() -> BytePairTokenizer:
    """Skips without GPT-2's files."""
    if not GPT2_FILES.is_dir():
        pytest.skip(f"there is no {GPT2_FILES}: set SEGUE_BENCHMARK_DATA to the directory of the benchmark texts")
    return GPT2Config(kind="gpt2", path=str(GPT2_FILES)).build([], Counter())


@cache
def trained() -> BytePairTokenizer:
    """`<eos>` is its first id, so that no rank is an id."""
    return BytePairConfig(kind="bpe", vocab_size=420).build(TRAINING, Counter())
