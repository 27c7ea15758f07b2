"""The baselines as models to score: rows of the table that a trained model must beat, and a check of the whole way.

`kneser-ney:FILE` is a modified Kneser-Ney 5-gram over words, estimated on that file; it is for pre-tokenized text
(`ptb/tokenized`, `wikitext2/tokenized`). `uniform:bytes` gives every byte 8 bits.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.config import BadInput
from evals.baselines import BYTES, Baseline, KneserNey, Words, byte_ids, read_lines
from evals.scoring.item import Group, Item, ItemScore

KNESER_NEY, UNIFORM = "kneser-ney:", "uniform:bytes"
ORDER = 5

GREEDY_UP_TO = 32
"""Tokens of a continuation whose likeliest rivals are looked for; of longer ones none is called the likeliest."""


class WordTokenizer:
    """Words between spaces, and the ends of lines."""

    def __init__(self, words: Words) -> None:
        self.words, self.unknown = words, words.unknown

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text) for text in texts]

    def _encode(self, text: str) -> np.ndarray:
        """The last line has an end where the text has."""
        ids: np.ndarray = self.words.ids(text.split("\n"))[:-1]
        return ids


class ByteTokenizer:
    """UTF-8."""

    unknown = None

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [byte_ids(text) for text in texts]


class BaselineModel:
    """A `TokenModel` of a baseline; a context that begins with the token of a start has nothing before it."""

    max_length: int | None = None
    segments = None

    def __init__(self, baseline: Baseline, identity: dict[str, Any], start: int) -> None:
        self.baseline, self._identity, self.vocab_size = baseline, identity, baseline.vocabulary_size
        self.start = start

    def identity(self) -> dict[str, Any]:
        return self._identity | self.baseline.describe()

    def score(self, groups: Sequence[Group]) -> list[list[ItemScore]]:
        return [[self._score(item) for item in group.items] for group in groups]

    def _score(self, item: Item) -> ItemScore:
        before = item.context[1:] if item.context[0] == self.start else item.context
        read = np.concatenate([before, item.continuation])
        nats_T = self.baseline.nats(read)[len(before) :]
        greedy_T = np.zeros(len(nats_T), dtype=bool)
        first = False
        for place in range(len(nats_T) if len(nats_T) <= GREEDY_UP_TO else 0):
            log_probs_V = self.baseline.next_log_probs(read[: len(before) + place])
            greedy_T[place] = int(log_probs_V.argmax()) == item.continuation[place]
            if place == 0:
                log_probs_V[sorted(item.barred)] = -np.inf
                first = int(log_probs_V.argmax()) == int(item.continuation[0])
        return ItemScore(nats_T, greedy_T, first)


def baseline_file(name: str) -> Path:
    """The text of a baseline of n-grams; BadInput where there is none."""
    path = Path(name.removeprefix(KNESER_NEY))
    if not path.is_file():
        problem = "is no file" if path.exists() and name != KNESER_NEY else "does not exist"
        raise BadInput(f"{name}: {str(path)!r} {problem}; give the text that the n-grams are counted in")
    return path


def open_baseline(name: str) -> tuple[BaselineModel, WordTokenizer | ByteTokenizer, int]:
    """Model, tokenizer, and the token that stands for a start; BadInput where the file cannot be read."""
    if name == UNIFORM:
        return BaselineModel(BYTES, {"kind": "uniform over bytes"}, 0), ByteTokenizer(), 0
    path = baseline_file(name)
    lines = read_lines(path)
    words = Words.of(lines)
    model = KneserNey(ORDER).fit(words.ids(lines), vocabulary_size=words.size, end_of_line=words.end_of_line)
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    identity = {"kind": f"modified Kneser-Ney {ORDER}-gram", "trained_on": path.name, "trained_on_sha256": digest}
    return BaselineModel(model, identity, words.end_of_line), WordTokenizer(words), words.end_of_line
