"""White-space words with a closed vocabulary, as the Penn Treebank and WikiText-2 benchmarks count them.

Both benchmarks append `<eos>` to every line, and both texts hold a literal `<unk>` for rare words already.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, Tokenizer, TokenizerTraining, Tokens

UNKNOWN = "<unk>"


class WordConfig(TokenizerTraining):
    """The vocabulary is the words of the train split, the most frequent first (ties in alphabetical order)."""

    kind: Literal["word"]
    min_count: int = Field(default=1, ge=1)
    """Rarer words are `<unk>`."""
    end_of_line: bool = True
    """Every newline is a token `<eos>`; then the end of a document is not marked again if a newline ends it."""

    @property
    def counts(self) -> Literal["words"]:
        return "words"

    def build(self, texts: Iterable[str], counts: Counter[str]) -> "WordTokenizer":
        special = (END_OF_DOCUMENT, UNKNOWN)
        kept = (word for word, count in counts.items() if count >= self.min_count and word not in special)
        words = sorted(kept, key=lambda word: (-counts[word], word))
        if not words:
            raise BadInput(
                f"tokenizer.min_count {self.min_count}: no word of the train split occurs as often; lower it"
            )
        return WordTokenizer([*special, *words], end_of_line=self.end_of_line)


class WordTokenizer(Tokenizer):
    """Not lossless: runs of white space become one space, unknown words `<unk>`."""

    kind = "word"
    divisible = True
    end_of_document = 0

    def __init__(self, words: list[str], *, end_of_line: bool) -> None:
        """`words` begins with `<eos>`, `<unk>`."""
        self._words, self._end_of_line = words, end_of_line
        self._ids = {word: number for number, word in enumerate(words) if number != self.end_of_document}
        self.unknown: int = self._ids[UNKNOWN]
        self.vocab_size = len(words)

    @classmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "WordTokenizer":
        return cls(json.loads(vocabulary)["words"], end_of_line=bool(settings["end_of_line"]))

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        return [np.fromiter(self._encoded(text), dtype=self.dtype) for text in texts]

    def _encoded(self, text: str) -> Iterator[int]:
        lines = text.split("\n") if self._end_of_line else [text]
        for number, line in enumerate(lines):
            if number:
                yield self.end_of_document
            for word in line.split():
                yield self._ids.get(word, self.unknown)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        text = " ".join(self._words[int(i)] for i in ids)
        return text.replace(END_OF_DOCUMENT + " ", END_OF_DOCUMENT + "\n") if self._end_of_line else text

    def vocabulary_json(self) -> str:
        return json.dumps({"words": self._words}, ensure_ascii=False) + "\n"

    def settings(self) -> dict[str, str | int | bool]:
        return {"end_of_line": self._end_of_line}
