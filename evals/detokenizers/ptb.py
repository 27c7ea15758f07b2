"""De-tokenizer of the Penn Treebank text of Mikolov et al. (2010): lower case, no punctuation, numbers are `N`.

Undone are the Treebank's clitics (`do n't`, `company 's`, `investors '`, `they 're`), its `can not`, the blank after
`$`, `c$` and `#` (which stands for pounds there), and the escapes `\\/` and `\\*`. `<unk>`, `N`, lower case and the
lost punctuation stay: nothing in the text says what was there. Invertible: see `reversible`.
"""

import re
from collections.abc import Sequence

from evals.detokenizers.reversible import APART, LEFT, RIGHT, Joins, ReversibleDetokenizer

VERSION = 1

PARTS = re.compile(r"(#|[a-z]{0,2}\$)?(.*?)(n't|'(?:s|re|ve|ll|d|m)?)?", re.DOTALL)


def _can(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """`can not` is the Treebank's form of cannot."""
    return RIGHT if tokens[place + 1 : place + 2] == ["not"] else APART


JOINS = Joins(
    sides=dict.fromkeys(["$", "#", "c$", "us$", "a$", "hk$", "m$", "nz$", "s$", "nt$"], RIGHT)
    | dict.fromkeys(["n't", "'", "'s", "'re", "'ve", "'ll", "'d", "'m"], LEFT),
    rules={"can": _can},
)


def join(segment: str) -> str:
    """The tokens of a segment as one word."""
    return segment.replace(" ", "").replace("\\/", "/").replace("\\*", "*")


def split(word: str) -> str:
    """The tokens of a word, with a blank between them."""
    if word.isalpha():
        return "can not" if word == "cannot" else word
    parts = PARTS.fullmatch(word)
    assert parts is not None
    return " ".join(filter(None, parts.groups())).replace("/", "\\/").replace("*", "\\*")


class PennTreebank(ReversibleDetokenizer):
    """Of the Penn Treebank; `padded=False` for lines stripped of the blanks at both ends."""

    def __init__(self, *, padded: bool = True) -> None:
        name = "ptb" if padded else "ptb, stripped lines"
        super().__init__(name, VERSION, joins=JOINS, join=join, split=split, padded=padded)
