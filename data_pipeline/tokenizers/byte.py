"""One token per byte of UTF-8: ids 0 to 255, and 256 at the end of a document."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, Tokenizer, TokenizerTraining, Tokens


class ByteConfig(TokenizerTraining):
    """Nothing to choose."""

    kind: Literal["byte"]

    def build(self, texts: Iterable[str], counts: Counter[str]) -> "ByteTokenizer":
        return ByteTokenizer()


class ByteTokenizer(Tokenizer):
    """Lossless."""

    kind = "byte"
    lossless = True
    divisible = True
    vocab_size = 257
    end_of_document = 256

    @classmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "ByteTokenizer":
        return cls()

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        return [np.frombuffer(text.encode("utf-8"), dtype=np.uint8).astype(self.dtype) for text in texts]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        end = END_OF_DOCUMENT.encode()
        return b"".join(end if i == self.end_of_document else bytes([int(i)]) for i in ids).decode("utf-8", "replace")

    def vocabulary_json(self) -> str:
        return "{}\n"

    def settings(self) -> dict[str, str | int | bool]:
        return {}
