"""Cutting text where GPT-2's pattern, and whatever divides at white space, cannot tell.

That pattern, `'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+`, never looks back, and
begins a new token at a white space that something else follows: of several it leaves the last one out. So both sides of
a cut there are divided as they were. U+001C to U+001F, white space for Python alone, are taken for neither.
"""

import re
from collections.abc import Iterator

BOUNDARY = re.compile(r"[ \t\r\n](?=\S)")

LONGEST_RUN = 1 << 20
"""Characters. Within text that has no boundary for longer than that, words end there: memory is to be bounded."""


def divided(text: str, length: int, longest: int | None = None) -> Iterator[str]:
    """The text in parts of at least `length` characters, cut at boundaries; and at `longest`, where none comes before.

    >>> list(divided("to be, or not", 3)), list(divided("aaaaaaa b", 2, 5))
    (['to be,', ' or', ' not'], ['aaaaa', 'aa', ' b'])
    """
    start = 0
    while len(text) - start > length:
        stop = len(text) if longest is None else min(start + longest, len(text))
        boundary = BOUNDARY.search(text, start + length, stop)
        if boundary is None and stop == len(text):
            break
        end = stop if boundary is None else boundary.start()
        yield text[start:end]
        start = end
    yield text[start:]
