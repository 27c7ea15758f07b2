"""De-tokenizer of the Children's Book Test (Hill et al. 2016): sentences tokenised much as the Penn Treebank's.

Undone are clitics (`did n't`, `Cat 's`), blanks before punctuation, brackets (`-LRB-`), double quotes (two backquotes,
two apostrophes) and single ones (a backquote, an apostrophe), `can not`. Where an apostrophe opens a quotation, the
text does not tell it from one that closes one, and it joins what is before it. Invertible: see `reversible`.
"""

import re
from collections.abc import Sequence

from evals.detokenizers.reversible import APART, LEFT, RIGHT, Joins, ReversibleDetokenizer

VERSION = 1

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]"}
MARK_OF = {text: mark for mark, text in BRACKETS.items()}
OPENING = ("``", "`", "-LRB-", "-LSB-")
CLOSING = ("''", "'", "-RRB-", "-RSB-", ",", ".", ";", ":", "!", "?")
CLITICS = ("n't", "'s", "'m", "'re", "'ve", "'ll", "'d")
CLIPPED = ("'em", "'t", "'tis", "'twas", "'T", "'Tis", "'Twas", "'n", "'n'", "'till")
"""Tokens that begin with an apostrophe and are no clitics."""

TITLE = re.compile(r"(?:Mr|Mrs|Dr|St|MR|MRS|DR|ST|[A-Z]|(?:[A-Za-z]\.)+[A-Za-z])\.")
"""What keeps its full stop."""

FRONT = re.compile(r"[\"'(\[]")
BACK = re.compile(r"[\"')\],.;:!?]$")
CLITIC = re.compile(r"(?<=[A-Za-z])(?:n't|'(?:s|m|re|ve|ll|d))$", re.IGNORECASE)


def _can(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """`can not` is cannot."""
    return RIGHT if tokens[place + 1 : place + 2] == ["not"] else APART


JOINS = Joins(
    sides=dict.fromkeys(OPENING, RIGHT)
    | dict.fromkeys([*CLOSING, *CLITICS, *(clitic.upper() for clitic in CLITICS)], LEFT),
    rules={"can": _can},
)


def join(segment: str) -> str:
    """The tokens of a segment as one word."""
    tokens = ("cannot" if segment == "can not" else segment).split(" ")
    shown = {"``": '"', "''": '"', "`": "'"} | BRACKETS
    return "".join(shown.get(token, token) for token in tokens)


def split(word: str) -> str:
    """The tokens of a word, with a blank between them: quotes at its beginning open, others close."""
    front: list[str] = []
    back: list[str] = []
    while word not in CLIPPED and FRONT.match(word):
        front.append({'"': "``", "'": "`"}.get(word[0]) or MARK_OF[word[0]])
        word = word[1:]
    while word not in CLIPPED and BACK.search(word) and not TITLE.fullmatch(word):
        back.append("''" if word[-1] == '"' else MARK_OF.get(word[-1], word[-1]))
        word = word[:-1]
    found = CLITIC.search(word)
    if found is not None:
        back.append(found[0])
        word = word[: found.start()]
    middle = ["can", "not"] if word == "cannot" else [word] if word else []
    return " ".join([*front, *middle, *reversed(back)])


class ChildrensBook(ReversibleDetokenizer):
    """Of the Children's Book Test, whose lines have no blanks at their ends."""

    def __init__(self) -> None:
        super().__init__("childrens book", VERSION, joins=JOINS, join=join, split=split, padded=False)
