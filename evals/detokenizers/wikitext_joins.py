"""Which tokens of a WikiText line belong together. Decides only how natural the text is: see `reversible`."""
# ruff: noqa: RUF001

import re
from collections.abc import Sequence

from evals.detokenizers.reversible import APART, BOTH, LEFT, RIGHT, Joins

CLOSING = frozenset(",.;:!?)]}")
OPENING = frozenset(["(", "[", "{", "—", "–", "/", "$", "£", "@-@"])
CLIPPED = frozenset(["em", "til", "cause", "tis", "twas"])
"""Words that may start with an apostrophe."""

FAR = 40
"""Tokens within which the other of two single quotes is looked for."""

YEARS = re.compile(r"[0-9][0-9]s?$")


def _neighbours(tokens: Sequence[str], place: int) -> tuple[str, str]:
    """The tokens before and after; nothing at the ends of the line."""
    after = tokens[place + 1] if place + 1 < len(tokens) else ""
    return (tokens[place - 1] if place else ""), after


def double_quote(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """Opens and closes in turn, unless the neighbours say which it is."""
    before, after = _neighbours(tokens, place)
    if before and (not after or after in CLOSING or (after == "'" and '"' in quotes)):
        closes = True
    else:
        closes = '"' in quotes and bool(before) and before not in OPENING
    (quotes.discard if closes else quotes.add)('"')
    return LEFT if closes else RIGHT


def apostrophe(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """A possessive, something clipped, or a quote that opens or closes."""
    before, after = _neighbours(tokens, place)
    if after == "s" and before and not before[-1].isalnum():
        return BOTH
    if before and (not after or after in CLOSING):
        quotes.discard("'")
        return LEFT
    if (YEARS.match(after) and not before.endswith("s")) or after in CLIPPED:
        return RIGHT
    if "'" in quotes:
        quotes.discard("'")
        return LEFT
    other = "'" in tokens[place + 1 : place + FAR]
    if before.endswith("s") or not (other or not before or before in OPENING or before == '"'):
        return LEFT
    quotes.add("'")
    return RIGHT


def curly_quote(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """A curly apostrophe within a word, or a closing quote."""
    before, after = _neighbours(tokens, place)
    if after in {"s", "t", "re", "ve", "ll", "d", "m"} or (before in {"O", "D", "L", "d", "l"} and after[:1].isalpha()):
        return BOTH
    return LEFT


def between_numbers(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """Joins what starts and ends with a digit, as 5–6 and 1⁄2."""
    before, after = _neighbours(tokens, place)
    return BOTH if before[-1:].isdigit() and after[:1].isdigit() else APART


def colon(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """After a word, or within a time."""
    return between_numbers(tokens, place, quotes) or LEFT


def between_words(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """A slash: km/h, and/or."""
    before, after = _neighbours(tokens, place)
    return BOTH if (before[-1:].isalnum() or before == "<unk>") and (after[:1].isalnum() or after == "<unk>") else APART


def dash(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """Joins both sides where there are two."""
    return BOTH if all(_neighbours(tokens, place)) else APART


def sign(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """A sign joins its number; a term of a sum stays apart."""
    before, after = _neighbours(tokens, place)
    term = before[-1:].isdigit() or before[:1].isupper() or (len(before) == 1 and before.isalpha())
    return APART if term or before in {"<unk>", ")", "]", "%", "°"} or not after[:1].isdigit() else RIGHT


def number_sign(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """#1, but C# and F#."""
    before, after = _neighbours(tokens, place)
    if len(before) == 1 and before.isupper():
        return LEFT
    return RIGHT if after[:1].isdigit() else APART


def ampersand(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """Joins initials: R&B, AT&T."""
    before, after = _neighbours(tokens, place)
    initials = before.isalpha() and after.isalpha() and before.isupper() and after.isupper()
    return BOTH if initials and min(len(before), len(after)) == 1 else APART


def degree(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """32°F and 15°, but 51° N."""
    return BOTH if _neighbours(tokens, place)[1] in {"C", "F"} else LEFT


def equals(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """The marks of a heading join each other."""
    return LEFT if _neighbours(tokens, place)[0] == "=" else APART


def dollar(tokens: Sequence[str], place: int, quotes: set[str]) -> int:
    """US$5 and $5."""
    return BOTH if _neighbours(tokens, place)[0] in {"US", "A", "AU", "C", "CA", "HK", "NZ", "NT", "S", "R"} else RIGHT


JOINS = Joins(
    sides=dict.fromkeys([*",.;!?)]}%…”′″²", "..", "...", "...."], LEFT)
    | dict.fromkeys("([{£€¥₤₹₱₩“‘„¡¿", RIGHT)
    | dict.fromkeys(["@-@", "@,@", "@.@"], BOTH),
    rules={
        '"': double_quote,
        "'": apostrophe,
        "’": curly_quote,
        ":": colon,
        "/": between_words,
        "–": between_numbers,
        "⁄": between_numbers,
        "—": dash,
        "‑": dash,
        "−": sign,
        "+": sign,
        "#": number_sign,
        "&": ampersand,
        "°": degree,
        "=": equals,
        "$": dollar,
    },
    clitics="'",
)
