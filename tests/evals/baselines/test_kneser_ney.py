"""Modified Kneser-Ney is a distribution, and the paper's one."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from data_pipeline.config import BadInput
from evals.baselines import KneserNey, NGramModel, kneser_ney
from evals.baselines.kneser_ney import FIXED_DISCOUNTS, NGrams, discounts
from tests.evals.baselines.corpora import SMALL_CORPORA, SmallCorpus
from tests.evals.baselines.direct_kneser_ney import DirectKneserNey

each_corpus = pytest.mark.parametrize("corpus", SMALL_CORPORA, ids=str)


def fitted(corpus: SmallCorpus) -> NGramModel:
    return KneserNey(corpus.order).fit(
        corpus.ids(), vocabulary_size=corpus.vocabulary_size, end_of_line=corpus.end_of_line
    )


def direct(corpus: SmallCorpus) -> DirectKneserNey:
    return DirectKneserNey(
        corpus.ids().tolist(),
        order=corpus.order,
        vocabulary_size=corpus.vocabulary_size,
        end_of_line=corpus.end_of_line,
    )


def histories(corpus: SmallCorpus) -> Iterator[tuple[int, ...]]:
    """Every context of up to two tokens, the corpus's own of any length, and random ones, most of them unseen."""
    ids, random = corpus.ids().tolist(), np.random.default_rng(corpus.seed)
    for length in range(3):
        yield from itertools.islice(itertools.product(range(corpus.vocabulary_size), repeat=length), 150)
    for length in range(corpus.order + 2):
        yield from {tuple(ids[place : place + length]) for place in range(len(ids) - length)}
        yield from map(tuple, random.integers(0, corpus.vocabulary_size, (20, length)).tolist())


@each_corpus
def test_probabilities_after_every_history_add_up_to_one(corpus: SmallCorpus) -> None:
    model = fitted(corpus)
    for history in histories(corpus):
        p_V = np.exp(model.next_log_probs(history))
        assert p_V.shape == (corpus.vocabulary_size,)
        assert (p_V > 0).all()
        assert abs(p_V.sum() - 1) < 1e-12, history


@each_corpus
def test_equal_to_the_formulas_on_seen_and_unseen_text(corpus: SmallCorpus) -> None:
    model, specification = fitted(corpus), direct(corpus)
    for text in (corpus.ids(), corpus.unseen_text()):
        np.testing.assert_allclose(np.exp(-model.nats(text)), specification.probabilities(text.tolist()), rtol=1e-12)


@each_corpus
def test_equal_to_the_formulas_after_every_history(corpus: SmallCorpus) -> None:
    model, specification = fitted(corpus), direct(corpus)
    for history in itertools.islice(histories(corpus), 0, None, 7):
        expected = specification.next_probabilities(history)
        np.testing.assert_allclose(np.exp(model.next_log_probs(history)), expected, rtol=1e-12, err_msg=str(history))


def test_the_corpora_have_estimated_and_fixed_discounts() -> None:
    """Else the comparisons would leave one of them out."""
    estimated = [level.estimated for corpus in SMALL_CORPORA for level in fitted(corpus).levels]
    assert 5 < sum(estimated) < len(estimated) - 5


