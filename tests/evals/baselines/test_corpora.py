"""The benchmark corpora themselves: published counts and perplexities."""

import math
from functools import cache
from pathlib import Path

import pytest

from evals.baselines import KneserNey, Uniform, Words, read_lines
from evals.baselines.baseline import Ids
from tests.evals.baselines.corpora import corpus_file


@cache
def read(train: Path, test: Path) -> tuple[Words, Ids, Ids]:
    lines = read_lines(train)
    words = Words.of(lines)
    return words, words.ids(lines), words.ids(read_lines(test))


def penn_treebank() -> tuple[Words, Ids, Ids]:
    return read(corpus_file("ptb/ptb.train.txt.gz"), corpus_file("ptb/ptb.test.txt.gz"))


def wikitext2() -> tuple[Words, Ids, Ids]:
    return read(corpus_file("wikitext2/wiki.train.tokens.gz"), corpus_file("wikitext2/wiki.test.raw.gz"))


def test_penn_treebank_has_its_published_counts() -> None:
    words, train, test = penn_treebank()
    assert (words.size, len(train), len(test)) == (10_000, 929_589, 82_430)


def test_wikitext2_has_its_published_counts() -> None:
    words, train, test = wikitext2()
    assert (words.size, len(train), len(test)) == (33_278, 2_088_628, 245_569)


@pytest.mark.parametrize(("order", "published"), [(3, 148.3), (5, 141.2)])
def test_penn_treebank_has_the_published_perplexity(order: int, published: float) -> None:
    """Mikolov, Statistical Language Models Based on Neural Networks (thesis, 2012), Table 4.1: KN3 and KN5."""
    words, train, test = penn_treebank()
    model = KneserNey(order).fit(train, vocabulary_size=words.size, end_of_line=words.end_of_line)
    assert round(math.exp(model.nats(test).mean()), 1) == published
    assert model.describe()["fixed_discounts_at"] == []


def test_wikitext2_perplexity_stays() -> None:
    """No published figure is known to us; this one is what the model that has Penn Treebank's gives."""
    words, train, test = wikitext2()
    model = KneserNey(5).fit(train, vocabulary_size=words.size, end_of_line=words.end_of_line)
    perplexity = math.exp(model.nats(test).mean())
    assert round(perplexity, 1) == 220.1
    assert perplexity < math.exp(Uniform(words.size).nats(test).mean())
