"""One task under one model: requests in tokens, batches in a fixed order, a record for each example.

The batches are a function of the task, the tokenizer, the model's length and `rows` alone, and a batch is computed by
one process, alone. So the records do not depend on how many workers there are, nor on where a run was interrupted.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from data_pipeline.config import BadInput
from evals.scoring.encoding import Encoded, TextTokenizer, encode_requests, windows
from evals.scoring.item import Group, Item, ItemScore, Segments, batches_of, group_items
from evals.tasks.data import TaskData
from evals.tasks.task import Answer, Example, Record, Task

PART_TOKENS = 1000
UNKNOWN = "<unk>"
"""In the texts of Penn Treebank and WikiText."""


class NotNumbers(BadInput):
    """A model said nan or infinity, as one does that has diverged."""


@dataclass(frozen=True)
class Reader:
    """How text becomes a model's tokens."""

    tokenizer: TextTokenizer
    start: int
    """The token that stands for the start of a document."""
    max_length: int | None
    stride: int | None = None
    """Tokens scored at a time in running text; None: as many as the model reads."""
    segments: Segments | None = None
    """Of a model with memory: how it reads running text."""
    unknown: int | None = None
    """The token of what the vocabulary cannot spell."""
    lossless: bool = True
    """Whether tokens say the whole text, blanks and ends of lines too."""
    prefix: tuple[int, ...] = ()
    """Tokens that its tokenizer puts before every text, and so before every context."""


@dataclass(frozen=True)
class Work:
    """A task in tokens."""

    num_examples: int
    num_spanned: int
    """Requests whose boundary lies within a token: it is where the context alone would end."""
    num_barred: int
    """Tokens that the task's barred words are."""
    num_unknown: int
    """Scored tokens that stand for what the tokenizer cannot spell, other than where the text has `<unk>` itself."""
    examples: Sequence[Example]
    """Of running text, its parts: each is kept as soon as it is scored."""
    items: Sequence[Item]
    owner: Sequence[int]
    """The example of each item."""
    dropped: Sequence[int]
    """Of each item, tokens of its context that did not fit."""
    groups: Sequence[Group]
    places: Sequence[Sequence[int]]
    """The items of each group."""
    batches: Sequence[Sequence[int]]
    """The groups of each batch."""

    @property
    def num_truncated(self) -> int:
        """Examples of which something did not fit."""
        return len({owner for owner, dropped in zip(self.owner, self.dropped, strict=True) if dropped})


def plan(task: Task, data: TaskData, reader: Reader, *, rows: int, limit: int | None = None) -> Work:
    """The first `limit` examples in batches of `rows` contexts."""
    asked = task.examples(data)[:limit]
    barred = _barred_tokens(task, reader)
    with_requests = [place for place, example in enumerate(asked) if example.requests]
    owners = [place for place in with_requests for _ in asked[place].requests]
    requests = [request for place in with_requests for request in asked[place].requests]
    found = encode_requests(
        requests,
        reader.tokenizer,
        start=reader.start,
        max_length=reader.max_length,
        barred=barred,
        owners=owners,
        names=[f"example {asked[place].name}" for place in owners],
        prefix=reader.prefix,
    )
    by_owner: dict[int, list[Encoded]] = {}
    for place, one in zip(owners, found, strict=True):
        by_owner.setdefault(place, []).append(one)
    examples: list[Example] = []
    encoded: list[tuple[int, Encoded]] = []
    for place, example in enumerate(asked):
        parts = [(example, by_owner[place])] if example.text is None else _parts(example, reader)
        for part, own in parts:
            encoded += [(len(examples), one) for one in own]
            examples.append(part)
    items = [one.item for _, one in encoded]
    owner, dropped = [place for place, _ in encoded], [one.dropped for _, one in encoded]
    groups, places = group_items(items, owner)
    return Work(
        num_examples=len(asked),
        num_spanned=sum(one.spanned for one in found),
        num_barred=len(barred),
        num_unknown=_num_unknown(asked, items, reader),
        examples=examples,
        items=items,
        owner=owner,
        dropped=dropped,
        groups=groups,
        places=places,
        batches=batches_of(groups, rows),
    )


def _num_unknown(examples: Sequence[Example], items: Sequence[Item], reader: Reader) -> int:
    if reader.unknown is None:
        return 0
    found = sum(int((item.continuation == reader.unknown).sum()) for item in items)
    (spelt,) = reader.tokenizer.encode_batch([UNKNOWN])
    if spelt.tolist() != [reader.unknown]:
        return found
    scored = (request.continuation for example in examples for request in example.requests)
    texts = (example.text for example in examples if example.text is not None)
    return max(0, found - sum(text.count(UNKNOWN) for text in (*scored, *texts)))


