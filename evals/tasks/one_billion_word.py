"""One Billion Word (Chelba et al. 2013): shuffled sentences of news, so each is read by itself.

Published perplexities are of `heldout-00000-of-00050`: 6,075 sentences, 159,658 words with one end of sentence for each
(the authors' count). The sentences are read as they stand in the file, tokenised; the newline after a sentence is its
end, and is scored.
"""

from collections.abc import Sequence
from typing import Any

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.tasks.data import DataSource, TaskData, lines_of, place_of
from evals.tasks.running_text import refuse_carriage_return, words_of
from evals.tasks.task import Answer, Example, Record, Task, perplexity

FILE = "news.en.heldout-00000-of-00050"


class OneBillionWord(Task):
    """The test sentences."""

    name, title, version = "one_billion_word", "One Billion Word", 1

    def load(self, source: DataSource) -> TaskData:
        name, text, digest = source.read(self.name, (FILE,))
        rows = []
        for place, line in lines_of(text, place_of(self.name, name)):
            refuse_carriage_return(line, place)
            if not words_of(line):
                raise BadInput(f"{place}: is blank; each line must be a sentence")
            rows.append(line)
        return TaskData(rows, {name: digest}, {"sentences": len(rows), "words": sum(map(len, map(words_of, rows)))})

    def examples(self, data: TaskData) -> list[Example]:
        return [
            Example(f"{number:06d}", text=line + "\n", facts={"words": len(words_of(line))})
            for number, line in enumerate(data.rows)
        ]

    def judge(self, example: Example, answers: Sequence[Answer]) -> Record:
        (answer,) = answers
        return {"nats": answer.total, "tokens": len(answer.nats)} | dict(example.facts or {})

    def values(self, records: Sequence[Record]) -> list[Metric]:
        nats = [record["nats"] for record in records]
        words = [record["words"] for record in records]
        both = [count + 1 for count in words]
        return [
            perplexity(
                "perplexity/words_and_sentence_ends",
                nats,
                both,
                "per word or end of sentence",
                denominator="words of the published file, and one end of sentence for each sentence",
            ),
            perplexity(
                "perplexity/words",
                nats,
                words,
                "per word",
                denominator="words of the published file, no ends of sentences",
            ),
        ]

    def protocol(self) -> dict[str, Any]:
        return {
            "text": "tokenised, as published",
            "split": f"test, {FILE}",
            "context": "each sentence is read by itself",
            "scored": "every token, and a newline as the end of the sentence",
            "standard_error": "over sentences",
        }


ONE_BILLION_WORD = OneBillionWord()
