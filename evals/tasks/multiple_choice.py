"""Multiple choice by likelihood: HellaSwag (Zellers et al. 2019), PIQA (Bisk et al. 2020), ARC (Clark et al. 2018),
BLiMP (Warstadt et al. 2020), or any file of the same form.

A file has a JSON object on each line: `context`, a text or nothing; `options`, at least two; `label`, the place of the
right one, from 0; and perhaps `suffix`, which follows every option and is scored with it. A blank comes between context
and option unless the context is empty; the suffix follows as it is.

The right option is to have the fewest nats, by four measures: their sum, or divided by the option's bytes, characters
or tokens (with the suffix; bytes and characters without the blank before). lm-evaluation-harness's `acc` is the sum,
its `acc_norm` is per character and its `acc_bytes` per byte.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.scoring.encoding import Request
from evals.tasks.data import DataSource, TaskData, check_options, json_rows, place_of
from evals.tasks.task import Answer, Example, Record, Task, accuracy, likeliest

FIELDS = {"context": str, "options": list, "label": int}
OPTIONAL = {"suffix": str}
MEASURES = {"sum": None, "per_byte": "bytes", "per_character": "characters", "per_token": "tokens"}

Row = dict[str, Any]


class MultipleChoice(Task):
    """One data set in the form above, by its file or from the hub."""

    version = 1

    def __init__(
        self, name: str, title: str, *, split: str, prompt: str, hub: Callable[[], Iterable[Row]] | None
    ) -> None:
        """`split` is of the hub, and `prompt` says how its rows become contexts and options."""
        self.name, self.title, self.split, self.prompt, self.hub = name, title, split, prompt, hub

    def load(self, source: DataSource) -> TaskData:
        hub = None if self.hub is None else partial(_lines, self.hub)
        name, text, digest = source.read(self.name, (f"{self.name}.jsonl",), hub=hub)
        rows = []
        for place, row in json_rows(text, place_of(self.name, name), FIELDS, OPTIONAL):
            if row["context"] != row["context"].strip():
                raise BadInput(f"{place}: context has blanks at its ends; a blank before each option is put there")
            check_options(row["options"], row["label"], place)
            for option in row["options"]:
                if option != option.strip():
                    raise BadInput(f"{place}: the option {option!r} has blanks at its ends; leave them out")
            rows.append(row)
        of_the_hub = {"split": self.split, "prompt": self.prompt}
        notes = of_the_hub if source.directory is None else dict.fromkeys(of_the_hub, "as in the file")
        return TaskData(rows, {name: digest}, notes)

    def examples(self, data: TaskData) -> list[Example]:
        found = []
        for number, row in enumerate(data.rows):
            scored = [option + row.get("suffix", "") for option in row["options"]]
            blank = " " if row["context"] else ""
            facts = {
                "label": row["label"],
                "bytes": [len(text.encode()) for text in scored],
                "characters": [len(text) for text in scored],
            }
            requests = tuple(Request(row["context"], blank + text) for text in scored)
            found.append(Example(f"{number:06d}", requests, facts=facts))
        return found

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        return {
            "nats": [answer.total for answer in answers],
            "tokens": [len(answer.nats) for answer in answers],
            "dropped": max(answer.dropped for answer in answers),
        } | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        return [
            accuracy(
                f"accuracy/{name}", [_is_right(record, lengths) for record in records], normalisation=lengths or "none"
            )
            for name, lengths in MEASURES.items()
        ]

    def protocol(self) -> dict[str, Any]:
        return {"scored": "the option, and the suffix if there is one", "among_equals": "the first option"}


def _is_right(record: Record, lengths: str | None) -> bool:
    nats = record["nats"]
    if lengths is not None:
        nats = [one / length for one, length in zip(nats, record[lengths], strict=True)]
    return likeliest(nats) == record["label"]


def _lines(rows: Callable[[], Iterable[Row]]) -> Iterator[str]:
    for row in rows():
        yield json.dumps(row) + "\n"


def _hellaswag() -> Iterator[Row]:
    from datasets import load_dataset

    for row in load_dataset("Rowan/hellaswag", split="validation"):
        context = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
        yield {
            "context": _without_marks(context),
            "options": [_without_marks(ending) for ending in row["endings"]],
            "label": int(row["label"]),
        }


def _without_marks(text: str) -> str:
    """WikiHow's marks: `[title]` ends a sentence, others say nothing."""
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ").strip()


def _piqa() -> Iterator[Row]:
    from datasets import load_dataset

    for row in load_dataset("baber/piqa", split="validation"):
        yield _question(row["goal"], [row["sol1"], row["sol2"]], int(row["label"]))


def _arc(configuration: str) -> Iterator[Row]:
    from datasets import load_dataset

    for row in load_dataset("allenai/ai2_arc", configuration, split="test"):
        names = list(row["choices"]["label"])
        yield _question(row["question"], list(row["choices"]["text"]), names.index(row["answerKey"]))


def _question(question: str, options: Sequence[str], label: int) -> Row:
    stripped = [option.strip() for option in options]
    return {"context": f"Question: {question.strip()}\nAnswer:", "options": stripped, "label": label}


def _blimp() -> Iterator[Row]:
    from datasets import get_dataset_config_names, load_dataset

    for configuration in sorted(get_dataset_config_names("nyu-mll/blimp")):
        for number, row in enumerate(load_dataset("nyu-mll/blimp", configuration, split="train")):
            options = [row["sentence_good"].strip(), row["sentence_bad"].strip()]
            label = number % 2  # or a model that finds all equal would be right
            yield {"context": "", "options": options[::-1] if label else options, "label": label}


QUESTION = "Question: ...\\nAnswer:"
MULTIPLE_CHOICE_TASKS = (
    MultipleChoice(
        "hellaswag",
        "HellaSwag",
        split="validation",
        prompt="activity, colon, context; marks in square brackets taken out",
        hub=_hellaswag,
    ),
    MultipleChoice("piqa", "PIQA", split="validation", prompt=QUESTION, hub=_piqa),
    MultipleChoice("arc_easy", "ARC, easy", split="test", prompt=QUESTION, hub=partial(_arc, "ARC-Easy")),
    MultipleChoice(
        "arc_challenge", "ARC, challenge", split="test", prompt=QUESTION, hub=partial(_arc, "ARC-Challenge")
    ),
    MultipleChoice(
        "blimp",
        "BLiMP",
        split="all 67 paradigms, 1,000 pairs each",
        prompt="none: each sentence from the start of a document, the acceptable one first and second in turn",
        hub=_blimp,
    ),
)
