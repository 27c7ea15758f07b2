"""From text to items: where a context ends in tokens, how long text is cut, and what does not fit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from data_pipeline.config import BadInput
from evals.scoring.item import Item, Segments


class TextTokenizer(Protocol):
    """Text to ids; `data_pipeline.tokenizers` and those of the `tokenizers` library have it."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]: ...


class CannotBeAsked(BadInput):
    """A request that this tokenizer or model cannot answer, whatever its weights."""


@dataclass(frozen=True, slots=True)
class Request:
    """How likely is this continuation after this context? An empty context stands for the start of a document."""

    context: str
    continuation: str


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """A request in tokens."""

    item: Item
    dropped: int
    """Tokens of the context that did not fit, from its beginning."""
    spanned: bool = False
    """The context alone has other tokens than it has with the continuation: one of them spans the boundary."""


def encode_requests(
    requests: Sequence[Request],
    tokenizer: TextTokenizer,
    *,
    start: int,
    max_length: int | None,
    barred: frozenset[int] = frozenset(),
    owners: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    prefix: Sequence[int] = (),
) -> list[Encoded]:
    """Each request as an item, encoded as one text: spaces at the end of a context belong to the continuation.

    The boundary is where the context alone would end in tokens, as in EleutherAI's lm-evaluation-harness, whose numbers
    these are to be compared with. `owners`: a context that several continuations of one owner share is cut by the
    longest of them, so that it stays one; None, as there: each by its own. `prefix` are the tokens that the model's
    tokenizer puts before every text: before every context here, which loses them first. CannotBeAsked, with the
    request's name where `names` gives them, where a continuation has no token, or more than `max_length`.
    """
    moved = [_without_trailing_space(request) for request in requests]
    contexts = list(dict.fromkeys(request.context for request in moved if request.context))
    tokens_of = dict(zip(contexts, tokenizer.encode_batch(contexts), strict=True))
    wholes = tokenizer.encode_batch([request.context + request.continuation for request in moved])
    pairs: list[tuple[np.ndarray, np.ndarray]] = []
    boundaries: list[bool] = []
    called = [""] * len(moved) if names is None else [f"{name}: " for name in names]
    for request, whole, name in zip(moved, wholes, called, strict=True):
        before = tokens_of[request.context].astype(np.int64) if request.context else np.empty(0, dtype=np.int64)
        context = np.concatenate([np.array(prefix, dtype=np.int64), before]) if len(before) else np.array([start])
        continuation = whole.astype(np.int64)[len(before) :]
        if not request.context and len(continuation) and continuation[0] == start:
            continuation = continuation[1:]
        if not len(continuation):
            raise CannotBeAsked(
                f"{name}the continuation {request.continuation!r} has no token after {request.context[-40:]!r}"
            )
        pairs.append((context, continuation))
        boundaries.append(not np.array_equal(whole[: len(before)], before))
    together = range(len(pairs)) if owners is None else owners
    longest: dict[tuple[int, bytes], int] = {}
    for owner, (context, continuation) in zip(together, pairs, strict=True):
        key = (owner, context.tobytes())
        longest[key] = max(longest.get(key, 0), len(continuation))
    found = []
    for owner, (context, continuation), spanned, name in zip(together, pairs, boundaries, called, strict=True):
        one = fit(context, continuation, max_length, barred, longest=longest[owner, context.tobytes()], name=name)
        found.append(replace(one, spanned=spanned))
    return found


def fit(
    context: np.ndarray,
    continuation: np.ndarray,
    max_length: int | None,
    barred: frozenset[int] = frozenset(),
    *,
    longest: int = 0,
    name: str = "",
) -> Encoded:
    """The item with as much of the context, from its end, as the model can read with the continuation, or with one of
    `longest` tokens; `name` begins the message of CannotBeAsked."""
    longest = max(len(continuation), longest)
    room = None if max_length is None else max_length + 1 - longest
    if room is None or len(context) <= room:
        return Encoded(Item(context, continuation, barred), 0)
    if room < 1:
        raise CannotBeAsked(
            f"{name}a continuation of {longest} tokens does not fit: the model reads {max_length} at a time; "
            "shorten it, or score it as running text"
        )
    return Encoded(Item(context[-room:], continuation, barred), len(context) - room)


def _without_trailing_space(request: Request) -> Request:
    bare = request.context.rstrip()
    return Request(bare, request.context[len(bare) :] + request.continuation) if bare else request


STRETCH_OF_WARM_UPS, SHORTEST_STRETCH = 4, 4096
"""A model with memory scores so many times its warm-up at least, and so many tokens."""


def windows(
    tokens: np.ndarray,
    *,
    start: int,
    max_length: int | None,
    stride: int | None = None,
    segments: Segments | None = None,
) -> list[Item]:
    """Running text as items that together score every token once.

    A model of windows scores `stride` tokens at a time (None: `max_length`), each window as far back as fits: with a
    stride of `max_length`, all but the last window begin with a token that sees one token. A model with memory reads in
    stretches, each after so much of what is before it that the scores are those of one stream; without `segments` the
    text is one.
    """
    if not len(tokens):
        raise BadInput("the text has no token, so there is nothing to score")
    tokens = tokens.astype(np.int64)
    if max_length is None:
        return _stretches(tokens, start, segments)
    step = max_length if stride is None else stride
    if not 1 <= step <= max_length:
        raise BadInput(f"stride {step}: must be from 1 to {max_length}, what the model reads at a time")
    read = np.concatenate([[start], tokens])
    ends = [min(max_length, len(tokens))]
    while ends[-1] < len(tokens):
        ends.append(min(ends[-1] + step, len(tokens)))
    found, done = [], 0
    for end in ends:
        begin = max(0, end - max_length)
        found.append(Item(read[begin : done + 1], read[done + 1 : end + 1], running=True))
        done = end
    return found


def _stretches(tokens: np.ndarray, start: int, segments: Segments | None) -> list[Item]:
    """Each begins where a segment of one stream would."""
    read = np.concatenate([[start], tokens])
    if segments is None:
        return [Item(read[:1], tokens, running=True)]
    least = max(STRETCH_OF_WARM_UPS * segments.warm_up, SHORTEST_STRETCH)
    size = -(-least // segments.length) * segments.length
    return [
        Item(read[max(0, first - segments.warm_up) : first + 1], tokens[first : first + size], running=True)
        for first in range(0, len(tokens), size)
    ]
