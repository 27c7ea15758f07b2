"""Penn Treebank (Marcus et al. 1993) as Mikolov et al. (2010) prepared it: 10,000 words, lower case, no punctuation.

The test file has 78,669 words on 3,761 lines: 82,430 with ends of lines, which is how published perplexities count.
"""

from collections.abc import Iterator

from evals.detokenizers import PennTreebank
from evals.tasks.running_text import TokenizedText

FILES = {"test": "ptb.test.txt", "validation": "ptb.valid.txt"}


def _hub(split: str) -> Iterator[str]:
    """The hub's lines lack the blanks at both ends."""
    from datasets import load_dataset

    place = "ptb-text-only/ptb_text_only"
    for row in load_dataset(place, "penn_treebank", split=split, revision="refs/convert/parquet"):
        yield f" {row['sentence'].strip()} \n"


def _penn_treebank(name: str, detail: str = "", *, split: str = "test", tokenized: bool = False) -> TokenizedText:
    return TokenizedText(
        name,
        f"Penn Treebank{detail}",
        folder="ptb",
        file=FILES[split],
        split=split,
        hub=_hub,
        detokenizer=None if tokenized else lambda padded: PennTreebank(padded=padded),
        facts={"unknown_words": "<unk>, numbers are N"},
    )


PTB = _penn_treebank("ptb")
PTB_TOKENIZED = _penn_treebank("ptb/tokenized", ", tokenised", tokenized=True)
PTB_VALIDATION = _penn_treebank("ptb/validation", ", validation", split="validation")
PTB_TASKS = (PTB, PTB_TOKENIZED, PTB_VALIDATION)
