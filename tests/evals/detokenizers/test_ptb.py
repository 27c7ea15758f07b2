"""Penn Treebank: whole files come back, and the text is as one would write it."""

import pytest

from evals.detokenizers import PennTreebank, round_trip
from tests.evals.benchmark_data import benchmark_text

EXAMPLES = {
    " no it was n't black monday \n": "no it wasn't black monday\n",
    " he ca n't and wo n't say they 're <unk> \n": "he can't and won't say they're <unk>\n",
    " standard & poor 's 500-stock index \n": "standard & poor's 500-stock index\n",
    " the pilots ' plan for $ N million or us$ N \n": "the pilots' plan for $N million or us$N\n",
    " up # N billion since the '80s \n": "up #N billion since the '80s\n",
    " they can not be at&t or o'brien \n": "they cannot be at&t or o'brien\n",
    " capital cities\\/abc \\* N 1\\/2-year \n": "capital cities/abc * N 1/2-year\n",
    # What the words alone do not tell: left apart, or marked by a second blank.
    " they cannot and don't \n": "they  cannot and  don't\n",
    " ' quoted ' \n": "' quoted'\n",
    " a/b \n": " a/b\n",
    " \n": "\n",
}


@pytest.mark.parametrize(("raw", "text"), EXAMPLES.items())
def test_examples(raw: str, text: str) -> None:
    assert PennTreebank().text(raw) == text
    assert PennTreebank().raw(text) == raw


def test_stripped_lines() -> None:
    assert PennTreebank(padded=False).text("it did n't") == "it didn't"
    assert PennTreebank(padded=False).raw("it didn't") == "it did n't"


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_whole_files(split: str) -> None:
    raw, detokenizer = benchmark_text(f"ptb/ptb.{split}.txt"), PennTreebank()
    lines = raw.splitlines(keepends=True)
    assert "".join(lines) == raw
    assert round_trip(detokenizer, lines).verdict == f"invertible: all {len(lines):,} pieces came back unchanged"
    assert round_trip(detokenizer, [raw]).failed == 0
    assert list(detokenizer.awkward(raw)) == [], "nothing keeps an unnatural form"
