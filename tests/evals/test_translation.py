"""Accuracies by hand, latency of known read paths, and nats of a split whatever its batches."""

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from data_pipeline.batch import IGNORED, PairBatch
from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from data_pipeline.streams.pairs import Pairs, Sequences
from data_pipeline.swap_pairs import SwapPairsConfig
from evals.metric import Metric
from evals.pairs import open_pairs, score_pairs
from evals.translation import Translated, longest_output, streaming_nats, translate_pairs, translation_metrics
from pretrain.contract import Loss
from pretrain.group import Group
from tests.processes import run_workers

PAIRS = SwapPairsConfig(kind="swap_pairs", num_symbols=4, min_length=2, max_length=6, num_pairs=10, num_held_out=13)


class Swapper:
    """Translates by the rule, two tokens at a time; wrong in the first token of every third source."""

    def __init__(self) -> None:
        self.asked = 0

    def translate(self, source: Iterable[int], *, max_tokens: int) -> Translated:
        tokens, reads, ids = [], [], iter(source)
        for first, second in zip(ids, ids, strict=True):
            tokens += [second, first]
            reads += [len(tokens)] * 2
        if self.asked % 3 == 2:
            tokens[0] = (tokens[0] + 1) % 4
        self.asked += 1
        return Result(tuple(tokens[:max_tokens]), tuple(reads[:max_tokens]))

    def log_prob(self, batch: PairBatch) -> Tensor:
        """Every label costs its number and one."""
        return -((batch.labels + 1) * (batch.labels != IGNORED)).sum(1).double()


class Result:
    def __init__(self, tokens: tuple[int, ...], reads: tuple[int, ...]) -> None:
        self.tokens, self.reads = tokens, reads


def values(found: list[Translated]) -> dict[str, float]:
    return {metric.name: metric.value for metric in scored(found)}


def scored(
    found: list[Translated], references: list[str] | None = None, unknown: int | None = None
) -> tuple[Metric, ...]:
    return translation_metrics(found, tokens="ids", text=words, references=references, unknown=unknown, protocol={})


WORDS = ["the", "cat", "sat", "on", "mats", "today", "<unk>"]


def words(ids: Sequence[int]) -> str:
    return " ".join(WORDS[i] for i in ids)


def test_of_a_translator_that_swaps() -> None:
    pairs = PAIRS.pairs("test")
    found = translate_pairs(Swapper(), pairs, max_tokens=longest_output(pairs))
    total = sum(len(one.reference) for one in found)
    measured = values(found)
    assert measured["token_accuracy"] == pytest.approx(1 - 4 / total, abs=1e-12)
    assert measured["exact_match"] == pytest.approx(9 / 13, abs=1e-12)
    assert measured["differentiable_average_lagging"] == pytest.approx(2.0, abs=1e-12)
    assert measured["mean_arc"] == pytest.approx(0.5, abs=1e-12)
    assert [one.source for one in found] == [tuple(pairs.sources[i].tolist()) for i in range(13)]
    assert len(translate_pairs(Swapper(), pairs, max_tokens=9, limit=5)) == 5
    with pytest.raises(BadInput, match="limit 0"):
        translate_pairs(Swapper(), pairs, max_tokens=9, limit=0)


def test_lengths_count_against_accuracy() -> None:
    """By hand: 2 of 4 places, 3 of 4 and 0 of 2; who babbles or says little is right for no more tokens."""
    short = Translated((0, 1, 2, 3), (1, 0, 3, 2), (1, 0), (2, 2))
    long = Translated((0, 1, 2), (1, 0, 2), (1, 0, 2, 2), (1, 2, 3, 3))
    silent = Translated((0, 1), (1, 0), (), ())
    measured = values([short, long, silent])
    assert measured["token_accuracy"] == pytest.approx(5 / 10, abs=1e-12)
    assert measured["exact_match"] == 0
    assert measured["average_proportion"] == pytest.approx((4 / 8 + 9 / 12) / 2, abs=1e-12), "silence has no latency"


def test_bleu_is_of_the_text() -> None:
    """Source, reference and output are three different things: only the last two are compared."""
    reads, reference = (1, 2, 3, 4, 5), (4, 3, 2, 1, 0)
    same = Translated((0, 1, 2, 3, 4), reference, reference, reads)
    copied = Translated((0, 1, 2, 3, 4), reference, (0, 1, 2, 3, 4), reads)
    assert bleu([same], [words(reference)]) == pytest.approx(100)
    assert bleu([copied], [words(reference)]) < 20, "mutant: against the source"
    assert "bleu" not in values([same]), "where there never was text"


