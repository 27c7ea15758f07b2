"""Interpolated modified Kneser-Ney smoothing.

Chen & Goodman 1999, "An empirical study of smoothing techniques for language modeling", Computer Speech and Language
13(4); the lower orders are those of Kneser & Ney 1995.

With c(hw) the count of a k-gram, h its history, and D the discounts of order k:

    alpha(hw) = (c(hw) - D(c(hw))) / sum_w' c(hw')
    gamma(h)  = (D_1 N_1(h.) + D_2 N_2(h.) + D_3+ N_3+(h.)) / sum_w' c(hw')

where N_i(h.) is how many words followed h exactly i times (N_3+: three times or more). In the highest order c is the
number of occurrences; below it is the number of different tokens (or the start of a line) that came before the k-gram,
N_1+(.hw). A k-gram that begins with the start of a line has nothing before it and keeps its number of occurrences. With
n_i the number of k-grams whose c is i:

    Y = n_1 / (n_1 + 2 n_2),   D_1 = 1 - 2 Y n_2 / n_1,   D_2 = 2 - 3 Y n_3 / n_2,   D_3+ = 3 - 4 Y n_4 / n_3

Where one of n_1 .. n_4 is zero, or a D_i is not above 0 (it is always below i), the order takes `FIXED_DISCOUNTS`: so
it is in tiny corpora. A discount of zero could leave nothing over for unseen words.

On the Penn Treebank (10,000 words, lines apart, ends of lines counted) the test perplexity is 141.19 at order 5 and
148.28 at order 3. Mikolov's thesis (Statistical Language Models Based on Neural Networks, 2012, Table 4.1) has 141.2
and 148.3.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from data_pipeline.config import BadInput
from evals.baselines.baseline import Floats, Ids, checked_ids, checked_vocabulary_size
from evals.baselines.ngram_model import MISSING, Level, NGramModel, with_starts

FIXED_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class NGrams:
    """The different k-grams of a text."""

    keys: Ids
    """[num_k], ascending: (number of the history) * V + last token."""
    occurrences: Ids
    """[num_k]."""
    suffix: Ids
    """[num_k]: the number of the (k-1)-gram without the first token; empty for k = 1."""
    number_T: Ids
    """[T]: the number of the k-gram that ends at each position of the text, MISSING where a line is too short."""


def single_tokens(text_T: Ids, *, vocabulary_size: int) -> NGrams:
    """The 1-grams: every token of the vocabulary; only counts and numbers have the start of a line too, as the last."""
    occurrences = np.bincount(text_T, minlength=vocabulary_size + 1)
    return NGrams(np.arange(vocabulary_size), occurrences, np.empty(0, dtype=np.int64), text_T)


def longer(shorter: NGrams, text_T: Ids, *, vocabulary_size: int) -> NGrams:
    """The k-grams of a text, by sorting, from its (k-1)-grams."""
    prefix_T = np.concatenate(([MISSING], shorter.number_T[:-1]))
    (places,) = np.nonzero((prefix_T != MISSING) & (text_T < vocabulary_size))
    all_keys = prefix_T[places] * vocabulary_size + text_T[places]
    keys, first, inverse, occurrences = np.unique(all_keys, return_index=True, return_inverse=True, return_counts=True)
    number_T = np.full(len(text_T), MISSING)
    number_T[places] = inverse
    return NGrams(keys, occurrences, shorter.number_T[places[first]], number_T)


def continuation_counts(ngrams: NGrams, one_longer: NGrams) -> Ids:
    """N_1+(.hw), how many different things came before each k-gram; its occurrences where nothing can; [num_k]."""
    before = np.bincount(one_longer.suffix, minlength=len(ngrams.occurrences))
    return np.where(before > 0, before, ngrams.occurrences)


def discounts(counts: Ids) -> tuple[Floats, bool]:
    """D_1, D_2, D_3+ for the counts of one order, and whether they were estimated; else they are the fixed ones."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == i)) for i in (1, 2, 3, 4))
    if 0 not in (n1, n2, n3, n4):
        y = n1 / (n1 + 2 * n2)
        estimates = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (estimates > 0).all():
            return estimates, True
    return np.array(FIXED_DISCOUNTS), False


def smoothed(ngrams: NGrams, counts: Ids, *, num_histories: int, vocabulary_size: int) -> Level:
    """alpha and gamma of one order from the counts of its k-grams (see the module)."""
    history = ngrams.keys // vocabulary_size
    counts_said = counts[: len(history)]  # the start of a line is a history only
    discounts_3, estimated = discounts(counts_said)
    removed = np.concatenate(([0.0], discounts_3))[np.minimum(counts_said, 3)]
    total = np.bincount(history, weights=counts_said, minlength=num_histories)
    left_over = np.bincount(history, weights=removed, minlength=num_histories)
    gamma = np.divide(left_over, total, out=np.ones(num_histories), where=total > 0)
    alpha = np.zeros(len(counts))
    alpha[: len(history)] = (counts_said - removed) / total[history]
    return Level(keys=ngrams.keys, alpha=alpha, gamma=gamma, discounts=discounts_3, estimated=estimated)


@dataclass(frozen=True)
class KneserNey:
    """An n-gram model to be estimated.

    >>> model = KneserNey(order=2).fit([1, 2, 1, 3, 1, 2, 0], vocabulary_size=4, end_of_line=0)
    >>> bool(np.isclose(np.exp(model.next_log_probs([1])).sum(), 1))
    True
    """

    order: int = 5

    def __post_init__(self) -> None:
        if self.order < 1:
            raise BadInput(f"order: {self.order}, but an n-gram has at least 1 token")

    def fit(self, ids: ArrayLike, *, vocabulary_size: int, end_of_line: int | None = None) -> NGramModel:
        """The model of a training text; [N] -> model, in O(order N log N).

        `end_of_line` is the token that ends a line: histories do not reach across it, and a line's first token has the
        start of a line as its history. None makes all of the text one line. It is predicted like any other token.
        Raises BadInput for an empty text and for ids outside of the vocabulary.
        """
        checked_vocabulary_size(vocabulary_size)
        if end_of_line is not None:
            checked_ids([end_of_line], vocabulary_size=vocabulary_size, name="end_of_line")
        ids_N = checked_ids(ids, vocabulary_size=vocabulary_size)
        if len(ids_N) == 0:
            raise BadInput("ids: an empty text has no n-grams; give a training text")
        text_T = with_starts(ids_N, vocabulary_size=vocabulary_size, end_of_line=end_of_line)
        levels: list[Level] = []
        ngrams, num_histories = single_tokens(text_T, vocabulary_size=vocabulary_size), 1
        for k in range(1, self.order + 1):
            counts, following = ngrams.occurrences, None
            if k < self.order:
                following = longer(ngrams, text_T, vocabulary_size=vocabulary_size)
                counts = continuation_counts(ngrams, following)
            levels.append(smoothed(ngrams, counts, num_histories=num_histories, vocabulary_size=vocabulary_size))
            if following is not None:
                ngrams, num_histories = following, len(counts)
        return NGramModel(vocabulary_size, end_of_line, tuple(levels))
