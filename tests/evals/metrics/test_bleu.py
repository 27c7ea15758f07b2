"""BLEU by hand, and its error against leaving sentences out."""

import math
import sys

import pytest

from data_pipeline.config import BadInput
from evals.metrics.bleu import corpus_bleu

sacrebleu = pytest.importorskip("sacrebleu")

HYPOTHESES = ["the cat sat on the mat .", "a dog barked", "it is raining today , they say", "no one knows why ."]
REFERENCES = [
    ["the cat sat on a mat .", "there was a cat on the mat ."],
    ["the dog barked loudly .", "a dog was barking ."],
    ["they say it is raining today .", "it rains today , they say ."],
    ["nobody knows why .", "no one knows why ."],
]


def test_by_hand() -> None:
    """5 tokens against 6: matches 4 of 5, 2 of 4, 1 of 3, and none of 2, which smoothing makes half a match."""
    found = corpus_bleu(["a b c x e"], [["a b c d e f"]], protocol={})
    precision = (4 / 5) * (2 / 4) * (1 / 3) * (0.5 / 2)
    assert found.value == pytest.approx(100 * math.exp(1 - 6 / 5) * precision**0.25, abs=1e-10)
    assert found.stderr is None


def test_the_signature_stands_in_the_protocol() -> None:
    found = corpus_bleu(HYPOTHESES, REFERENCES, lowercase=True, protocol={"split": "test"})
    assert found.protocol["split"] == "test"
    assert found.protocol["sacrebleu"] == f"nrefs:2|case:lc|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    plain = corpus_bleu(HYPOTHESES, REFERENCES, tokenizer="none", protocol={})
    assert "tok:none" in plain.protocol["sacrebleu"]


def test_the_error_is_that_of_leaving_sentences_out() -> None:
    found = corpus_bleu(HYPOTHESES, REFERENCES, protocol={})
    without = []
    for i in range(len(HYPOTHESES)):
        rest = [j for j in range(len(HYPOTHESES)) if j != i]
        streams = [[REFERENCES[j][stream] for j in rest] for stream in range(2)]
        without.append(sacrebleu.corpus_bleu([HYPOTHESES[j] for j in rest], streams).score)
    mean = sum(without) / len(without)
    variance = (len(without) - 1) / len(without) * sum((one - mean) ** 2 for one in without)
    assert found.value == sacrebleu.corpus_bleu(HYPOTHESES, list(zip(*REFERENCES, strict=True))).score
    assert found.stderr == pytest.approx(math.sqrt(variance), abs=1e-10)
    assert found.count == 4


def test_without_sacrebleu_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    with pytest.raises(BadInput, match=r'pip install "segue\[translation\]"'):
        corpus_bleu(HYPOTHESES, REFERENCES, protocol={})


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="4 hypotheses, 3 references"):
        corpus_bleu(HYPOTHESES, REFERENCES[:3], protocol={})
    with pytest.raises(BadInput, match="same number"):
        corpus_bleu(HYPOTHESES, [*REFERENCES[:3], ["one"]], protocol={})
    with pytest.raises(BadInput, match="same number"):
        corpus_bleu(["ab"], ["ab"], protocol={})
    with pytest.raises(BadInput, match="tokenizer 'moses'"):
        corpus_bleu(HYPOTHESES, REFERENCES, tokenizer="moses", protocol={})
