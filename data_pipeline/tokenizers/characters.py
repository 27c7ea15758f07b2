"""One token per character, as character language models count them."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, Tokenizer, TokenizerTraining, Tokens
from data_pipeline.tokenizers.word import UNKNOWN

NUM_POINTS = 0x110000
"""Of Unicode."""

Rare = Literal["bytes", "unknown"]


class CharacterConfig(TokenizerTraining):
    """The vocabulary is the characters of the train split, the most frequent first (ties in order of code point)."""

    kind: Literal["char"]
    min_count: int = Field(default=1, ge=1)
    """Rarer characters are not in it."""
    rare: Rare = "bytes"
    """What characters outside of the vocabulary become: their bytes in UTF-8, which have 256 ids and lose nothing, or
    `<unk>`."""

    @property
    def counts(self) -> Literal["characters"]:
        return "characters"

    def build(self, texts: Iterable[str], counts: Counter[str]) -> "CharacterTokenizer":
        kept = (character for character, count in counts.items() if count >= self.min_count)
        return CharacterTokenizer(sorted(kept, key=lambda one: (-counts[one], one)), rare=self.rare)


class CharacterTokenizer(Tokenizer):
    """Ids: `<eos>`, then the 256 bytes or `<unk>`, then the characters."""

    kind = "char"
    divisible = True
    end_of_document = 0

    def __init__(self, characters: Sequence[str], *, rare: Rare) -> None:
        self._characters, self._rare = characters, rare
        self.lossless = rare == "bytes"
        self.unknown = None if self.lossless else 1
        self._first = 257 if self.lossless else 2
        self.vocab_size = self._first + len(characters)
        self._ids = np.full(NUM_POINTS, -1, dtype=np.int32)
        self._ids[[ord(character) for character in characters]] = np.arange(self._first, self.vocab_size)

    @classmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "CharacterTokenizer":
        return cls(json.loads(vocabulary)["characters"], rare="bytes" if settings["rare"] == "bytes" else "unknown")

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        return [self._encoded(text) for text in texts]

    def _encoded(self, text: str) -> Tokens:
        ids = self._ids[np.frombuffer(text.encode("utf-32-le"), dtype="<u4")]
        missing = np.flatnonzero(ids < 0)
        if self.unknown is not None:
            ids[missing] = self.unknown
        elif missing.size:
            counts = np.ones(len(ids), dtype=np.int64)
            spelled = [text[place].encode() for place in missing]
            counts[missing] = [len(one) for one in spelled]
            ids = np.repeat(ids, counts)
            ids[ids < 0] = np.frombuffer(b"".join(spelled), dtype=np.uint8).astype(np.int32) + 1
        return ids.astype(self.dtype)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return b"".join(map(self._bytes, map(int, ids))).decode("utf-8", "replace")

    def _bytes(self, number: int) -> bytes:
        if number == self.end_of_document:
            return END_OF_DOCUMENT.encode()
        if number >= self._first:
            return self._characters[number - self._first].encode()
        return bytes([number - 1]) if self.lossless else UNKNOWN.encode()

    def vocabulary_json(self) -> str:
        return json.dumps({"characters": "".join(self._characters)}, ensure_ascii=False) + "\n"

    def settings(self) -> dict[str, str | int | bool]:
        return {"rare": self._rare}
