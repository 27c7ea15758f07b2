"""Scoring with a fitted n-gram model: parts add up, lines are apart, files come back."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.config import BadInput
from evals.baselines import Baseline, KneserNey, NGramModel, Uniform
from tests.evals.baselines.corpora import SMALL_CORPORA, SmallCorpus
from tests.evals.baselines.test_kneser_ney import each_corpus, fitted


@each_corpus
def test_continuations_add_up_to_the_text(corpus: SmallCorpus) -> None:
    model, text = fitted(corpus), corpus.unseen_text()
    nats = model.nats(text)
    for cut in range(0, len(text) + 1, 4):
        assert model.log_prob(text[:cut], text[cut:]) == pytest.approx(-nats[cut:].sum(), abs=1e-12)


@each_corpus
def test_the_next_token_has_the_probability_of_a_continuation(corpus: SmallCorpus) -> None:
    model, text = fitted(corpus), corpus.unseen_text()
    for cut in range(12):
        one_by_one = [model.log_prob(text[:cut], [token]) for token in range(corpus.vocabulary_size)]
        np.testing.assert_allclose(model.next_log_probs(text[:cut]), one_by_one, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_any_integers_are_ids(dtype: type) -> None:
    corpus = SMALL_CORPORA[7]
    model = KneserNey(corpus.order).fit(corpus.ids().astype(dtype), vocabulary_size=8, end_of_line=0)
    np.testing.assert_array_equal(
        model.nats(corpus.unseen_text().astype(dtype)), fitted(corpus).nats(corpus.unseen_text())
    )


@pytest.mark.parametrize("corpus", [c for c in SMALL_CORPORA if c.end_of_line is not None], ids=str)
def test_a_line_does_not_see_the_one_before(corpus: SmallCorpus) -> None:
    model, line, end = fitted(corpus), corpus.unseen_text()[:9], corpus.end_of_line
    together = model.nats(np.concatenate(([2, 1, end], line)))
    np.testing.assert_array_equal(together[3:], model.nats(line))


def test_the_order_of_lines_does_not_matter() -> None:
    corpus = next(c for c in SMALL_CORPORA if c.order == 5 and c.num_tokens == 200)
    ids = np.append(corpus.ids(), corpus.end_of_line)
    lines = np.split(ids, np.flatnonzero(ids == corpus.end_of_line) + 1)
    turned = KneserNey(5).fit(np.concatenate(lines[::-1]), vocabulary_size=5, end_of_line=corpus.end_of_line)
    model = KneserNey(5).fit(ids, vocabulary_size=5, end_of_line=corpus.end_of_line)
    np.testing.assert_array_equal(turned.nats(corpus.unseen_text()), model.nats(corpus.unseen_text()))


def test_across_lines_the_end_is_a_token_like_others() -> None:
    """The last token before the end tells the first after it."""
    ids = [1, 0, 1, 2, 0, 2] * 40
    across = KneserNey(3).fit(ids, vocabulary_size=4)
    within = KneserNey(3).fit(ids, vocabulary_size=4, end_of_line=0)
    assert across.log_prob([2, 1, 0], [1]) > -0.1
    assert within.log_prob([2, 1, 0], [1]) == within.log_prob([], [1]) < -0.5


def test_nothing_costs_nothing() -> None:
    model = fitted(SMALL_CORPORA[3])
    assert model.nats([]).shape == (0,)
    assert model.log_prob([1, 2], []) == 0
    assert model.log_prob([], []) == 0


@each_corpus
def test_stored_and_loaded_it_scores_the_same_bits(corpus: SmallCorpus, tmp_path: Path) -> None:
    model = fitted(corpus)
    model.save(tmp_path / "model.npz")
    loaded = NGramModel.load(tmp_path / "model.npz")
    assert loaded.describe() == model.describe()
    assert loaded.end_of_line == model.end_of_line
    np.testing.assert_array_equal(loaded.nats(corpus.unseen_text()), model.nats(corpus.unseen_text()))
    np.testing.assert_array_equal(loaded.next_log_probs([1]), model.next_log_probs([1]))


def test_what_is_no_stored_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)
    path.write_bytes(pickle.dumps({"keys": 1}))
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)
    np.savez(path, other=np.arange(3))
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)


def test_a_damaged_or_newer_file_is_refused(tmp_path: Path) -> None:
    """A changed byte is found, unless it is one that nothing depends on (such as a date)."""
    path, corpus = tmp_path / "model.npz", SMALL_CORPORA[7]
    fitted(corpus).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match="no stored n-gram model"):
        NGramModel.load(path)
    found = 0
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            nats = NGramModel.load(path).nats(corpus.unseen_text())
        except BadInput:
            found += 1
        else:
            np.testing.assert_array_equal(nats, fitted(corpus).nats(corpus.unseen_text()))
    assert found > len(whole) // 97 // 2
    np.savez(path, description=np.array([99, 0, 5, 0]))
    with pytest.raises(BadInput, match="format 99"):
        NGramModel.load(path)


@pytest.mark.parametrize("model", [fitted(SMALL_CORPORA[4]), Uniform(12)], ids=["5-gram", "uniform"])
def test_what_a_baseline_says(model: Baseline) -> None:
    assert json.loads(json.dumps(model.describe())) == model.describe()
    assert model.next_log_probs([3]).shape == (model.vocabulary_size,)
    for wrong in ([12], [-1], [0.5], [[1]]):
        with pytest.raises(BadInput, match="context"):
            model.log_prob(wrong, [1])
        with pytest.raises(BadInput, match="continuation"):
            model.log_prob([1], wrong)
        with pytest.raises(BadInput, match="ids"):
            model.nats(wrong)
