"""Winograd Schema Challenge (Levesque et al. 2012), the 273 problems: what does the pronoun stand for?

As Trinh & Le 2018, the pronoun is replaced by each option. *Full* scoring takes the nats of the whole sentence, from
the start of a document; *partial* scoring those of what follows the option alone, given the sentence up to it. The
option with fewer nats is chosen. The standard error is nearly 3 points.

Options are written as the sentence needs them (`worded`), because they stand in the file as they do elsewhere in it:

- for a pronoun with a capital the option begins with one; for another, an article or the like at its beginning has
  none (`because the trophy is too large`), and names keep theirs;
- for a possessive pronoun the option ends in 's, unless it does already (in all of the 273, `her` is possessive);
- for he, him and she an option that ends in 's loses it (`Charlie's` for he is Charlie).

Nothing else is changed: not an option without its article, nor `him` for he.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.scoring.encoding import Request
from evals.tasks.data import DataSource, TaskData, check_options, json_rows, place_of
from evals.tasks.task import Answer, Example, Record, Task, accuracy, likeliest

FIELDS = {"txt1": str, "pron": str, "txt2": str, "options": list, "label": int}
OPTIONAL = {"index": int, "source": str}

POSSESSIVE = frozenset({"his", "her", "its", "their", "my", "our", "your"})
PERSONAL = frozenset({"he", "him", "she"})
DETERMINERS = frozenset({"a", "an", "the", "this", "that", "these", "those"}) | POSSESSIVE
CLOSING = (".", ",", ";", ":", "!", "?", "'s")
"""No blank comes before them."""


def worded(option: str, pronoun: str) -> str:
    """The option as it stands in for the pronoun.

    >>> worded("The trophy", "it"), worded("hair", "It"), worded("The man", "his"), worded("Charlie's", "He")
    ('the trophy', 'Hair', "the man's", 'Charlie')
    """
    if pronoun.lower() in POSSESSIVE and not option.endswith("'s"):
        option += "'s"
    if pronoun.lower() in PERSONAL:
        option = option.removesuffix("'s")
    first = option.partition(" ")[0]
    if pronoun[0].isupper():
        return option[0].upper() + option[1:]
    return option[0].lower() + option[1:] if first.lower() in DETERMINERS else option


class WinogradSchemaChallenge(Task):
    """The 273 problems, each with two options."""

    name, title, version = "wsc273", "Winograd Schema Challenge", 1

    def load(self, source: DataSource) -> TaskData:
        name, text, digest = source.read(self.name, ("wsc273.jsonl",), hub=_hub)
        rows = []
        for place, row in json_rows(text, place_of(self.name, name), FIELDS, OPTIONAL):
            for field in ("pron", "txt2"):
                if not row[field].strip():
                    raise BadInput(f"{place}: {field} is {row[field]!r}, must not be empty")
            check_options(row["options"], row["label"], place, 2)
            rows.append(row)
        return TaskData(rows, {name: digest})

    def examples(self, data: TaskData) -> list[Example]:
        """Requests in the order full, partial of the first option, then of the second."""
        found = []
        for number, row in enumerate(data.rows):
            requests: list[Request] = []
            after = row["txt2"].strip()
            rest = after if after.startswith(CLOSING) else " " + after
            for option in row["options"]:
                before = f"{row['txt1'].strip()} {worded(option.strip(), row['pron'].strip())}".strip()
                requests += [Request("", before + rest), Request(before, rest)]
            found.append(Example(f"{number:03d}", tuple(requests), facts={"label": row["label"]}))
        return found

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        full, partial = answers[::2], answers[1::2]
        return {
            "full_nats": [answer.total for answer in full],
            "partial_nats": [answer.total for answer in partial],
            "dropped": max(answer.dropped for answer in answers),
        } | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        scored = {"full": "the whole sentence", "partial": "what follows the option"}
        return [
            accuracy(
                f"accuracy/{name}",
                [likeliest(record[f"{name}_nats"]) == record["label"] for record in records],
                scored=what,
                normalisation="none",
            )
            for name, what in scored.items()
        ]

    def protocol(self) -> dict[str, Any]:
        return {
            "split": "test",
            "options": "in the pronoun's case: capitals of articles, 's of possessives; else as in the file",
            "among_equals": "the first option",
        }


def _hub() -> Iterator[str]:
    """The hub has the whole text and where the pronoun is."""
    from datasets import load_dataset

    for row in load_dataset("lighteval/winograd_wsc", "wsc273", split="test"):
        text, begin, pronoun = row["text"], row["pronoun_loc"], row["pronoun"]
        before, after = (" ".join(part.split()) for part in (text[:begin], text[begin + len(pronoun) :]))
        found = {"txt1": before, "pron": pronoun, "txt2": after}
        yield json.dumps(found | {"options": list(row["options"]), "label": row["label"]}) + "\n"


WSC273 = WinogradSchemaChallenge()
