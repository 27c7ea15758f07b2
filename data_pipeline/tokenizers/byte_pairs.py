"""Byte-pair encoding of UTF-8 bytes (Sennrich et al. 2016; Radford et al. 2019), by the `tokenizers` library.

Kind `bpe` is trained on the corpus and lossless; kind `file` is any tokenizer that the library can read.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, Tokenizer, TokenizerTraining, Tokens

LONGEST_CALL = 1 << 16
"""Characters encoded in one call, where it can be divided: a giant document would take memory in proportion."""

PARTS_AT_A_TIME = 256

BOUNDARY = re.compile(r" (?=\S)")


class BytePairConfig(TokenizerTraining):
    """Trained on a fixed sample of the train split."""

    kind: Literal["bpe"]
    vocab_size: int = Field(ge=257, le=1 << 20)
    """At most, with the 256 bytes and `<eos>`; a small corpus may not have that many pairs."""
    sample_bytes: int = Field(default=1 << 24, ge=1)
    """Text to train on: the documents whose ids have the lowest hashes, until there is as much."""

    @property
    def wanted_sample_bytes(self) -> int:
        return self.sample_bytes

    def build(self, texts: Iterable[str], word_counts: Counter[str]) -> "BytePairTokenizer":
        library = LibraryTokenizer(models.BPE())
        library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        library.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_DOCUMENT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library.train_from_iterator(texts, trainer)
        return BytePairTokenizer(library, kind="bpe", end_of_document=END_OF_DOCUMENT)


class TokenizerFileConfig(TokenizerTraining):
    """A finished tokenizer."""

    kind: Literal["file"]
    path: str
    """A `tokenizer.json` of the `tokenizers` library."""
    end_of_document: str = "<|endoftext|>"
    """One of its tokens."""

    def build(self, texts: Iterable[str], word_counts: Counter[str]) -> "BytePairTokenizer":
        try:
            content = Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"tokenizer.path {self.path}: cannot be read ({error}); give a tokenizer.json") from error
        settings: dict[str, str | int | bool] = {"kind": "file", "end_of_document": self.end_of_document}
        return BytePairTokenizer.parse(content, settings)


class BytePairTokenizer(Tokenizer):
    """A tokenizer of the library. Text that looks like a special token is encoded as the text it is."""

    def __init__(self, library: LibraryTokenizer, *, kind: Literal["bpe", "file"], end_of_document: str) -> None:
        """BadInput if `end_of_document` is none of the tokens."""
        number = library.token_to_id(end_of_document)
        if number is None:
            raise BadInput(
                f"tokenizer.end_of_document {end_of_document!r}: not a token of this tokenizer; name one that is"
            )
        library.encode_special_tokens = True
        library.no_padding()
        library.no_truncation()
        self._library, self.kind, self.end_name = library, kind, end_of_document
        self.lossless = library.normalizer is None and isinstance(library.decoder, decoders.ByteLevel)
        self.end_of_document = number
        self.vocab_size = 1 + max(library.get_vocab(with_added_tokens=True).values())

    @classmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "BytePairTokenizer":
        """From the two files' content; BadInput if the library cannot read it."""
        try:
            library = LibraryTokenizer.from_str(vocabulary)
        except Exception as error:  # the library raises nothing narrower
            raise BadInput(f"tokenizer.json: the tokenizers library cannot read it ({error}); give another") from error
        kind: Literal["bpe", "file"] = "bpe" if settings["kind"] == "bpe" else "file"
        return cls(library, kind=kind, end_of_document=str(settings["end_of_document"]))

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        parts = [list(divided(text, LONGEST_CALL)) if self.kind == "bpe" else [text] for text in texts]
        flat = [part for of_text in parts for part in of_text]
        ids = self._ids(flat)
        return [np.concatenate([next(ids) for _ in of_text]) for of_text in parts]

    def _ids(self, parts: Sequence[str]) -> Iterator[Tokens]:
        """Of each part; the library's results, far larger than the ids, are kept for a few parts only."""
        for start in range(0, len(parts), PARTS_AT_A_TIME):
            group = self._library.encode_batch_fast(parts[start : start + PARTS_AT_A_TIME], add_special_tokens=False)
            yield from (np.array(one.ids, dtype=self.dtype) for one in group)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return str(self._library.decode([int(i) for i in ids], skip_special_tokens=False))

    def vocabulary_json(self) -> str:
        return self._library.to_str()

    def settings(self) -> dict[str, str | int | bool]:
        return {"end_of_document": self.end_name}


def divided(text: str, length: int) -> Iterator[str]:
    """The text in parts of at least `length` characters, cut only where the byte-level pre-tokenizer cuts as well.

    That is before a space that something else than white space follows: its pattern gives that space to what follows,
    and leaves it out of the white space before.
    """
    start = 0
    while boundary := BOUNDARY.search(text, start + length):
        yield text[start : boundary.start()]
        start = boundary.start()
    yield text[start:]
