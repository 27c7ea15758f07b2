"""Tasks under models whose answers are known: files made up, tokens that are runs of bytes, nats that are given."""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from evals.metric import Metric
from evals.scoring.item import Item, ItemScore
from evals.tasks.data import DataSource
from evals.tasks.task import Record, Task
from evals.zero_shot import Reader, Work, plan, records

START, UNKNOWN = 0, 1


@dataclass
class RunsOfBytes:
    """Cuts UTF-8 into runs of at most `longest` bytes, of random lengths; with 1, a token is a byte."""

    longest: int = 1
    seed: int = 0
    number_of: dict[bytes, int] = field(default_factory=lambda: {b"": START})

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array(self._encode(text.encode()), dtype=np.int64) for text in texts]

    def _encode(self, content: bytes) -> list[int]:
        random = np.random.default_rng(self.seed)
        found = []
        while content:
            size = int(random.integers(1, self.longest + 1))
            found.append(self.number_of.setdefault(content[:size], len(self.number_of)))
            content = content[size:]
        return found

    def size_of(self) -> dict[int, int]:
        """The bytes of each token."""
        return {number: len(run) for run, number in self.number_of.items()}


@dataclass
class Words:
    """A token is a word of at most so many letters with the blank before it, if there is one; a longer word is cut, and
    what lies between words is cut into single characters. Of `known` words alone, if given: others are `UNKNOWN`."""

    letters: int = 9
    known: frozenset[str] | None = None
    number_of: dict[str, int] = field(default_factory=dict)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([self.number(piece) for piece in self._pieces(text)], dtype=np.int64) for text in texts]

    def _pieces(self, text: str) -> list[str]:
        return re.findall(rf" ?[^\s]{{1,{self.letters}}}|\s", text)

    def number(self, piece: str) -> int:
        """0 and 1 are `START` and `UNKNOWN`."""
        if self.known is not None and piece.strip() and piece.strip() not in self.known:
            return UNKNOWN
        return self.number_of.setdefault(piece, len(self.number_of) + 2)


@dataclass(frozen=True)
class Outcome:
    """What a task said."""

    work: Work
    records: list[Record]
    values: dict[str, Metric]


def evaluate(
    task: Task,
    source: DataSource,
    tokenizer: Any,
    nats: Callable[[Item], Sequence[float]],
    greedy: Callable[[Item], Sequence[bool]] | None = None,
    *,
    greedy_barred: bool | None = None,
    max_length: int | None = None,
    stride: int | None = None,
    unknown: int | None = None,
    limit: int | None = None,
) -> Outcome:
    """A task under a model that says `nats` of each token of a continuation, and that the first token is the likeliest
    of those not barred if `greedy_barred` (None: if it is the likeliest of all)."""
    reader = Reader(tokenizer, START, max_length, stride, unknown=unknown)
    work = plan(task, task.load(source), reader, rows=3, limit=limit)

    def score_item(item: Item) -> ItemScore:
        own = np.array(nats(item), dtype=np.float64)
        right = np.array([False] * len(own) if greedy is None else greedy(item))
        return ItemScore(own, right, bool(right[0]) if greedy_barred is None else greedy_barred)

    def score(numbers: Sequence[int]) -> Iterator[list[tuple[int, ItemScore]]]:
        for number in numbers:
            places = [place for group in work.batches[number] for place in work.places[group]]
            yield [(place, score_item(work.items[place])) for place in places]

    found = sorted(records(task, work, score), key=lambda record: record["example"])
    return Outcome(work, found, {value.name: value for value in task.values(found)})


def one_nat_each(item: Item) -> list[float]:
    """One nat for each token."""
    return [1.0] * len(item.continuation)


def folder_with(place: Path, folder: str, **files: str) -> DataSource:
    """A directory of data with a folder of these files; two underscores in a name stand for a dot."""
    (place / folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (place / folder / name.replace("__", ".")).write_bytes(content.encode())
    return DataSource(place)


def fake_hub(monkeypatch: pytest.MonkeyPatch, rows: Callable[..., Any], **more: Any) -> None:
    """Puts a `datasets` library in place whose `load_dataset` is `rows`."""
    library = ModuleType("datasets")
    library.load_dataset = rows  # type: ignore[attr-defined]
    for name, value in more.items():
        setattr(library, name, value)
    monkeypatch.setitem(sys.modules, "datasets", library)
