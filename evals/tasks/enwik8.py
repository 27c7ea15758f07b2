"""enwik8 and text8 (Mahoney 2006): the first 10^8 bytes of a dump of Wikipedia, and their text as a to z and blanks.

The last 5,000,000 bytes are the test split, the 5,000,000 before them the validation split. Bits per byte (per
character, in text8 the same) are nats / ln 2 / bytes of the split, so that they do not depend on the tokenizer.

enwik8 is UTF-8, and is decoded without loss: what is scored encodes to the very bytes. A character that a split's
border cuts belongs to the split in which it begins; one that the end of a file cuts is left out, of text and
denominator, and the record says how many bytes that is (3 at most). Bytes that are no UTF-8 are refused. text8 is fed
as it is. A file of the user's that is shorter than 10^8 bytes is scored whole, and the record says so.
"""

import codecs
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.tasks.data import DataSource, TaskData, place_of
from evals.tasks.running_text import BLOCK_TOKENS, text_record, total_nats
from evals.tasks.task import Answer, Example, Record, Task

FILE_BYTES = 100_000_000
SPLIT_BYTES = 5_000_000
Split = Literal["test", "validation"]


class ByteText(Task):
    """A split of one of the two."""

    version = 1

    def __init__(self, corpus: Literal["enwik8", "text8"], *, split: Split = "test") -> None:
        self.corpus, self.split = corpus, split
        self.name = corpus if split == "test" else f"{corpus}/{split}"
        self.title = corpus if split == "test" else f"{corpus}, {split}"

    def load(self, source: DataSource) -> TaskData:
        name, content, digest = source.read_bytes(self.name, (self.corpus,), hub=HUBS[self.corpus], folder=self.corpus)
        place = place_of(self.corpus, name)
        if len(content) > FILE_BYTES:
            raise BadInput(f"{place}: has {len(content):,} bytes, must have {FILE_BYTES:,} or be a part of that file")
        if self.corpus == "text8":
            _check_alphabet(place, content)
        begin, end = self._bounds(place, content)
        text, scored = _decoded(place, content, begin, end)
        if not scored:
            raise BadInput(f"{place}: has no whole character from byte {begin:,} to {end:,}")
        whole = "" if len(content) == FILE_BYTES else "; the file is not the whole corpus, so all of it is scored"
        notes = {
            "bytes": f"{begin:,} to {end:,} of {len(content):,}{whole}",
            "bytes_left_out": end - begin - scored,
        }
        return TaskData([(text, scored)], {name: digest}, notes)

    def _bounds(self, name: str, content: bytes) -> tuple[int, int]:
        if len(content) < FILE_BYTES:
            if self.split != "test":
                raise BadInput(
                    f"{name}: has {len(content):,} bytes; only the whole file, of {FILE_BYTES:,}, has a {self.split} "
                    f"split; {self.corpus} scores all of a shorter one"
                )
            return 0, len(content)
        last = FILE_BYTES if self.split == "test" else FILE_BYTES - SPLIT_BYTES
        return _character_begin(content, last - SPLIT_BYTES), _character_begin(content, last)

    def examples(self, data: TaskData) -> list[Example]:
        ((text, scored),) = data.rows
        return [Example("text", text=text, facts={"bytes": scored})]

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        (answer,) = answers
        return text_record(answer) | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        total, error = total_nats(records)
        unit = "byte" if self.corpus == "enwik8" else "character"
        count = sum(record["bytes"] for record in records)
        scale = math.log(2) * count
        error = None if error is None else error / scale
        protocol = {"denominator": f"{unit}s of the original text"}
        return [Metric(f"bits_per_{unit}", total / scale, f"bits/{unit}", "lower", count, error, protocol)]

    def protocol(self) -> dict[str, Any]:
        return {
            "text": "the bytes decoded as UTF-8, without loss" if self.corpus == "enwik8" else "as is",
            "split": self.split,
            "context": "the split is one text",
            "scored": "every token",
            "standard_error": f"over blocks of about {BLOCK_TOKENS} tokens",
        }


def _character_begin(content: bytes, place: int) -> int:
    """The first place from `place` on that is not within a character; a character has at most 4 bytes."""
    found = place
    while found < min(place + 3, len(content)) and content[found] & 0b1100_0000 == 0b1000_0000:
        found += 1
    return found


def _decoded(name: str, content: bytes, begin: int, end: int) -> tuple[str, int]:
    """The text, and how many bytes it has: those of a character that the end cuts are not in it."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        text = decoder.decode(content[begin:end])
    except UnicodeDecodeError as error:
        raise BadInput(f"{name}: byte {begin + error.start:,} is no UTF-8 ({error.reason}); is it damaged?") from error
    return text, end - begin - len(decoder.getstate()[0])


def _check_alphabet(name: str, content: bytes) -> None:
    found = re.search(rb"[^a-z ]", content)
    if found is not None:
        raise BadInput(f"{name}: byte {found.start():,} is {found[0]!r}; text8 has a to z and blanks alone")


def _published(text: str) -> str:
    """Raises ValueError for anything but all of the corpus."""
    size = len(text.encode())
    if size != FILE_BYTES:
        raise ValueError(f"what is there has {size:,} bytes, not {FILE_BYTES:,}")
    return text


def _enwik8() -> Iterator[str]:
    from datasets import load_dataset

    rows = load_dataset("LTCB/enwik8", "enwik8-raw", split="train", revision="refs/convert/parquet")
    yield _published("".join(row["text"] for row in rows))


def _text8() -> Iterator[str]:
    from datasets import load_dataset

    splits = load_dataset("afmck/text8")
    yield _published("".join(row["text"] for name in ("train", "validation", "test") for row in splits[name]))


HUBS = {"enwik8": _enwik8, "text8": _text8}

ENWIK8, TEXT8 = ByteText("enwik8"), ByteText("text8")
BYTE_TASKS = (ENWIK8, TEXT8, ByteText("enwik8", split="validation"), ByteText("text8", split="validation"))
