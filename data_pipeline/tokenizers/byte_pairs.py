"""Byte-pair encoding of UTF-8 bytes (Sennrich et al. 2016; Radford et al. 2019), and what else `tokenizers` can read.

Kind `bpe` is trained on the corpus and lossless; kind `file` is any tokenizer that the library can read. Where
`engine.py` can give the same ids faster, it does; neither the hash nor the ids depend on it.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.division import LONGEST_RUN, divided
from data_pipeline.tokenizers.engine import Engine
from data_pipeline.tokenizers.hard_texts import HARD_TEXTS, FirstTexts
from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, Tokenizer, TokenizerTraining, Tokens

LONGEST_CALL = 1 << 16
"""Characters that the library encodes in one call, where text can be divided: its results take much memory."""

PARTS_AT_A_TIME = 256

LibraryKind = Literal["bpe", "unigram", "gpt2", "file"]


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

    @property
    def wanted_vocab_size(self) -> int:
        return self.vocab_size

    def build(self, texts: Iterable[str], counts: Counter[str]) -> "BytePairTokenizer":
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=2,
            special_tokens=[END_OF_DOCUMENT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        library = byte_level(models.BPE())
        library.train_from_iterator(texts, trainer)
        return BytePairTokenizer(library, kind="bpe", end_of_document=END_OF_DOCUMENT)


class TokenizerFileConfig(TokenizerTraining):
    """A finished tokenizer."""

    kind: Literal["file"]
    path: str
    """A `tokenizer.json` of the `tokenizers` library."""
    end_of_document: str = "<|endoftext|>"
    """One of its tokens."""

    def build(self, texts: Iterable[str], counts: Counter[str]) -> "BytePairTokenizer":
        try:
            content = Path(self.path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"tokenizer.path {self.path}: cannot be read ({error}); give a tokenizer.json") from error
        return BytePairTokenizer(_library_of(content), kind="file", end_of_document=self.end_of_document)


def byte_level(model: models.Model) -> LibraryTokenizer:
    """The model on UTF-8 bytes, within the words of GPT-2's pattern."""
    library = LibraryTokenizer(model)
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    return library


