"""WikiText: whole files come back, and the text is as one would write it."""
# ruff: noqa: RUF001

import pytest

from evals.detokenizers import WikiText, round_trip
from tests.evals.benchmark_data import benchmark_text

EXAMPLES = {
    " = Valkyria Chronicles III = \n": "= Valkyria Chronicles III =\n",
    " = = = Music = = = \n": "=== Music ===\n",
    " \n": "\n",
    " two @-@ part , 1 @,@ 000 @,@ 000 and 3 @.@ 5 % ; \n": "two-part, 1,000,000 and 3.5%;\n",
    " the game 's \" Nameless \" ( 24 in ) , by O 'Brien . \n": "the game's \"Nameless\" (24 in), by O'Brien.\n",
    ' He said , " I don \'t " . \n': 'He said, "I don\'t".\n',
    " the Knights ' coach in the ' 80s \n": "the Knights' coach in the '80s\n",
    " the word ' foo ' and ' B ' Company \n": "the word 'foo' and 'B' Company\n",
    ' " Foo ! " \' s U.S. @-@ based <unk> . \n': '"Foo!"\'s U.S.-based <unk>.\n',
    " Dr. J. Smith of the U.S. and No. 1 . \n": "Dr. J. Smith of the U.S. and No. 1.\n",
    " it ’ s “ one ” of O ’ Dell \n": "it’s “one” of O’Dell\n",
    " 5 – 6 , red – green , 54 km / h at 10 : 30 \n": "5–6, red – green, 54 km/h at 10:30\n",
    " US $ 400 or £ 3 , 32 ° F , − 18 ° C , R & B , A & Foo , # 1 \n": "US$400 or £3, 32°F, −18°C, R&B, A & Foo, #1\n",
    " at − 5 , 7 − 3 , n + 1 and the + 2 state \n": "at −5, 7 − 3, n + 1 and the +2 state\n",
    " so — it seems — <unk> @-@ <unk> ... \n": "so—it seems—<unk>-<unk>...\n",
    # What the words alone do not tell: left apart, or marked by a second blank.
    " Jean-Paul , foo. bar \n": " Jean-Paul ,  foo. bar\n",
    " Smith Jr . went , Smith Jr. went , Smith Jr . , \n": "Smith Jr . went, Smith Jr. went, Smith Jr.,\n",
    " ( 1 @.@  hrvatski zdrug ) \n": "(1 @.@   hrvatski zdrug)\n",
    "no blanks": "  no blanks ",
}


@pytest.mark.parametrize(("raw", "text"), EXAMPLES.items())
def test_examples(raw: str, text: str) -> None:
    assert WikiText().text(raw) == text
    assert WikiText().raw(text) == raw


def test_stripped_lines() -> None:
    assert WikiText(padded=False).text("a two @-@ part line .") == "a two-part line."
    assert WikiText(padded=False).raw("a two-part line.") == "a two @-@ part line ."
    assert WikiText(padded=False).name != WikiText().name


@pytest.mark.parametrize(
    "name",
    [
        "wikitext2/wiki.train.tokens",
        "wikitext2/wiki.valid.tokens",
        "wikitext2/wiki.test.raw",
        "wikitext103/wiki.valid.tokens",
    ],
)
def test_whole_files(name: str) -> None:
    raw, detokenizer = benchmark_text(name), WikiText()
    lines = raw.splitlines(keepends=True)
    assert "".join(lines) == raw
    assert round_trip(detokenizer, lines).verdict == f"invertible: all {len(lines):,} pieces came back unchanged"
    assert round_trip(detokenizer, [raw]).failed == 0
    awkward = sum(1 for _ in detokenizer.awkward(raw))
    assert awkward < 2e-4 * len(raw.split()), "measured: 0.6e-4 to 0.9e-4"
