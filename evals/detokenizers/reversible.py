"""A de-tokenizer that is invertible by construction.

Tokens of a line that belong together are a *segment* and are written as one *word*, without blanks: `( 24` as `(24`,
`in ) ,` as `in),`. A corpus gives `Joins`, which decides what belongs together from anything on the line, `join`, which
makes a word of a segment, and `split`, the corpus's tokenisation of one word. Only `split` takes part in the inverse,
and it sees one word.

Why it is invertible, whatever those three do:

1. A segment is written as a word only where `split(word) == segment`: that is tried when the word is made. Where it
   fails, the segment is cut into parts for which it holds. A single token t with `split(t) != t` is written as it is
   and *marked*: what a marked word reads as is the word itself. So every word, read alone, gives its tokens.
2. Words have no blanks. So blanks alone say where words start, which of them are marked, and how many blanks were in
   the raw line: n blanks between words stand for (n + 1) // 2 raw ones, and the word after them is marked if n is
   even. The usual single blank is a single blank; a mark is a second one.
3. At the ends of a line the usual number of raw blanks (one in the published files, none in stripped lines) and none
   change places, so that natural lines have none. At the start h blanks, so changed, are written as 2h, or 2h + 1
   before a mark.
4. Newlines are never touched. A blank line keeps its blanks, changed as at the end of a line; what follows the last
   newline is kept as it is if blank, so that nothing becomes nothing. Hence a map of lines with their newlines is one
   of files.

Words that were written or read are remembered, `REMEMBERED` of them at most.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

APART, LEFT, RIGHT, BOTH, ASK = 0, 1, 2, 3, 4
"""Which neighbours a token joins; ASK: a rule decides from the line."""

REMEMBERED = 200_000
LONGEST_SEGMENT = 16

Rule = Callable[[Sequence[str], int, set[str]], int]
"""From the tokens of a line, the place of one, and the quotes open there (the rule's to change) to APART...BOTH."""


class Remembered(dict[str, str]):
    """A function of strings with its results so far; forgets all of them when there are too many."""

    def __init__(self, function: Callable[[str], str]) -> None:
        super().__init__()
        self._function = function

    def __missing__(self, key: str) -> str:
        if len(self) >= REMEMBERED:
            self.clear()
        value = self[key] = self._function(key)
        return value


class Joins:
    """Which tokens of a line belong together."""

    def __init__(self, sides: Mapping[str, int], rules: Mapping[str, Rule], *, clitics: str = "") -> None:
        """`sides`: what always joins; `rules`: what the line decides; others join left if they start with `clitics`."""
        self._sides = dict(sides) | dict.fromkeys(rules, ASK)
        self._rules = dict(rules)
        self._clitics = clitics

    def segments(self, tokens: Sequence[str]) -> list[str]:
        """The tokens, in order, those that belong together with a blank between them."""
        side_of, clitics = self._sides.get, self._clitics
        found: list[str] = []
        quotes: set[str] = set()
        start, join_next = 0, False
        for place, token in enumerate(tokens):
            side = side_of(token)
            if side is None:
                side = LEFT if token[0] == clitics else APART
            elif side == ASK:
                side = self._rules[token](tokens, place, quotes)
            if place and not ((join_next or side & LEFT) and place - start < LONGEST_SEGMENT):
                found.append(tokens[start] if place - start == 1 else " ".join(tokens[start:place]))
                start = place
            join_next = side >= RIGHT
        found.append(" ".join(tokens[start:]))
        return found


class ReversibleDetokenizer:
    """De-tokenizes lines word by word; see the module."""

    def __init__(
        self,
        name: str,
        version: int,
        *,
        joins: Joins,
        join: Callable[[str], str],
        split: Callable[[str], str],
        padded: bool,
    ) -> None:
        """`padded`: raw lines have a blank before the first and after the last token, as in the published files."""
        self.name = name
        self.version = version
        self._joins = joins
        self._join = join
        self._written = Remembered(self._write)
        self._read = Remembered(split)
        self._usual_blanks = int(padded)

    def text(self, raw: str) -> str:
        """Natural text of raw lines."""
        *lines, rest = raw.split("\n")
        texts = [self._text_of_line(line) for line in lines]
        return "\n".join([*texts, self._text_of_line(rest) if rest.strip(" ") else rest])

    def raw(self, text: str) -> str:
        """The raw lines that `text` was made of."""
        *lines, rest = text.split("\n")
        raws = [self._raw_of_line(line) for line in lines]
        return "\n".join([*raws, self._raw_of_line(rest) if rest.strip(" ") else rest])

    def awkward(self, raw: str) -> Iterator[str]:
        """The segments of raw text that are not one unmarked word: what kept an unnatural form."""
        for body in filter(None, (line.strip(" ") for line in raw.split("\n"))):
            for chunk in re.split(" {2,}", body):
                yield from (s for s in self._joins.segments(chunk.split(" ")) if " " in self._written[s])

    def _write(self, segment: str) -> str:
        """A segment as words with a blank between them, and one before each that is marked."""
        tokens = segment.split(" ")
        if (word := self._part(tokens)) is not None:
            return word
        best = [""]  # the first 0, 1, ... tokens written with the fewest blanks, of which one comes first
        for end in range(1, len(tokens) + 1):
            parts = ((best[start], self._part(tokens[start:end])) for start in range(end))
            options = [f"{before} {part}" for before, part in parts if part is not None]
            best.append(min(options, key=lambda option: option.count(" ")))
        return best[-1][1:]

    def _part(self, tokens: Sequence[str]) -> str | None:
        """Tokens as one word, marked only if it must be; None if they cannot be."""
        segment = " ".join(tokens)
        if self._reads(word := self._join(segment), segment):
            return word
        if len(tokens) > 1:
            return None
        return segment if self._reads(segment, segment) else " " + segment

    def _reads(self, word: str, segment: str) -> bool:
        """Whether an unmarked word gives the segment."""
        return bool(word) and " " not in word and "\n" not in word and self._read[word] == segment

    def _at_an_end(self, blanks: int) -> int:
        """Blanks at an end of a line: the usual number and none change places."""
        return self._usual_blanks - blanks if blanks <= self._usual_blanks else blanks

    def _text_of_line(self, line: str) -> str:
        body = line.strip(" ")
        if not body:
            return " " * self._at_an_end(len(line))
        before = len(line) - len(line.lstrip(" "))
        after = len(line) - before - len(body)
        parts = re.split("( {2,})", body) if "  " in body else [body]
        for place, part in enumerate(parts):
            if place % 2:
                parts[place] = " " * (2 * len(part) - 1)
            else:
                parts[place] = " ".join(map(self._written.__getitem__, self._joins.segments(part.split(" "))))
        return " " * (2 * self._at_an_end(before)) + "".join(parts) + " " * self._at_an_end(after)

    def _raw_of_line(self, line: str) -> str:
        body = line.strip(" ")
        if not body:
            return " " * self._at_an_end(len(line))
        before, marked = divmod(len(line) - len(line.lstrip(" ")), 2)
        after = len(line) - len(line.rstrip(" "))
        ends = " " * self._at_an_end(before), " " * self._at_an_end(after)
        if "  " not in body and not marked:
            return ends[0] + " ".join(map(self._read.__getitem__, body.split(" "))) + ends[1]
        parts = re.split("( +)", body)
        for place, part in enumerate(parts):
            if place % 2:
                marked = len(part) % 2 == 0
                parts[place] = " " * ((len(part) + 1) // 2)
            elif not marked:
                parts[place] = self._read[part]
        return ends[0] + "".join(parts) + ends[1]
