"""Children's Book Test (Hill et al. 2016): which of ten words was in the 21st sentence, after 20 sentences of a book?

As Radford et al. 2019: each candidate is scored together with the rest of its sentence, given the 20 sentences and the
beginning of the 21st, in de-tokenized text, on the validation split. The right one is to have the lowest sum of nats;
nothing is divided by lengths. The ten requests of a question have one context, which is read once.

The official file has questions of 21 numbered lines, a blank line after each. The last line has four fields between
tabs: the sentence with `XXXXX` for the word, the word, nothing, and the candidates between bars.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from data_pipeline.config import BadInput
from evals.detokenizers import Detokenizer, round_trip
from evals.detokenizers.childrens_book import ChildrensBook
from evals.metric import Metric
from evals.scoring.encoding import Request
from evals.tasks.data import DataSource, TaskData, check_options, lines_of, place_of
from evals.tasks.task import Answer, Example, Record, Task, accuracy, likeliest

FOLDER = "cbt"
BLANK = "XXXXX"
NUM_SENTENCES = 20
NUM_CANDIDATES = 10
KINDS = {"CN": "common nouns", "NE": "named entities"}
Kind = Literal["CN", "NE"]


@dataclass(frozen=True, slots=True)
class Question:
    """Tokenised, as in the file."""

    sentences: tuple[str, ...]
    query: str
    """With `XXXXX`."""
    candidates: tuple[str, ...]
    label: int
    """The place of the answer among them."""


def read_questions(text: str, name: str) -> list[Question]:
    """All questions of a file; raises BadInput for anything but the official format."""
    found: list[Question] = []
    sentences: list[str] = []
    place = name
    for place, line in lines_of(text, name):
        if not line.strip():
            if sentences:
                raise BadInput(f"{place}: a blank line after {len(sentences)} lines of a question, which has 21")
            continue
        number, _, rest = line.partition(" ")
        if number != str(len(sentences) + 1):
            raise BadInput(f"{place}: begins with {number!r}, must begin with its number, {len(sentences) + 1}")
        if len(sentences) < NUM_SENTENCES:
            sentences.append(rest.strip())
        else:
            found.append(_question(sentences, rest, place))
            sentences = []
    if sentences:
        raise BadInput(f"{place}: the file ends after {len(sentences)} lines of a question, which has 21")
    return found


def _question(sentences: Sequence[str], line: str, place: str) -> Question:
    fields = line.split("\t")
    if len(fields) != 4:
        raise BadInput(f"{place}: {len(fields)} fields, must be 4 between tabs: sentence, answer, nothing, candidates")
    query, answer, _, bars = (field.strip() for field in fields)
    if BLANK not in query:
        raise BadInput(f"{place}: the sentence has no {BLANK} for the missing word")
    candidates = tuple(bars.split("|"))
    if answer not in candidates:
        raise BadInput(f"{place}: the answer {answer!r} is none of the candidates {bars!r}")
    check_options(candidates, candidates.index(answer), place, NUM_CANDIDATES)
    return Question(tuple(sentences), query, candidates, candidates.index(answer))


def requests_of(question: Question, detokenizer: Detokenizer) -> tuple[Request, ...]:
    """One for each candidate; all contexts are equal."""
    beginning, _, rest = detokenizer.text(question.query).partition(BLANK)
    before = " ".join([*map(detokenizer.text, question.sentences), beginning])
    context = before.rstrip(" ")
    blanks = before[len(context) :]
    return tuple(Request(context, blanks + word + rest.replace(BLANK, word)) for word in question.candidates)


class ChildrensBookTest(Task):
    """The questions of one kind of word."""

    version = 1

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.name = f"cbt_{kind.lower()}"
        self.title = f"Children's Book Test, {KINDS[kind]}"

    def load(self, source: DataSource) -> TaskData:
        names = (f"cbtest_{self.kind}_valid_2000ex.txt",)
        name, text, digest = source.read(self.name, names, hub=partial(_hub, self.kind), folder=FOLDER)
        questions = read_questions(text, place_of(FOLDER, name))
        detokenizer = ChildrensBook()
        verdict = round_trip(detokenizer, (line for one in questions for line in (*one.sentences, one.query))).verdict
        notes = {"detokenizer": f"{detokenizer.name}, version {detokenizer.version}", "round_trip": verdict}
        return TaskData(questions, {name: digest}, notes)

    def examples(self, data: TaskData) -> list[Example]:
        detokenizer = ChildrensBook()
        return [
            Example(f"{number:04d}", requests_of(question, detokenizer), facts={"label": question.label})
            for number, question in enumerate(data.rows)
        ]

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        return {
            "nats": [answer.total for answer in answers],
            "tokens": [len(answer.nats) for answer in answers],
            "dropped": max(answer.dropped for answer in answers),
        } | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        right = [likeliest(record["nats"]) == record["label"] for record in records]
        return [accuracy("accuracy", right, scored="candidate and the rest of the sentence", normalisation="none")]

    def protocol(self) -> dict[str, Any]:
        return {
            "text": "de-tokenized",
            "split": "validation",
            "context": f"{NUM_SENTENCES} sentences, joined by blanks, and the beginning of the next one",
            "candidates": NUM_CANDIDATES,
            "among_equals": "the first candidate",
        }


def _hub(kind: Kind) -> Iterator[str]:
    """In the official format."""
    from datasets import load_dataset

    for row in load_dataset("cam-cst/cbt", kind, split="validation"):
        for number, sentence in enumerate((*row["sentences"], row["question"]), start=1):
            end = "\n" if number <= len(row["sentences"]) else f"\t{row['answer']}\t\t{'|'.join(row['options'])}\n\n"
            yield f"{number} {sentence.strip()}{end}"


CBT_CN, CBT_NE = ChildrensBookTest("CN"), ChildrensBookTest("NE")