class BytePairTokenizer(Tokenizer):
    """A tokenizer of the library. Text that looks like a special token is encoded as the text it is."""

    def __init__(
        self, library: LibraryTokenizer, *, kind: LibraryKind, end_of_document: str, stored: str | None = None
    ) -> None:
        """BadInput if `end_of_document` is none of the tokens. `stored` is the file that it was read back from."""
        number = library.token_to_id(end_of_document)
        if number is None:
            raise BadInput(
                f"tokenizer.end_of_document {end_of_document!r}: not a token of this tokenizer; name one that is"
            )
        library.encode_special_tokens = True
        library.no_padding()
        library.no_truncation()
        self._library, self.kind, self.end_name, self._stored = library, kind, end_of_document, stored
        self.lossless = library.normalizer is None and isinstance(library.decoder, decoders.ByteLevel)
        self.end_of_document = number
        self.vocab_size = 1 + max(library.get_vocab(with_added_tokens=True).values())
        self.divisible = kind != "file" or _divides_as_gpt2(library)
        self._end = np.array([number], dtype=self.dtype)
        self._sample = FirstTexts()

    @classmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "BytePairTokenizer":
        """From the two files' content; BadInput if the library cannot read it."""
        kind = next(one for one in get_args(LibraryKind) if one == settings["kind"])
        end = str(settings["end_of_document"])
        return cls(_library_of(vocabulary), kind=kind, end_of_document=end, stored=vocabulary)

    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        return self._encode(texts, with_end=False)

    def encode_documents(self, texts: Sequence[str]) -> list[Tokens]:
        return self._encode(texts, with_end=True)

    def reference(self, texts: Sequence[str]) -> list[Tokens]:
        """What `encode_batch` gives, by the library alone."""
        parts = [list(divided(text, LONGEST_CALL)) if self.divisible else [text] for text in texts]
        flat = list(chain.from_iterable(parts))
        ids: list[Tokens] = []
        for start in range(0, len(flat), PARTS_AT_A_TIME):  # its results, far larger than the ids, of a few only
            group = self._library.encode_batch_fast(flat[start : start + PARTS_AT_A_TIME], add_special_tokens=False)
            ids += [np.array(one.ids, dtype=self.dtype) for one in group]
        in_order = iter(ids)
        return [np.concatenate([next(in_order) for _ in of_text]) for of_text in parts]

    @cached_property
    def engine(self) -> Engine | None:
        """The faster way to the same ids, where there is one for this vocabulary."""
        try:
            engine = Engine(self._library, self.end_of_document, self.dtype)
        except ValueError:
            return None
        return engine if self._agrees(engine, HARD_TEXTS) else None

    def _encode(self, texts: Sequence[str], *, with_end: bool) -> list[Tokens]:
        """Long texts in parts of which neither way makes more than memory holds."""
        if not self.divisible or all(len(text) <= LONGEST_RUN for text in texts):
            return self._encode_short(texts, with_end=with_end)
        encoded: list[Tokens] = []
        for text in texts:
            parts = divided(text, LONGEST_RUN, 2 * LONGEST_RUN)
            ids = [self._encode_short([part], with_end=False)[0] for part in parts]
            encoded.append(np.concatenate([*ids, *([self._end] * with_end)]))
        return encoded

    def _encode_short(self, texts: Sequence[str], *, with_end: bool) -> list[Tokens]:
        engine = self._engine_for(texts)
        easy = [engine is not None and engine.can_encode(text) for text in texts]
        fast = [text for text, is_easy in zip(texts, easy, strict=True) if is_easy]
        slow = [text for text, is_easy in zip(texts, easy, strict=True) if not is_easy]
        by_engine = iter(engine.encode(fast, with_end=with_end) if engine is not None and fast else ())
        by_library = iter(self._by_reference(slow, with_end=with_end))
        return [next(by_engine if is_easy else by_library) for is_easy in easy]

    def _by_reference(self, texts: Sequence[str], *, with_end: bool) -> list[Tokens]:
        ids = self.reference(texts)
        return [np.concatenate([one, self._end]) for one in ids] if with_end else ids

    def _engine_for(self, texts: Sequence[str]) -> Engine | None:
        """The engine, unless it differs on one of the first texts that there are."""
        sample = self._sample.take(texts)
        if sample and self.engine is not None and not self._agrees(self.engine, sample):
            self.engine = None
        return self.engine

    def _agrees(self, engine: Engine, texts: Sequence[str]) -> bool:
        chosen = [text for text in texts if engine.can_encode(text)]
        pairs = zip(engine.encode(chosen, with_end=False), self.reference(chosen), strict=True)
        different = next((place for place, (one, other) in enumerate(pairs) if not np.array_equal(one, other)), None)
        if different is not None:
            warnings.warn(
                f"tiktoken and tokenizers differ in the ids of {chosen[different][:80]!r}; tokenizers alone is used, "
                "which is slower",
                RuntimeWarning,
                stacklevel=2,
            )
        return different is None

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return str(self._library.decode([int(i) for i in ids], skip_special_tokens=False))

    def vocabulary_json(self) -> str:
        """As stored: another version of the library may write the same tokenizer otherwise."""
        return self._written if self._stored is None else self._stored

    @cached_property
    def _written(self) -> str:
        return self._library.to_str()

    def settings(self) -> dict[str, str | int | bool]:
        return {"end_of_document": self.end_name}


def _library_of(content: str) -> LibraryTokenizer:
    """BadInput if the library cannot read it."""
    try:
        return LibraryTokenizer.from_str(content)
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"tokenizer.json: the tokenizers library cannot read it ({error}); give another") from error


def _divides_as_gpt2(library: LibraryTokenizer) -> bool:
    """Whether the words are those of GPT-2's pattern, of text as it is."""
    content = json.loads(library.to_str())
    before = content["pre_tokenizer"] or {}
    plain = before.get("type") == "ByteLevel" and not before.get("add_prefix_space") and before.get("use_regex", True)
    return plain and content["normalizer"] is None and all(token["special"] for token in content["added_tokens"])
