"""LAMBADA (Paperno et al. 2016): the last word of a passage that only the whole passage makes likely.

All variants come from one pass. By target: the last *word*, right where every token of it is the likeliest, or its last
*token* alone, which is how Radford et al. 2019 are taken to have counted. By filter: none, or no stop words: a model
that guesses a stop word first is not right, and does not stand in the way of the next likeliest word. Radford et al.
do not say how theirs worked; ours bars, for the word's first token, each token that is a stop word with its space.
By text: OpenAI's, de-tokenized, or the standard one of the authors, tokenised and in lower case, which is a task of its
own. The perplexity is per word, exp of the mean of a word's nats.
"""

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.scoring.encoding import Request
from evals.tasks.data import DataSource, TaskData, json_rows, lines_of, place_of
from evals.tasks.stop_words import STOP_WORDS
from evals.tasks.task import Answer, Example, Record, Task, accuracy, perplexity

FOLDER = "lambada"
TEXTS = {"openai": "OpenAI, de-tokenized", "standard": "standard, tokenised"}
Text = Literal["openai", "standard"]
Split = Literal["test", "development"]


class Lambada(Task):
    """One split in one of its two texts. OpenAI's has a test split only."""

    version = 1

    def __init__(self, name: str, *, text: Text, split: Split = "test") -> None:
        self.name, self.text, self.split = name, text, split
        self.title = "LAMBADA" if text == "openai" else f"LAMBADA, standard text, {split}"

    def load(self, source: DataSource) -> TaskData:
        if self.text == "openai":
            name, text, digest = source.read(self.name, ("lambada_test.jsonl",), hub=_openai, folder=FOLDER)
            rows = [(place, row["text"]) for place, row in json_rows(text, place_of(FOLDER, name), {"text": str})]
        else:
            names = (f"lambada_{self.split}_plain_text.txt",)
            name, text, digest = source.read(self.name, names, hub=partial(_standard, self.split), folder=FOLDER)
            rows = list(lines_of(text, place_of(FOLDER, name)))
        for place, passage in rows:
            if " " not in passage.strip():
                raise BadInput(f"{place}: text {passage!r} has no last word after another")
        return TaskData([passage.strip() for _, passage in rows], {name: digest})

    def examples(self, data: TaskData) -> list[Example]:
        return [
            Example(f"{number:04d}", (Request(context, " " + word),))
            for number, (context, word) in enumerate(text.rsplit(" ", 1) for text in data.rows)
        ]

    def barred_words(self) -> frozenset[str]:
        return STOP_WORDS

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        (answer,) = answers
        word, last = all(answer.greedy), answer.greedy[-1]
        first_of = answer.greedy_barred
        return {
            "nats": answer.total,
            "tokens": len(answer.nats),
            "word": word,
            "word_filtered": first_of and all(answer.greedy[1:]),
            "last_token": last,
            "last_token_filtered": first_of if len(answer.greedy) == 1 else last,
            "dropped": answer.dropped,
        }

    def values(self, records: Sequence[Record]) -> list[Metric]:
        found = [perplexity("perplexity", [r["nats"] for r in records], [1] * len(records), "per word", filter="none")]
        for target in ("word", "last_token"):
            for name, chosen in (("none", ""), ("stop words", "_filtered")):
                right = [record[target + chosen] for record in records]
                suffix = "" if name == "none" else "/stop_word_filter"
                found.append(accuracy(f"accuracy/{target}{suffix}", right, target=target, filter=name))
        return found

    def protocol(self) -> dict[str, Any]:
        return {"text": TEXTS[self.text], "split": self.split, "context": "the passage up to its last word"}


def _openai() -> Iterator[str]:
    from datasets import load_dataset

    for row in load_dataset("EleutherAI/lambada_openai", "default", split="test"):
        yield json.dumps({"text": row["text"]}) + "\n"


def _standard(split: Split) -> Iterator[str]:
    from datasets import load_dataset

    for row in load_dataset("cimec/lambada", split="test" if split == "test" else "validation"):
        yield row["text"] + "\n"


LAMBADA = Lambada("lambada", text="openai")
LAMBADA_STANDARD = Lambada("lambada/standard", text="standard")
LAMBADA_STANDARD_DEVELOPMENT = Lambada("lambada/standard/development", text="standard", split="development")
