"""Exact scores of a text: every token of every document once, whatever the batch and however many workers share it.

Each document is a lane of its own. It starts from the end-of-document token with empty memory, so with t its n tokens
the model is given (end, t_1 .. t_{n-1}) and scored on (t_1 .. t_n): nothing is dropped, nothing is seen of other
documents. A model that carries memory reads the lane segment after segment; one that reads independent samples is given
each window of `segment_length` tokens as a lane of its own, whose first token sees nothing but the one before it.

Shape legend: R rows, L positions of a segment.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch

from data_pipeline.batch import IGNORED, TokenBatch
from data_pipeline.config import BadInput
from pretrain import units
from pretrain.contract import Carry, Loss
from pretrain.group import Group

ALONE = Group()

Score = Callable[[TokenBatch, Carry | None], Loss]
"""The objective of a batch, and the carry after it."""


class Documents(Protocol):
    """Tokenized documents, such as `data_pipeline.shards.TokenShards`."""

    @property
    def lengths(self) -> np.ndarray:
        """[D] int64: tokens of each document, at least one."""

    def tokens_at(self, documents: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int64 of the arguments' common shape: token `offsets[i]` of document `documents[i]`."""

    def document_bytes(self, number: int) -> int:
        """Of the document's original text, in UTF-8."""


