"""WikiText-2 and WikiText-103 (Merity et al. 2016): articles of Wikipedia, tokenised.

Both have the same articles for validation and test. The benchmark is of `wiki.test.tokens`, where what is outside of
the training vocabulary is `<unk>`, so that the two corpora differ; `wiki.test.raw` has the words themselves, and is a
task of its own (`/raw`). The test file has 241,211 words on 4,358 lines: 245,569 with ends of lines.

A file is one running text. With `/articles` each article is read by itself, as lm-evaluation-harness divides the raw
file: what an article's beginning could gain from the one before is lost.
"""

from collections.abc import Iterator
from functools import partial

from evals.detokenizers import WikiText
from evals.tasks.running_text import TokenizedText, words_of

CORPORA = {"wikitext2": ("WikiText-2", "wikitext-2"), "wikitext103": ("WikiText-103", "wikitext-103")}
SPLITS = {"test": "wiki.test", "validation": "wiki.valid"}


def _hub(configuration: str, split: str) -> Iterator[str]:
    """The hub has nothing for a line that is blank in the file."""
    from datasets import load_dataset

    for row in load_dataset("Salesforce/wikitext", configuration, split=split):
        yield row["text"] or " \n"


def articles(lines: list[str]) -> list[list[str]]:
    """The lines of each article: a new one begins with a heading of the first level, `= Title =`."""
    found: list[list[str]] = []
    begun = False
    for line in lines:
        words = words_of(line.removesuffix("\n"))
        heading = len(words) > 2 and words[0] == words[-1] == "=" and "=" not in (words[1], words[-2])
        if not found or (heading and begun):
            found.append([])
        begun = begun or heading
        found[-1].append(line)
    return found


def _wikitext(corpus: str, variant: str = "") -> TokenizedText:
    """Of the variants `raw`, `tokenized`, `articles` and `validation`, those that `variant` names."""
    title, configuration = CORPORA[corpus]
    chosen = variant.split("/") if variant else []
    raw, split = "raw" in chosen, "validation" if "validation" in chosen else "test"
    return TokenizedText(
        "/".join([corpus, *chosen]),
        ", ".join([title, *chosen]),
        folder=corpus,
        file=SPLITS[split] + (".raw" if raw else ".tokens"),
        split=split,
        hub=partial(_hub, f"{configuration}-raw-v1" if raw else f"{configuration}-v1"),
        detokenizer=None if "tokenized" in chosen else lambda padded: WikiText(padded=padded),
        divide=articles if "articles" in chosen else None,
        facts={"unknown_words": "as written" if raw else "<unk>"},
    )


VARIANTS = ("", "tokenized", "validation", "raw", "raw/tokenized", "raw/articles")
WIKITEXT_TASKS = tuple(_wikitext(corpus, variant) for corpus in CORPORA for variant in VARIANTS)