@pytest.mark.parametrize("corpus", [c for c in SMALL_CORPORA if c.order > 1 and c.num_tokens > 2], ids=str)
def test_raw_counts_in_lower_orders_are_found(corpus: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual mistake: still a distribution, but not Kneser-Ney's."""

    def raw_counts(ngrams: NGrams, one_longer: NGrams) -> np.ndarray:
        return ngrams.occurrences

    monkeypatch.setattr(kneser_ney, "continuation_counts", raw_counts)
    mistaken, text = fitted(corpus), corpus.unseen_text()
    assert abs(np.exp(mistaken.next_log_probs([])).sum() - 1) < 1e-12
    expected = direct(corpus).probabilities(text.tolist())
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(np.exp(-mistaken.nats(text)), expected, rtol=1e-3)
    specification = direct(corpus)
    specification.counts = "raw"  # the same mistake there: equal again
    np.testing.assert_allclose(np.exp(-mistaken.nats(text)), specification.probabilities(text.tolist()), rtol=1e-12)


def test_order_one_in_closed_form() -> None:
    """Counts 1, 1, 1, 2, 2, 3, 4, 6, 0: n_1 .. n_4 = 3, 2, 1, 1, so Y = 3 / 7."""
    counts = np.array([1, 1, 1, 2, 2, 3, 4, 6, 0])
    model = KneserNey(order=1).fit(np.repeat(np.arange(9), counts), vocabulary_size=9)
    d1, d2, d3 = 1 - 2 * (3 / 7) * 2 / 3, 2 - 3 * (3 / 7) * 1 / 2, 3 - 4 * (3 / 7) * 1 / 1
    np.testing.assert_allclose(model.levels[0].discounts, [d1, d2, d3], rtol=1e-14)
    gamma = (3 * d1 + 2 * d2 + 3 * d3) / 20
    taken = np.array([d1, d1, d1, d2, d2, d3, d3, d3, 0])
    expected = (counts - taken) / 20 + gamma / 9
    np.testing.assert_allclose(np.exp(model.next_log_probs([4, 2])), expected, rtol=1e-14)
    np.testing.assert_allclose(model.nats([8, 0, 7]), -np.log(expected[[8, 0, 7]]), rtol=1e-14)


def test_a_bigram_by_hand() -> None:
    """Lines `a b`, `a b`, `a c`, fixed discounts. Before a: the start; before b, c: a; before the end: b and c."""
    end, a, b, c, unseen = range(5)
    model = KneserNey(order=2).fit([a, b, end, a, b, end, a, c, end], vocabulary_size=5, end_of_line=end)
    single = np.array([(2 - 1) / 5, (1 - 0.5) / 5, (1 - 0.5) / 5, (1 - 0.5) / 5, 0]) + (1 + 3 * 0.5) / 5 / 5
    after_a = np.array([0, 0, 2 - 1, 1 - 0.5, 0]) / 3 + (1 + 0.5) / 3 * single
    after_start = np.array([0, 3 - 1.5, 0, 0, 0]) / 3 + 1.5 / 3 * single
    np.testing.assert_allclose(np.exp(model.next_log_probs([a])), after_a, rtol=1e-14)
    np.testing.assert_allclose(np.exp(model.next_log_probs([])), after_start, rtol=1e-14)
    np.testing.assert_allclose(np.exp(model.next_log_probs([a, b, end])), after_start, rtol=1e-14)
    np.testing.assert_allclose(np.exp(model.next_log_probs([a, unseen])), single, rtol=1e-14)


def test_a_word_of_one_context_is_unlikely_elsewhere() -> None:
    """ "Francisco" is as frequent as "glasses", but always after "San" (the reason for continuation counts)."""
    san, francisco, glasses, *others = range(10)
    ids = [token for other in others for token in (other, glasses, san, francisco)]
    after_unknown = KneserNey(order=2).fit(ids, vocabulary_size=11).next_log_probs([10])
    assert after_unknown[glasses] > after_unknown[francisco] + 1


@pytest.mark.parametrize(
    ("numbers", "why"),
    [
        ((0, 3, 2, 1), "no n_1"),
        ((3, 0, 2, 1), "no n_2"),
        ((3, 2, 0, 1), "no n_3"),
        ((3, 2, 1, 0), "no n_4"),
        ((9, 1, 4, 1), "D_2 below zero"),
        ((9, 4, 1, 9), "D_3+ below zero"),
        ((6, 3, 2, 3), "D_3+ is zero"),
    ],
)
def test_discounts_that_cannot_be_estimated_are_fixed(numbers: tuple[int, ...], why: str) -> None:
    found, estimated = discounts(np.repeat([1, 2, 3, 4], numbers))
    assert not estimated, why
    assert tuple(found) == FIXED_DISCOUNTS


def test_counts_above_four_do_not_move_discounts() -> None:
    few, _ = discounts(np.repeat([1, 2, 3, 4], (30, 12, 6, 4)))
    more, estimated = discounts(np.repeat([1, 2, 3, 4, 5, 90], (30, 12, 6, 4, 7, 2)))
    assert estimated
    assert (few == more).all()
    assert ((few > 0) & (few < [1, 2, 3])).all()


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([], {}, "empty"),
        ([0, 5], {}, "5 is outside"),
        ([0, -1], {}, "-1 is outside"),
        ([0.5], {}, "integers"),
        ([[0, 1]], {}, "one text at a time"),
        ([0], {"end_of_line": 5}, "end_of_line"),
        ([0], {"vocabulary_size": 0}, "vocabulary_size"),
    ],
)
def test_bad_input_is_named(ids: list, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        KneserNey(order=3).fit(ids, **({"vocabulary_size": 5} | options))


def test_an_order_below_one_is_refused() -> None:
    with pytest.raises(BadInput, match="order"):
        KneserNey(order=0)