def bleu(found: list[Translated], references: list[str]) -> float:
    return next(one.value for one in scored(found, references, unknown=6) if one.name == "bleu")


def test_an_unknown_token_is_never_right() -> None:
    """References are scored as they were before the tokenizer, which read `<unk>` for what it cannot spell."""
    reference = (0, 6, 2, 3, 6)
    parrot = Translated((0, 1, 2, 3, 4), reference, reference, (1, 2, 3, 4, 5))
    raw = ["the zebra sat on Thursdays"]
    found = {one.name: one.value for one in scored([parrot], raw, unknown=6)}
    assert found["token_accuracy"] == pytest.approx(3 / 5)
    assert found["exact_match"] == 0
    assert found["bleu"] < 30
    assert bleu([parrot], [words(reference)]) == pytest.approx(100), "mutant: against what the tokenizer made of it"
    assert {one.name: one.value for one in scored([parrot], raw)}["token_accuracy"] == 1, "6 is a token like others"


def test_who_writes_nothing_has_all_scores_but_latency() -> None:
    silent = [Translated((0, 1), (1, 0), (), ())] * 3
    found = {one.name: (one.value, one.count) for one in scored(silent, ["cat the"] * 3)}
    assert found == {"token_accuracy": (0, 6), "exact_match": (0, 3), "empty_outputs": (1, 3), "bleu": (0, 3)}


def test_lag_is_adapted_to_the_length_of_the_reference() -> None:
    """By hand: g = (1, 4) of four source tokens and references of four: 1 and 4 - 1, mean 2; of two: 1 and 4 - 2."""
    path = Translated((0, 1, 2, 3), (1, 0, 3, 2), (1, 0), (1, 4))
    assert path.path().reference_length == 4
    measured = values([path])
    assert measured["length_adaptive_average_lagging"] == pytest.approx(2.0, abs=1e-12)
    assert measured["average_lagging"] == pytest.approx(1.5, abs=1e-12)


def test_the_longest_output_counts_every_reference() -> None:
    for targets in ([[1] * 7, [1]], [[1], [1] * 7], [[1], [1] * 7, [1, 1]]):
        assert longest_output(Pairs(Sequences.of([[1]] * len(targets)), Sequences.of(targets), 2)) == 24


def labels_as_nats(batch: PairBatch) -> Loss:
    scored = batch.labels != IGNORED
    nats = ((batch.labels + 1) * scored).sum().double()
    return Loss(nats * 2, int(scored.sum()), metrics={"nats": nats})


def _scored(group: Group) -> dict[str, float]:
    return score_pairs(labels_as_nats, PAIRS.pairs("test"), rows=3, seed=0, group=group).means


def test_nats_of_a_split_are_the_same_whatever_batches_and_workers() -> None:
    pairs = PAIRS.pairs("test")
    labels = [int(token) for i in range(13) for token in [*pairs.targets[i], 4]]
    mean = (sum(labels) + len(labels)) / len(labels)
    for rows in (1, 4, 13, 50):
        found = score_pairs(labels_as_nats, pairs, rows=rows, seed=0)
        assert (found.tokens, found.pairs) == (len(labels), 13)
        assert found.means == pytest.approx(
            {"nats_per_token": mean, "objective": 2 * mean, "perplexity": math.exp(mean)}, rel=1e-12
        )
        nats = streaming_nats(Swapper(), pairs, rows=rows, device=torch.device("cpu"), protocol={})
        assert (nats.value, nats.count) == (pytest.approx(mean, rel=1e-12), len(labels))
    assert run_workers(2, _scored) == [found.means] * 2, "five batches for two workers"


def test_an_average_of_averages_is_another_number() -> None:
    """Mutant: each batch divided by its own count."""
    pairs = PAIRS.pairs("test")
    losses = [labels_as_nats(pairs.batch(np.array([number]))) for number in range(13)]
    wrong = sum(float(loss.total) / loss.count for loss in losses) / 13
    assert wrong != pytest.approx(score_pairs(labels_as_nats, pairs, rows=1, seed=0).means["objective"], rel=1e-4)


def test_bad_input() -> None:
    with pytest.raises(BadInput, match="digits has no pairs"):
        open_pairs(DigitsConfig(kind="digits"), "test")
    with pytest.raises(BadInput, match="rows is 0"):
        score_pairs(labels_as_nats, PAIRS.pairs("test"), rows=0, seed=0)
    assert longest_output(Pairs(Sequences.of([[1]]), Sequences.of([[]]), 2)) == 10