@dataclass(frozen=True, slots=True)
class TextScore:
    """What a text costs under a model; equal on every worker."""

    nats: float
    tokens: int
    num_bytes: int
    """Of the original text, before tokenizing."""
    documents: int
    cut: bool = False
    """Whether `max_tokens` cut a document: its bytes are then an estimate, in proportion to its tokens."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Further sums over the tokens, as the score gave them."""

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.tokens

    @property
    def perplexity(self) -> float:
        """Per token."""
        return units.perplexity(self.nats, self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """NaN where the tokens were made of no text."""
        if self.num_bytes == 0:
            return math.nan
        return units.bits_per_byte(self.nats, self.num_bytes)


@dataclass(frozen=True, slots=True)
class Lane:
    """Tokens start .. start + length of one document, read with empty memory at their start."""

    document: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Selection:
    """The documents to score, and how many tokens of each."""

    lengths: tuple[int, ...]
    num_bytes: int
    cut: bool

    def lanes(self, window: int | None) -> list[Lane]:
        """One a document, or one a `window` of it."""
        return [
            Lane(document, start, min(window or length, length - start))
            for document, length in enumerate(self.lengths)
            for start in range(0, length, window or length)
        ]


def select(documents: Documents, max_tokens: int | None) -> Selection:
    """The whole documents from the beginning that fit in `max_tokens`; the first one is cut if it alone does not."""
    lengths = documents.lengths
    fitting = len(lengths) if max_tokens is None else int((np.cumsum(lengths) <= max_tokens).sum())
    if fitting or not len(lengths) or not max_tokens:
        num_bytes = sum(documents.document_bytes(number) for number in range(fitting))
        return Selection(tuple(lengths[:fitting].tolist()), num_bytes, cut=False)
    num_bytes = round(max_tokens / int(lengths[0]) * documents.document_bytes(0))
    return Selection((max_tokens,), num_bytes, cut=True)


def score_documents(
    score: Score,
    documents: Documents,
    *,
    start_token: int,
    reads: Literal["lanes", "samples"],
    segment_length: int,
    rows: int,
    new_carry: Callable[[int], Carry | None] = lambda rows: None,
    max_tokens: int | None = None,
    group: Group = ALONE,
) -> TextScore:
    """The score of `documents`, computed in batches of at most `rows` lanes and segments of `segment_length`.

    `new_carry(rows)` is the empty memory; its length decides how far back a segment sees. All workers of `group` call
    this together and share the work; every worker calls `score` equally often, as engines that shard weights need.
    Raises BadInput if there is nothing to score or a size is not positive.
    """
    if segment_length < 1 or rows < 1:
        raise BadInput(f"segment_length is {segment_length} and rows is {rows}; both must be at least 1")
    selection = select(documents, max_tokens)
    if not selection.lengths:
        raise BadInput("the split has no document, so there is nothing to score")
    lanes = selection.lanes(segment_length if reads == "samples" else None)
    shares = share_lanes(lanes, rows, segment_length, group.world_size)
    sums: dict[str, float] = {}
    calls = 0
    for batch in shares[group.rank]:
        carry = new_carry(len(batch)) if reads == "lanes" else None
        for offset in range(0, batch[0].length, segment_length):
            unfinished = sum(lane.length > offset for lane in batch)
            carry = _first_rows(carry, unfinished)
            tokens = segment(documents, batch[:unfinished], offset, segment_length, start_token)
            loss = score(tokens, carry)
            carry = loss.carry
            calls += 1
            _add(sums, loss)
    for _ in range(calls, max(num_calls(share, segment_length) for share in shares)):
        _add(sums, score(_nothing(start_token), new_carry(1)))
    return _text_score(sums, selection, group)


def share_lanes(lanes: Sequence[Lane], rows: int, segment_length: int, num_workers: int) -> list[list[list[Lane]]]:
    """Batches of lanes of similar length, longest first, by worker: each batch to the worker with the fewest calls."""
    ordered = sorted(lanes, key=lambda lane: (-lane.length, lane.document, lane.start))
    shares: list[list[list[Lane]]] = [[] for _ in range(num_workers)]
    calls = [0] * num_workers
    for first in range(0, len(ordered), rows):
        batch = ordered[first : first + rows]
        worker = calls.index(min(calls))
        shares[worker].append(batch)
        calls[worker] += math.ceil(batch[0].length / segment_length)
    return shares


def num_calls(share: Sequence[Sequence[Lane]], segment_length: int) -> int:
    """How often a worker scores a batch."""
    return sum(math.ceil(batch[0].length / segment_length) for batch in share)


def segment(documents: Documents, lanes: Sequence[Lane], offset: int, length: int, start_token: int) -> TokenBatch:
    """Positions offset .. offset + length of each lane, no longer than the longest; `IGNORED` after a lane's end."""
    length = min(length, lanes[0].length - offset)
    document_R1, start_R1, length_R1 = (column[:, None] for column in np.array([astuple(lane) for lane in lanes]).T)
    position_L = np.arange(offset, offset + length)
    within_RL = position_L < length_R1
    place_RL = start_R1 + np.minimum(position_L, length_R1 - 1)
    document_RL = np.broadcast_to(document_R1, place_RL.shape)
    labels_RL = np.where(within_RL, documents.tokens_at(document_RL, place_RL), IGNORED)
    before_RL = documents.tokens_at(document_RL, np.maximum(place_RL - 1, 0))
    return TokenBatch(
        inputs=torch.from_numpy(np.where(place_RL == 0, start_token, before_RL)),
        labels=torch.from_numpy(labels_RL),
        age=torch.from_numpy(np.broadcast_to(position_L, place_RL.shape).copy()),
        sample_ids=torch.from_numpy(document_R1[:, 0].copy()),
    )


def _first_rows(carry: Carry | None, rows: int) -> Carry | None:
    """The carry of the lanes that go on: they stand first, since lanes are ordered longest first."""
    return None if carry is None else {name: value[:rows] for name, value in carry.items()}


def _nothing(start_token: int) -> TokenBatch:
    """One token that is not scored, for a worker whose share is done while others still score."""
    one = torch.full((1, 1), start_token)
    return TokenBatch(one, torch.full((1, 1), IGNORED), torch.zeros(1, 1, dtype=torch.int64), torch.full((1,), -1))


def _add(sums: dict[str, float], loss: Loss) -> None:
    for name, value in {"nats": loss.total, "count": torch.tensor(loss.count), **loss.metrics}.items():
        sums[name] = sums.get(name, 0.0) + float(value)


def _text_score(sums: dict[str, float], selection: Selection, group: Group) -> TextScore:
    names = sorted(sums)
    summed = group.all_reduce_sum(torch.tensor([sums[name] for name in names], dtype=torch.float64)).tolist()
    found = dict(zip(names, summed, strict=True))
    tokens = sum(selection.lengths)
    assert found.pop("count") == tokens, "the model counts other tokens than those it was given to score"
    return TextScore(
        nats=found.pop("nats"),
        tokens=tokens,
        num_bytes=selection.num_bytes,
        documents=len(selection.lengths),
        cut=selection.cut,
        metrics=found,
    )
