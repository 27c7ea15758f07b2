"""A split of a run's data as text to score: its documents, and what stands before the first token of each."""

from dataclasses import dataclass

import numpy as np

from data_pipeline.config import BadInput
from data_pipeline.data import DataConfig
from data_pipeline.markov import MarkovConfig, MarkovDocuments
from data_pipeline.shards import TokenShards
from data_pipeline.text import TextConfig
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
    if isinstance(data, TextConfig):
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