def _parts(example: Example, reader: Reader) -> list[tuple[Example, list[Encoded]]]:
    """Running text in parts of whole windows, of `PART_TOKENS` or a few more; what is counted stands in the first."""
    assert example.text is not None
    (tokens,) = reader.tokenizer.encode_batch([example.text])
    cut = windows(
        tokens, start=reader.start, max_length=reader.max_length, stride=reader.stride, segments=reader.segments
    )
    parts: list[list[Encoded]] = []
    room = 0
    for item in cut:
        if room <= 0:
            parts.append([])
            room = PART_TOKENS
        parts[-1].append(Encoded(item, 0))
        room -= len(item.continuation)
    if len(parts) == 1:
        return [(example, parts[0])]
    facts = dict(example.facts or {})
    counted = [facts, *(dict.fromkeys(facts, 0) for _ in parts[1:])]
    return [
        (replace(example, name=f"{example.name}/{number:05d}", facts=counted[number]), own)
        for number, own in enumerate(parts)
    ]


def _barred_tokens(task: Task, reader: Reader) -> frozenset[int]:
    """Words that are one token with the space before them, in the cases that begin a sentence too."""
    words = [form for word in sorted(task.barred_words()) for form in (word, word.capitalize(), word.upper())]
    encoded = reader.tokenizer.encode_batch([" " + word for word in words]) if words else []
    return frozenset(int(ids[0]) for ids in encoded if len(ids) == 1)


def records(
    task: Task,
    work: Work,
    score: Callable[[Sequence[int]], Iterator[list[tuple[int, ItemScore]]]],
    done: frozenset[str] = frozenset(),
) -> Iterator[Record]:
    """A record for each example that is not `done`, as soon as the batch with its last item is scored.

    `score` gives the scores of batches in the order in which it is given their numbers.
    """
    wanted = {place for place, example in enumerate(work.examples) if example.name not in done}
    waiting: dict[int, int] = dict.fromkeys(wanted, 0)
    for owner in work.owner:
        if owner in wanted:
            waiting[owner] += 1
    items_of: dict[int, list[int]] = {place: [] for place in wanted}
    for item, owner in enumerate(work.owner):
        if owner in wanted:
            items_of[owner].append(item)
    needed = [number for number, batch in enumerate(work.batches) if _owners(work, batch) & wanted]
    found: dict[int, ItemScore] = {}
    for scores in score(needed):
        finished = []
        for item, one in scores:
            owner = work.owner[item]
            if not np.isfinite(one.nats).all():
                raise NotNumbers(
                    f"{task.name}: example {work.examples[owner].name} has log-likelihoods that are nan or infinite; "
                    "a model whose weights are finite gives none: take an earlier checkpoint"
                )
            if owner in wanted:
                found[item] = one
                waiting[owner] -= 1
                if waiting[owner] == 0:
                    finished.append(owner)
        for owner in sorted(finished):
            example = work.examples[owner]
            own = [(found.pop(item), work.dropped[item]) for item in items_of[owner]]
            yield {"example": example.name} | task.judge(example, _answers(example, own))


def _owners(work: Work, batch: Sequence[int]) -> set[int]:
    return {work.owner[item] for place in batch for item in work.places[place]}


def _answers(example: Example, scores: Sequence[tuple[ItemScore, int]]) -> list[Answer]:
    """One for each request; of a text one, its windows joined."""
    if example.text is None:
        return [
            Answer(tuple(one.nats.tolist()), tuple(one.greedy.tolist()), one.greedy_barred, dropped)
            for one, dropped in scores
        ]
    nats, greedy = (np.concatenate([getattr(one, name) for one, _ in scores]).tolist() for name in ("nats", "greedy"))
    return [Answer(tuple(nats), tuple(greedy))]


def plain_protocol(task: Task, data: TaskData, work: Work, reader: Reader, model: dict[str, Any]) -> dict[str, Any]:
    """What holds of all of a task's numbers; `model` says who answers."""
    return {
        "task": task.name,
        "version": task.version,
        **task.protocol(),
        **data.notes,
        "files": dict(data.files),
        "examples": work.num_examples,
        "truncated": work.num_truncated,
        "boundaries_within_tokens": work.num_spanned,
        "barred_tokens": work.num_barred,
        "unknown_tokens": work.num_unknown,
        "tokenizer_lossless": reader.lossless,
        "stride": reader.stride or reader.max_length,
        "context_prefix": list(reader.prefix),
        "starts_from": f"token {reader.start}, where nothing is before: running text, and requests without a context",
        "model": model,
        "computed_by": f"torch {torch.__version__}",
    }
