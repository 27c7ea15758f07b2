"""Lines made to break de-tokenizers."""
# ruff: noqa: RUF001

import random
from collections.abc import Iterator

WORDS = """
the a Mr. Jr. U.S. U.S c. v. B B. foo. foo.bar O'Brien 'Brien 's 're n't ca don't cannot can not wo ' '' ` `` " ""
“ ” ‘ ’ - -- --- -a a- a.- a-b @-@ @,@ @.@ @ @@ @-@-@ a@-@b , . .. ... .... ; : ! ? ( ) [ ] { } % $ # & c$ us$ US $N N$
N #N <unk> <unk <formula> unk> < > <unk>. <unk><unk> 1,<unk> <unk>.5 1 2 000 1,000 3.5 1,000th T4.5 5'd 1.e4
= == \\ / \\/ \\* * – — ‑ − + × ° C F ² ½ ⁄ ′ ″ é 東京 😀 '80s 80s s t em rock'n'roll u.s. x's's 's's n'tn't ''s s& at&t
-5 .5 5.
"""
ODD_CHARACTERS = "\u3000\xa0\t\r\x0b\x1c\x85\u2028\ufeff\u200b\x00\udc80"
TOKENS = [*WORDS.split(), *ODD_CHARACTERS]
GAPS = [" "] * 12 + ["", "", "  ", "   ", "    ", "\n", " \n", " \n "]
CHARACTERS = " \n'\"-@,.()$#N<unk>/\\*1sa=& "


def lines(count: int, *, seed: int) -> Iterator[str]:
    """`count` strings: tokens with all kinds of gaps, headings, and, one in three, characters without order."""
    chance = random.Random(seed)
    for number in range(count):
        if number % 3 == 0:
            yield "".join(chance.choices(CHARACTERS, k=chance.randrange(26)))
            continue
        line = " " * chance.randrange(4)
        line += "".join(chance.choice(TOKENS) + chance.choice(GAPS) for _ in range(chance.randrange(15)))
        yield f" = ={line}= = \n" if number % 30 == 1 else line
