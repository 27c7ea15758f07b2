"""What preparing tells while it runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Stage = Literal["list", "clean", "scan", "sample", "tokenizer", "encode", "finished"]
Counted = Literal["documents", "items"]
"""Of text; or images, recordings and pieces of music."""
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Progress:
    """One step further in a stage."""

    stage: Stage
    done: int
    total: int
    """Pieces of the corpus (for "clean": once for each pass; for "tokenizer": whether it is there)."""
    count: int = 0
    num_bytes: int = 0
    """Read in this stage so far, of text or of media files."""
    size_done: int = 0
    size: int = 0
    """What the pieces done, and all of them, have in the corpus's files."""
    counted: Counted = "documents"
    """What `count` is of."""


Listener = Callable[[Progress], None]


def followed(
    results: Iterator[Result],
    stage: Stage,
    sizes: Sequence[int],
    numbers: Callable[[Result], tuple[int, int]],
    report: Listener,
    counted: Counted = "documents",
) -> Iterator[Result]:
    """The result for each piece in order; after each, how far the stage is. `numbers` are a result's count and bytes,
    `sizes` those of the pieces."""
    count = num_bytes = done = 0
    for number, result in enumerate(results):
        more, bytes_more = numbers(result)
        count, num_bytes, done = count + more, num_bytes + bytes_more, done + sizes[number]
        yield result
        report(Progress(stage, number + 1, len(sizes), count, num_bytes, done, sum(sizes), counted))
