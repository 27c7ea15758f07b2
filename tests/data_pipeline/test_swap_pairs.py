"""Swapped pairs, the stream that shuffles them, and how they are padded."""

from itertools import product

import numpy as np
import pytest
from pydantic import ValidationError

from data_pipeline.batch import IGNORED, PairBatch
from data_pipeline.config import BadInput
from data_pipeline.streams.pairs import Pairs, PairStream, Sequences
from data_pipeline.streams.stream import Draws
from data_pipeline.swap_pairs import SwapPairsConfig
from evals.metrics.latency import ReadPath, differentiable_average_lagging

CONFIG = SwapPairsConfig(kind="swap_pairs", num_symbols=5, min_length=2, max_length=8, num_pairs=400, num_held_out=50)


def swapped(source: np.ndarray) -> list[int]:
    return [int(source[i + 1 - 2 * (i % 2)]) for i in range(len(source))]


def test_every_target_is_its_source_with_neighbours_swapped() -> None:
    pairs = CONFIG.pairs("train")
    assert len(pairs) == 400
    lengths, tokens = set(), []
    for number in range(len(pairs)):
        source = pairs.sources[number]
        assert pairs.targets[number].tolist() == swapped(source)
        lengths.add(len(source))
        tokens += source.tolist()
    assert lengths == {2, 4, 6, 8}
    counts = np.bincount(tokens, minlength=6)
    assert counts[5] == 0, "the boundary is in no sequence"
    expected = len(tokens) / 5
    assert np.abs(counts[:5] - expected).max() < 4 * (expected * 0.8) ** 0.5


def test_splits_and_seeds_have_other_pairs_and_the_same_fields_the_same() -> None:
    prints = {CONFIG.pairs(split).fingerprint for split in ("train", "valid", "test")}
    assert len(prints | {CONFIG.model_copy(update={"pair_seed": 1}).pairs("train").fingerprint}) == 4
    assert CONFIG.model_copy().fingerprint() == CONFIG.fingerprint()
    with pytest.raises(BadInput, match="split 'dev'"):
        CONFIG.pairs("dev")


def test_no_reader_that_knows_every_token_lags_by_less_than_two() -> None:
    """Of all read paths of four tokens: y_i is x_i+1 or x_i-1, so every second read must be one ahead."""
    paths = [reads for reads in product(range(1, 5), repeat=4) if list(reads) == sorted(reads)]
    knowing = [reads for reads in paths if reads[0] >= 2 and reads[2] >= 4]
    lags = [differentiable_average_lagging(ReadPath(reads, 4, 4)) for reads in knowing]
    assert min(lags) == pytest.approx(2.0, abs=1e-12)
    assert differentiable_average_lagging(ReadPath((2, 2, 4, 4), 4, 4)) == pytest.approx(2.0, abs=1e-12)
    assert min(differentiable_average_lagging(ReadPath(reads, 4, 4)) for reads in paths) == pytest.approx(1.0)


def expected_accuracy(reads: tuple[int, ...]) -> float:
    """Of five symbols, two tokens at a time: y_1 is x_2, y_2 is x_1."""
    needs = [i + 2 if i % 2 == 0 else i for i in range(len(reads))]
    return sum(1.0 if read >= need else 1 / 5 for read, need in zip(reads, needs, strict=True)) / len(reads)


