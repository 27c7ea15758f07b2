"""Running text: its nats, their standard error, and perplexity per original word.

The loss is summed over the text that a model reads, and divided by the number of words of the file as it was
published, before exponentiation: so neither tokenizer nor de-tokenizer changes the unit. There are two numbers of
words, with and without one end of line for each line, and a perplexity for each: WikiText-2's test file has 241,211
words on 4,358 lines, so that 18.34 by the one is 19.33 by the other.

A file has one text, whose tokens are not independent. For its standard error it is cut into blocks of about
`BLOCK_TOKENS` tokens, whose sums are taken to be.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from data_pipeline.config import BadInput
from evals.detokenizers import Detokenizer, round_trip
from evals.metric import Metric
from evals.tasks.data import DataSource, TaskData, place_of
from evals.tasks.task import Answer, Example, Record, Task, error_of_sum, perplexity_of

BLOCK_TOKENS = 1000

HubLines = Callable[[str], Iterable[str]]
"""The lines of a split, with their newlines, as they stand in the published file."""


def text_record(answer: Answer) -> Record:
    """Nats of a text, and of its blocks."""
    bounds = _block_bounds(len(answer.nats))
    blocks = [math.fsum(answer.nats[begin:end]) for begin, end in pairwise(bounds)]
    return {"nats": answer.total, "tokens": len(answer.nats), "block_nats": blocks}


def total_nats(records: Sequence[Record]) -> tuple[float, float | None]:
    """The sum over all texts, and its standard error over their blocks."""
    nats = [block for record in records for block in record["block_nats"]]
    sizes = [end - begin for record in records for begin, end in pairwise(_block_bounds(record["tokens"]))]
    return math.fsum(record["nats"] for record in records), error_of_sum(nats, sizes)


def _block_bounds(tokens: int) -> list[int]:
    """Where blocks of nearly equal size begin, and the end."""
    blocks = max(1, round(tokens / BLOCK_TOKENS))
    return [tokens * place // blocks for place in range(blocks + 1)]


def words_of(line: str) -> list[str]:
    """Blanks alone divide words, as in the published counts."""
    return [word for word in line.split(" ") if word]


def refuse_carriage_return(line: str, place: str) -> None:
    """BadInput where a line has one, as after a copy by Windows: it would be scored as text."""
    if "\r" in line:
        raise BadInput(f"{place}: has a carriage return; lines must end in a newline alone")


class TokenizedText(Task):
    """A file of tokenised lines, whose words are what stands between blanks, as one running text.

    With a de-tokenizer the model reads natural text, and the record has the verdict of a round trip over every line;
    without one it reads the file as it is. Newlines are read and scored like anything else.
    """

    version = 1

    def __init__(
        self,
        name: str,
        title: str,
        *,
        folder: str,
        file: str,
        split: str,
        hub: HubLines | None,
        detokenizer: Callable[[bool], Detokenizer] | None,
        divide: Callable[[list[str]], list[list[str]]] | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        """`detokenizer` is of lines with a blank at both ends (True) or stripped ones. `divide` cuts the lines into
        texts that are read each by itself; None: the file is one. `facts` go into the protocol."""
        self.name, self.title = name, title
        self.folder, self.file, self.split, self.hub = folder, file, split, hub
        self.detokenizer, self.divide, self.facts = detokenizer, divide, facts or {}

    def load(self, source: DataSource) -> TaskData:
        hub = None if self.hub is None else partial(self.hub, self.split)
        name, raw, digest = source.read(self.name, (self.file,), hub=hub, folder=self.folder)
        lines = raw.removesuffix("\n").split("\n")
        for number, line in enumerate(lines, start=1):
            refuse_carriage_return(line, f"{place_of(self.folder, name)}:{number}")
        whole = [line + "\n" for line in lines]
        if not raw.endswith("\n"):
            whole[-1] = lines[-1]
        notes: dict[str, Any] = {"words": sum(len(words_of(line)) for line in lines), "lines": len(lines)}
        read: Callable[[str], str] = str
        if self.detokenizer is not None:
            detokenizer = self.detokenizer(next((line for line in lines if line.strip()), "").startswith(" "))
            read = detokenizer.text
            notes["detokenizer"] = f"{detokenizer.name}, version {detokenizer.version}"
            notes["round_trip"] = round_trip(detokenizer, whole).verdict
        parts = [whole] if self.divide is None else self.divide(whole)
        return TaskData([(read("".join(part)), part) for part in parts], {name: digest}, notes)

    def examples(self, data: TaskData) -> list[Example]:
        return [
            Example(
                f"{number:04d}",
                text=text,
                facts={"words": sum(len(words_of(line.removesuffix("\n"))) for line in lines), "lines": len(lines)},
            )
            for number, (text, lines) in enumerate(data.rows)
        ]

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        (answer,) = answers
        return text_record(answer) | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        total, error = total_nats(records)
        words, lines = (sum(record[name] for record in records) for name in ("words", "lines"))
        return [
            perplexity_of(
                "perplexity/words_and_line_ends",
                total,
                error,
                words + lines,
                "per word or end of line",
                denominator="words of the published file, and one end of line for each line",
            ),
            perplexity_of(
                "perplexity/words",
                total,
                error,
                words,
                "per word",
                denominator="words of the published file, no ends of lines",
            ),
        ]

    def protocol(self) -> dict[str, Any]:
        return {
            "text": "tokenised, as published" if self.detokenizer is None else "de-tokenized",
            "split": self.split,
            "context": "the whole file is one text" if self.divide is None else "each article is read by itself",
            "scored": "every token, those of newlines included",
            "standard_error": f"over blocks of about {BLOCK_TOKENS} tokens, taken to have as many words each",
            **self.facts,
        }
