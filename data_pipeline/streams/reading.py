"""How a model reads data, and the streams of tokens that serve it."""

from collections.abc import Iterable
from typing import Literal

from data_pipeline.config import BadInput
from data_pipeline.streams.lanes import LaneStream
from data_pipeline.streams.packing import Packing
from data_pipeline.streams.samples import SampleStream
from data_pipeline.streams.spans import Documents
from data_pipeline.streams.stream import Draws, Stream

Reads = Literal["lanes", "samples", "vectors", "pairs"]
"""Continued rows of tokens (for recurrent models), independent rows of tokens, independent feature vectors, or pairs of
token sequences."""


def token_stream(
    documents: Documents,
    *,
    kind: str,
    reads: Reads,
    length: int | None,
    draws: Draws,
    shuffle: bool,
    separate_documents: bool,
    packing: Packing = "cut",
) -> Stream:
    """A stream of tokens; BadInput if the model reads something else, gives no length, or wants more than there is."""
    if reads not in ("lanes", "samples"):
        raise cannot_be_read(kind, reads, "lanes", "samples")
    if length is None or length < 1:
        raise no_length(kind, length)
    if reads == "samples":
        return SampleStream(
            documents,
            length=length,
            draws=draws,
            shuffle=shuffle,
            separate_documents=separate_documents,
            packing=packing,
        )
    check_lanes(packing)
    return LaneStream(documents, length=length, draws=draws, shuffle=shuffle, separate_documents=separate_documents)


def check_lanes(packing: Packing) -> None:
    """BadInput for packed documents: a lane goes on from row to row."""
    if packing != "cut":
        raise BadInput(
            f"data.packing {packing}: a lane is one stretch of text, and goes on where its last row ended; "
            "use data.packing=cut, or a model that reads samples"
        )


def no_length(kind: str, length: int | None) -> BadInput:
    """The error for a model that does not say how long its segments are."""
    return BadInput(f"length {length}: data.kind {kind} is read in segments of tokens; give a length of 1 or more")


def cannot_be_read(kind: str, reads: Reads, *possible: Reads) -> BadInput:
    """The error for a model that reads what this data does not give."""
    return BadInput(
        f"data.kind {kind} cannot be read as {reads}, only as {' or '.join(possible)}; "
        f"choose a model that reads {' or '.join(possible)}, or other data"
    )


def check_split(kind: str, split: str, available: Iterable[str]) -> None:
    """BadInput naming the splits that there are, unless `split` is one of them."""
    names = list(available)
    if split not in names:
        raise BadInput(f"split {split!r}: data.kind {kind} has the splits {', '.join(names)}")