def test_no_read_path_is_more_accurate_than_its_lag_allows() -> None:
    """All paths of six tokens that begin with a read; the bound is reached with none to all of the pairs waited for."""
    reached = set()
    for reads in product(range(1, 7), repeat=6):
        if list(reads) == sorted(reads):
            lag = differentiable_average_lagging(ReadPath(reads, 6, 6))
            bound, found = CONFIG.best_accuracy(lag), expected_accuracy(reads)
            assert found <= bound + 1e-12, (reads, lag)
            if found > bound - 1e-12:
                reached.add(round(6 * lag))
    assert reached >= {6, 8, 10, 12}
    assert expected_accuracy((0, 1, 4, 4, 6, 6)) > CONFIG.best_accuracy(8 / 6), "who writes first is beyond it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"min_length": 3}, "must be even"), ({"max_length": 5}, "must be even"), ({"min_length": 12}, "is above")],
)
def test_bad_lengths(settings: dict[str, int], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SwapPairsConfig.model_validate({"kind": "swap_pairs", **settings})


def stream(**changes: int) -> PairStream:
    sizes = {"micro_batches": 3, "rows": 10, "seed": 4} | changes
    made = CONFIG.stream(reads="pairs", length=None, **sizes)
    assert isinstance(made, PairStream)
    return made


def epoch(of: PairStream, number: int) -> list[PairBatch]:
    first = number * of.draws_per_epoch
    return [of.micro_batch(first + draw, g) for draw in range(of.draws_per_epoch) for g in range(3)]


def test_an_epoch_has_every_pair_at_most_once_and_another_order_each_time() -> None:
    seen = [[int(i) for batch in epoch(stream(), number) for i in batch.sample_ids] for number in (0, 1)]
    assert all(len(set(ids)) == len(ids) == 390 for ids in seen)
    numbers = [[i % 400 for i in ids] for ids in seen]
    assert numbers[0] != numbers[1]
    assert [i // 400 for i in seen[1]] == [1] * 390
    assert numbers[0] != sorted(numbers[0])


def test_a_batch_is_a_function_of_its_place() -> None:
    one, again = stream(), stream()
    late, early = one.micro_batch(20, 2), one.micro_batch(0, 0)
    assert all((getattr(again.micro_batch(20, 2), name) == getattr(late, name)).all() for name in late.__slots__)
    assert all((getattr(again.micro_batch(0, 0), name) == getattr(early, name)).all() for name in late.__slots__)
    assert (stream(seed=5).micro_batch(0, 0).sample_ids != early.sample_ids).any()
    assert stream(seed=5).fingerprint() != one.fingerprint() == again.fingerprint()


def unpadded(batch: PairBatch, boundary: int) -> list[tuple[list[int], list[int]]]:
    """The pairs of a batch; AssertionError where it is not laid out as `PairBatch` says."""
    found = []
    for row in range(batch.rows):
        labels = batch.labels[row][batch.labels[row] != IGNORED].tolist()
        count = len(labels)
        assert (batch.labels[row, count:] == IGNORED).all()
        assert labels[-1] == boundary
        assert batch.inputs[row, :count].tolist() == [boundary, *labels[:-1]]
        found.append((batch.sources[row, : int(batch.source_lengths[row])].tolist(), labels[:-1]))
    return found


def test_batches_hold_their_pairs_and_are_no_wider_than_those() -> None:
    pairs, widths = CONFIG.pairs("train"), set()
    for batch in epoch(stream(), 0):
        held = unpadded(batch, 5)
        expected = [(pairs.sources[i % 400].tolist(), pairs.targets[i % 400].tolist()) for i in batch.sample_ids]
        assert held == expected
        assert batch.sources.shape[1] == max(len(source) for source, _ in held)
        assert batch.labels.shape[1] == max(len(target) for _, target in held) + 1
        widths.add(batch.sources.shape[1])
    assert len(widths) > 1


def test_sequences_of_unequal_length_and_empty_targets() -> None:
    pairs = Pairs(Sequences.of([[1], [2, 3, 4]]), Sequences.of([[], [1, 2]]), 9)
    batch = pairs.batch(np.array([1, 0]))
    assert unpadded(batch, 9) == [([2, 3, 4], [1, 2]), ([1], [])]
    batch.inputs[0, 1] = 7
    with pytest.raises(AssertionError):
        unpadded(batch, 9)


def test_fingerprints_know_where_sources_end_and_what_begins_a_target() -> None:
    """The first two hold the same ends and tokens in the same order, and are other pairs."""
    one = Pairs(Sequences.of([[3]]), Sequences.of([[7, 8, 1, 2, 5, 4]]), 9)
    other = Pairs(Sequences.of([[6], [7, 8]]), Sequences.of([[5], [4]]), 9)
    numbers = [[*pairs.sources.ends, *pairs.sources.tokens, *pairs.targets.ends, *pairs.targets.tokens]
               for pairs in (one, other)]  # fmt: skip
    assert numbers[0] == numbers[1]
    assert one.fingerprint != other.fingerprint
    assert one.fingerprint != Pairs(one.sources, one.targets, 10).fingerprint


def test_who_cannot_read_pairs_is_told() -> None:
    for reads in ("lanes", "samples", "vectors"):
        with pytest.raises(BadInput, match=f"cannot be read as {reads}, only as pairs"):
            CONFIG.stream(reads=reads, length=None, micro_batches=1, rows=1, seed=0)
    with pytest.raises(BadInput, match="leave length out"):
        CONFIG.stream(reads="pairs", length=4, micro_batches=1, rows=1, seed=0)
    with pytest.raises(BadInput, match="the split has 50 pairs"):
        PairStream(CONFIG.pairs("valid"), draws=Draws(micro_batches=6, rows=10))
