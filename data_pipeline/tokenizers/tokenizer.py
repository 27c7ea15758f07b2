"""What every tokenizer does, whatever its kind.

A tokenizer is stored as two files: `tokenizer.json` (its vocabulary; for the kinds `bpe`, `unigram`, `gpt2` and
`file` the format of the `tokenizers` library) and `tokenizer_settings.json` (everything else).
"""

import abc
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_pipeline.atomic import write_atomically
from data_pipeline.config import Config

END_OF_DOCUMENT = "<eos>"
VOCABULARY_FILE = "tokenizer.json"
SETTINGS_FILE = "tokenizer_settings.json"

Counted = Literal["words", "characters"]

Tokens = np.ndarray
"""[length] uint16, or uint32 for a vocabulary of more than 65536."""


class Tokenizer(abc.ABC):
    """Text to token ids and back."""

    kind: str
    """Which class reads it back."""

    vocab_size: int
    """Ids are below it."""
    lossless: bool = False
    """Whether decoding gives back every text exactly: without that, -log p of the tokens is not that of the bytes."""
    unknown: int | None = None
    """The id of what the vocabulary cannot spell, in tokenizers that have one."""
    divisible: bool = False
    """Whether text cut before a white space that something else follows has the ids of the whole."""
    end_of_document: int
    """The id that ends every stored document; text never encodes to it, but for kind `word` with `end_of_line`."""

    @classmethod
    @abc.abstractmethod
    def parse(cls, vocabulary: str, settings: dict[str, str | int | bool]) -> "Tokenizer":
        """From the two files' content; ValueError or KeyError if it is not understood."""

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, without an end of document."""

    @abc.abstractmethod
    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids; an end of document is shown as its name. ids that are no whole UTF-8 give U+FFFD."""

    @abc.abstractmethod
    def vocabulary_json(self) -> str:
        """The content of `tokenizer.json`."""

    @abc.abstractmethod
    def settings(self) -> dict[str, str | int | bool]:
        """The content of `tokenizer_settings.json`, besides the kind."""

    @property
    def dtype(self) -> np.dtype:
        """The smallest of uint16 and uint32 that holds every id."""
        return np.dtype("<u2" if self.vocab_size <= 1 << 16 else "<u4")

    @property
    def hash(self) -> str:
        """SHA-256 over both files' content."""
        return hashlib.sha256((self._settings_json() + "\0" + self.vocabulary_json()).encode()).hexdigest()

    @property
    def hash_of_ids(self) -> str:
        """The same for tokenizers that give equal ids, wherever they come from: one of kind `file` and the one that
        wrote the file."""
        parts = (type(self).__name__, json.dumps(self.settings(), sort_keys=True), self.vocabulary_json())
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    def encode_documents(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text as stored: with an end of document, unless the text's last token is one already."""
        end = np.array([self.end_of_document], dtype=self.dtype)
        encoded = self.encode_batch(texts)
        return [ids if ids.size and ids[-1] == end[0] else np.concatenate([ids, end]) for ids in encoded]

    def save(self, directory: Path) -> None:
        """Writes both files, each whole or not at all; the settings last. BadInput if they cannot be written."""
        write_atomically(directory / VOCABULARY_FILE, self.vocabulary_json().encode())
        write_atomically(directory / SETTINGS_FILE, self._settings_json().encode())

    def _settings_json(self) -> str:
        return json.dumps({"kind": self.kind, **self.settings()}, indent=1, sort_keys=True) + "\n"


class TokenizerTraining(Config, abc.ABC):
    """How a tokenizer comes about; each kind has its own."""

    @property
    def wanted_sample_bytes(self) -> int:
        """How much text `build` wants to see."""
        return 0

    @property
    def counts(self) -> Counted | None:
        """Of what `build` wants the counts in the train split."""
        return None

    @property
    def needs_corpus(self) -> bool:
        """Whether the tokenizer depends on the text."""
        return self.wanted_sample_bytes > 0 or self.counts is not None

    @property
    def wanted_vocab_size(self) -> int | None:
        """The vocabulary that is asked for, where it may become smaller."""
        return None

    def told(self, vocab_size: int) -> str:
        """What to say of the vocabulary that it has become."""
        wanted = self.wanted_vocab_size
        if wanted is None or wanted <= vocab_size:
            return f"vocabulary {vocab_size:,}"
        return (
            f"vocabulary {vocab_size:,}, not tokenizer.vocab_size {wanted:,} (no more pieces are in the sample twice; "
            "ask for fewer, or raise tokenizer.sample_bytes if there is more text)"
        )

    @abc.abstractmethod
    def build(self, texts: Iterable[str], counts: Counter[str]) -> Tokenizer:
        """The tokenizer; equal arguments give an equal one. BadInput if it cannot be made."""
