"""Synthetic tokens with a known entropy: a random first-order Markov chain. It needs no files.

Each token after a document's first is drawn from the row of the transition matrix P that the token before it selects;
the first from the stationary distribution pi = pi P, so that every position of every document is distributed as pi.
The best possible loss, which a model that sees at least the token before reaches in the limit, is the entropy rate

    H = sum_i pi_i sum_j -P_ij log P_ij   nats for a token within a document,
    H(pi) = sum_i -pi_i log pi_i          nats for its first.

Legend: V vocabulary, D documents, T tokens of a document.
"""

import hashlib
from typing import Literal

import numpy as np
from pydantic import Field

from data_pipeline.config import Config
from data_pipeline.mixing import keys, mix, uniform
from data_pipeline.streams.reading import Reads, check_split, token_stream
from data_pipeline.streams.spans import laid_out
from data_pipeline.streams.stream import Draws, Stream

DECIMALS = 9
"""Cumulated probabilities are rounded, so that the last bit of a machine's sums cannot change a token."""


class MarkovConfig(Config):
    """A chain and how many documents are drawn from it; the same fields give the same tokens everywhere."""

    kind: Literal["markov"]
    num_symbols: int = Field(default=64, ge=2, le=4096)
    chain_seed: int = 0
    """Of the transition matrix and the documents; the order in which a run reads them has the run's seed."""
    sharpness: int = Field(default=3, ge=0, le=8)
    """Transition weights are uniform numbers to the power 2**sharpness: more is more predictable."""
    document_length: int = Field(default=256, ge=1)
    num_documents: int = Field(default=4096, ge=1)
    """Of the split "train"."""
    num_held_out: int = Field(default=256, ge=1)
    """Documents of the split "valid"."""
    shuffle: bool = True
    separate_documents: bool = True

    def vocab_size(self) -> int:
        """Symbols of the chain."""
        return self.num_symbols

    def vocabulary(self) -> str:
        """What tells its tokens from those of a tokenizer."""
        return f"symbols 0..{self.num_symbols - 1}"

    def splits(self) -> tuple[str, ...]:
        """Which there are."""
        return ("train", "valid")

    def stream(
        self,
        *,
        reads: Reads,
        length: int | None,
        micro_batches: int,
        rows: int,
        seed: int,
        split: str = "train",
    ) -> Stream:
        """Lanes or samples of the split's documents; BadInput if they cannot be read so, or are too few."""
        return token_stream(
            self.documents(split),
            kind=self.kind,
            reads=reads,
            length=length,
            draws=Draws(micro_batches=micro_batches, rows=rows, seed=seed),
            shuffle=self.shuffle,
            separate_documents=self.separate_documents,
        )

    def documents(self, split: str) -> "MarkovDocuments":
        """The documents of "train" or "valid"."""
        counts = {"train": self.num_documents, "valid": self.num_held_out}
        check_split(self.kind, split, counts)
        chain = MarkovChain(self.num_symbols, seed=self.chain_seed, sharpness=self.sharpness)
        return MarkovDocuments(chain.documents(counts[split], self.document_length, split=split))

    def entropy_rate(self) -> float:
        """Nats per token of the documents, first tokens included: the floor of the loss."""
        chain = MarkovChain(self.num_symbols, seed=self.chain_seed, sharpness=self.sharpness)
        length = self.document_length
        return ((length - 1) * chain.entropy_rate() + chain.first_entropy()) / length

    def fingerprint(self) -> str:
        """SHA-256 over the fields that decide the tokens."""
        text = self.model_dump_json(exclude={"shuffle", "separate_documents"})
        return hashlib.sha256(text.encode()).hexdigest()


class MarkovChain:
    """P and pi."""

    def __init__(self, vocab_size: int, *, seed: int, sharpness: int) -> None:
        """A function of its arguments, the same on every machine."""
        self._seed = seed
        entries = np.arange(vocab_size * vocab_size, dtype=np.uint64).reshape(vocab_size, vocab_size)
        weights_VV = uniform(mix(entries, keys(1, seed, "transitions")[0]))
        for _ in range(sharpness):
            weights_VV = weights_VV * weights_VV
        self._cumulated_VV = _cumulated(weights_VV)
        self.transitions_VV = np.diff(self._cumulated_VV, axis=1, prepend=0.0)
        stationary_V = np.full(vocab_size, 1.0 / vocab_size)
        for _ in range(500):
            stationary_V = stationary_V @ self.transitions_VV
        self._cumulated_V = _cumulated(stationary_V[None])[0]
        self.stationary_V = np.diff(self._cumulated_V, prepend=0.0)

    def entropy_rate(self) -> float:
        """H in nats per token, given the token before."""
        return float(self.stationary_V @ _entropy(self.transitions_VV))

    def first_entropy(self) -> float:
        """H(pi) in nats: of a token of which nothing is known."""
        return float(_entropy(self.stationary_V[None])[0])

    def documents(self, count: int, length: int, *, split: str) -> np.ndarray:
        """[D, T] int64; each document is a function of its number, the chain and the split."""
        places = np.arange(count * length, dtype=np.uint64).reshape(count, length)
        chance_DT = uniform(mix(places, keys(1, self._seed, "documents", split)[0]))
        tokens_DT = np.empty((count, length), dtype=np.int64)
        tokens_DT[:, 0] = np.searchsorted(self._cumulated_V, chance_DT[:, 0], side="right")
        size = len(self._cumulated_V)
        rows_W = (self._cumulated_VV + np.arange(size)[:, None]).ravel()
        for t in range(1, length):
            before_D = tokens_DT[:, t - 1]
            found_D = np.searchsorted(rows_W, before_D + chance_DT[:, t], side="right") - before_D * size
            tokens_DT[:, t] = np.minimum(found_D, size - 1)
        return tokens_DT


class MarkovDocuments:
    """Documents of equal length, in memory."""

    def __init__(self, tokens_DT: np.ndarray) -> None:
        self.tokens_DT = tokens_DT
        self.lengths = np.full(tokens_DT.shape[0], tokens_DT.shape[1], dtype=np.int64)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all tokens."""
        shape = repr(self.tokens_DT.shape).encode()
        return hashlib.sha256(shape + self.tokens_DT.astype("<i8").tobytes()).hexdigest()

    def read(self, documents_K: np.ndarray, offsets_K: np.ndarray, lengths_K: np.ndarray) -> np.ndarray:
        flat: np.ndarray = self.tokens_DT.reshape(-1)
        return flat[laid_out(documents_K * self.tokens_DT.shape[1] + offsets_K, lengths_K)]

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        tokens: np.ndarray = self.tokens_DT[documents, offsets]
        return tokens


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Cumulated probabilities of each row of weights; the last is exactly 1."""
    sums = np.cumsum(weights, axis=1)
    shares: np.ndarray = np.round(sums / sums[:, -1:], DECIMALS)
    return shares


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """Of each row, in nats."""
    logs = np.log(np.where(probabilities > 0, probabilities, 1.0))
    nats: np.ndarray = -(probabilities * logs).sum(axis=1)
    return nats
