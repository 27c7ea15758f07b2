"""Corpus BLEU through sacrebleu (Post 2018, https://aclanthology.org/W18-6319), whose signature is the protocol."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_pipeline.config import BadInput
from evals.metric import Metric

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU

ORDER = 4


def corpus_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenizer: str = "13a",
    lowercase: bool = False,
    protocol: Mapping[str, Any],
) -> Metric:
    """`bleu`, 0 to 100, of de-tokenized text; `references` are those of each hypothesis, equally many for all.

    The error is that of leaving out one sentence at a time (jackknife). Raises BadInput without sacrebleu.
    """
    _check(hypotheses, references)
    bleu = _scorer(tokenizer, lowercase)
    streams = [list(stream) for stream in zip(*references, strict=True)]
    value = bleu.corpus_score(list(hypotheses), streams).score
    known = {**protocol, "sacrebleu": str(bleu.get_signature())}
    error = _jackknife_error(_scorer(tokenizer, lowercase, sentences=True), hypotheses, references)
    return Metric("bleu", value, "BLEU", "higher", len(hypotheses), error, known)


def _scorer(tokenizer: str, lowercase: bool, *, sentences: bool = False) -> "BLEU":
    """Of a corpus; or of single sentences, whose matches are the same and whose score, unused here, is another."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError as error:
        raise BadInput('BLEU needs sacrebleu, which is not installed: pip install "segue[translation]"') from error
    if tokenizer not in BLEU.TOKENIZERS:
        raise BadInput(f"tokenizer {tokenizer!r}: sacrebleu has {', '.join(sorted(BLEU.TOKENIZERS))}")
    return BLEU(tokenize=tokenizer, lowercase=lowercase, max_ngram_order=ORDER, effective_order=sentences)


def _jackknife_error(bleu: "BLEU", hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float | None:
    """sqrt((n - 1) / n sum_i (b_i - mean b)^2), b_i the BLEU of all but sentence i; None of fewer than two."""
    count = len(hypotheses)
    if count < 2:
        return None
    rows = [_statistics(bleu, hypothesis, own) for hypothesis, own in zip(hypotheses, references, strict=True)]
    sums = [sum(column) for column in zip(*rows, strict=True)]
    without = [_score(bleu, [total - part for total, part in zip(sums, row, strict=True)]) for row in rows]
    mean = math.fsum(without) / count
    return math.sqrt((count - 1) / count * math.fsum((one - mean) ** 2 for one in without))


def _statistics(bleu: "BLEU", hypothesis: str, references: Sequence[str]) -> list[int]:
    """Matches and totals of each order, and the two lengths: what a corpus adds up."""
    score = bleu.sentence_score(hypothesis, list(references))
    return [*score.counts, *score.totals, score.sys_len, score.ref_len]


def _score(bleu: "BLEU", statistics: Sequence[int]) -> float:
    matches, totals = list(statistics[:ORDER]), list(statistics[ORDER : 2 * ORDER])
    return float(
        bleu.compute_bleu(matches, totals, statistics[-2], statistics[-1], smooth_method=bleu.smooth_method).score
    )


def _check(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references):
        raise BadInput(f"{len(hypotheses)} hypotheses, {len(references)} references: equally many, and at least one")
    numbers = {len(own) for own in references}
    if len(numbers) != 1 or 0 in numbers or any(isinstance(own, str) for own in references):
        raise BadInput(
            f"hypotheses have {sorted(numbers)} references; each must have a list of the same number of them"
        )
