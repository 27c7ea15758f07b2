"""A split of a run's data as text to score: its documents, and what stands before the first token of each."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.markov import MarkovConfig, MarkovDocuments
from data_pipeline.mixture import MixtureConfig
from data_pipeline.prepared_text import PreparedText
from data_pipeline.shards import TokenShards
from evals.language_model import Documents


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A split, ready to score."""

    documents: Documents
    start_token: int
    starts_from: str
    """What the start token is, in words."""
    joined: bool
    """The split's documents are one lane, since training did not separate them either."""
    fingerprint: str
    tokenizer: str | None
    """Its hash."""


def open_split(data: DataConfig, split: str) -> HeldOut:
    """BadInput for data that is no text, or has no such split."""
    if isinstance(data, MixtureConfig):
        return _open_mixture(data, split)
    if isinstance(data, PreparedText):
        shards, tokenizer = data.shards(split), data.load_tokenizer()
        texts: Documents = shards if tokenizer.lossless else WithoutBytes(shards)
        return HeldOut(
            documents=texts if data.separate_documents else Joined(texts),
            start_token=tokenizer.end_of_document,
            starts_from="the end-of-document token",
            joined=not data.separate_documents,
            fingerprint=shards.fingerprint,
            tokenizer=tokenizer.hash,
        )
    if isinstance(data, MarkovConfig):
        chains = WithoutBytes(data.documents(split))
        return HeldOut(
            documents=chains if data.separate_documents else Joined(chains),
            start_token=0,
            starts_from="token 0",
            joined=not data.separate_documents,
            fingerprint=data.documents(split).fingerprint,
            tokenizer=None,
        )
    raise BadInput(f"data.kind {data.kind} is no text, so it has no score per token")


def _open_mixture(data: MixtureConfig, split: str) -> HeldOut:
    """The documents of all sources that have the split, one source after the other, each document counted alike."""
    data.check_vocabularies()
    parts = [open_split(source, split) for source in data.with_split(split).values()]
    return HeldOut(
        documents=Chained([part.documents for part in parts]),
        start_token=parts[0].start_token,
        starts_from=parts[0].starts_from,
        joined=parts[0].joined,
        fingerprint=hashlib.sha256(" ".join(part.fingerprint for part in parts).encode()).hexdigest(),
        tokenizer=parts[0].tokenizer,
    )


class Chained:
    """The documents of several sources, in their order."""

    def __init__(self, parts: Sequence[Documents]) -> None:
        self._parts = parts
        self._ends_P = np.cumsum([len(part.lengths) for part in parts])
        self.lengths = np.concatenate([part.lengths for part in parts])

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        documents, offsets = np.broadcast_arrays(documents, offsets)
        place = np.searchsorted(self._ends_P, documents, side="right")
        tokens = np.empty(documents.shape, dtype=np.int64)
        for number in np.unique(place):
            here = place == number
            tokens[here] = self._parts[number].tokens_at(documents[here] - self._first(number), offsets[here])
        return tokens

    def document_bytes(self, number: int) -> int:
        place = int(np.searchsorted(self._ends_P, number, side="right"))
        return self._parts[place].document_bytes(number - self._first(place))

    def _first(self, part: int) -> int:
        return int(self._ends_P[part]) - len(self._parts[part].lengths)


class WithoutBytes:
    """Tokens that no text was made of, or that do not say all of it: zero bytes each, so no bits per byte."""

    def __init__(self, documents: MarkovDocuments | TokenShards) -> None:
        self.lengths, self.tokens_at = documents.lengths, documents.tokens_at

    def document_bytes(self, number: int) -> int:
        return 0


class Joined:
    """Documents end to end, as a single one."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._ends_D = np.cumsum(documents.lengths)
        self.lengths = self._ends_D[-1:]

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        inside = np.searchsorted(self._ends_D, offsets, side="right")
        return self._documents.tokens_at(inside, offsets - self._ends_D[inside] + self._documents.lengths[inside])

    def document_bytes(self, number: int) -> int:
        return sum(self._documents.document_bytes(inside) for inside in range(len(self._ends_D)))
