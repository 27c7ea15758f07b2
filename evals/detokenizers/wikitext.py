"""De-tokenizer of WikiText-2 and WikiText-103 (Merity et al. 2016), raw or with `<unk>`.

The texts were tokenised much as Moses does it: punctuation stands alone, `@-@`, `@,@` and `@.@` are what stood within
a word or a number, and what follows an apostrophe within a word is a token that starts with it. `split` repeats that
on one word; the exceptions it knows were counted in WikiText-2. `<unk>` and `<formula>` stay, headings
keep their marks (`= = Plot = =` becomes `== Plot ==`), and what the tokenised text does not tell apart (`5 – 6`,
`5–6`) becomes what is usual in Wikipedia. Invertible: see `reversible`.
"""
# ruff: noqa: RUF001

import re

from evals.detokenizers.reversible import ReversibleDetokenizer
from evals.detokenizers.wikitext_joins import JOINS

VERSION = 1

ALONE = r",;:!?()\[\]{}\"%$£€¥₤₹₱₩#/…“”‘’„¡¿°²′″–—‑−⁄&+"
"""Characters that are tokens by themselves."""

ABBREVIATION = re.compile(
    r"No|Nos|Nr|St|Drs?|Mrs?|Ms|Mme|Mlle|Messrs|Sr|Op|vs|Bros|Corp|pp|var|ssp|lbs|v|o|g"
    r"|Adm|Brig|Capt|Cmdr|Col|Cpl|Gen|Gov|Hon|Insp|Lt|Maj|Msgr|Pfc|Prof|Pvt|Rep|Rev|Sen|Sgt|Supt"
)
"""Words that keep their full stop, besides single capitals and what has one within (U.S.)."""

ABBREVIATION_AT_AN_END = re.compile(r"Jr|Inc|Ltd")
"""Those that keep it only where a blank follows."""

INFIX_MARK = r"(?<=[0-9>])[.,](?=[0-9<])"
INFIX_HYPHEN = r"(?<=[^\-(\[])-(?=[^\-)\],;:!?])"
CONTRACTED = r"(?:s|t|re|ve|ll|d|m)(?![\w'])"
PIECE = re.compile(
    rf"""
      <unk> | <formula> | @[-,.]@ | \.\.+
    | (?<! [\w.,>] ) (?: [^\W\d_]+\d+\.\d+ | \d+(?:,\d+)+[^\W\d_]\w* )
    | (?P<infix> {INFIX_MARK} | {INFIX_HYPHEN} )
    | (?<=[^\W_])'s(?![\w'])
    | (?: (?<=[^\W\d_]) | (?<=>) ) ' [^\W\d_]\w* (?: '(?!{CONTRACTED})\w+ )*
    | [{ALONE}']
    | (?P<run> (?: [^{ALONE}'.\-<] | <(?!unk>|formula>) | (?!{INFIX_MARK})\.(?!\.) | (?!{INFIX_HYPHEN})- )+ )
    """,
    re.VERBOSE,
)
SIMPLE = re.compile(r"([^\W²]{2,})([.,;:!?)]?)")


def join(segment: str) -> str:
    """The tokens of a segment as one word."""
    return segment.replace(" @-@ ", "-").replace(" @,@ ", ",").replace(" @.@ ", ".").replace(" ", "")


def split(word: str) -> str:
    """The tokens of a word, with a blank between them."""
    if simple := SIMPLE.fullmatch(word):
        stem, mark = simple.groups()
        return f"{stem} {mark}" if mark and not (mark == "." and _abbreviated(stem, last=True)) else word
    if not word.strip("="):
        return " ".join(word)
    return " ".join(_token(found) for found in PIECE.finditer(word))


def _token(found: re.Match[str]) -> str:
    """A piece as tokens: infixes are marked, a full stop stands alone unless it is an abbreviation's."""
    piece = found[0]
    if found.lastgroup == "infix":
        return f"@{piece}@"
    if found.lastgroup == "run" and piece.endswith(".") and len(piece) > 1:
        last = found.end() == len(found.string)
        return piece if _abbreviated(piece[:-1], last=last) else f"{piece[:-1]} ."
    return piece


def _abbreviated(stem: str, *, last: bool) -> bool:
    """Whether the full stop after `stem` belongs to it; `last`: nothing follows in the word."""
    if ABBREVIATION.fullmatch(stem) or (last and ABBREVIATION_AT_AN_END.fullmatch(stem)):
        return True
    return stem.isupper() if len(stem) == 1 else "." in stem and any(map(str.isalpha, stem))


class WikiText(ReversibleDetokenizer):
    """Of WikiText-2 and WikiText-103; `padded=False` for lines stripped of the blanks at both ends."""

    def __init__(self, *, padded: bool = True) -> None:
        name = "wikitext" if padded else "wikitext, stripped lines"
        super().__init__(name, VERSION, joins=JOINS, join=join, split=split, padded=padded)
