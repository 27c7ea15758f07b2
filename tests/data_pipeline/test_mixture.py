"""Mixtures: every source is continued exactly, whatever the weights; ids tell the source; what cannot be is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from data_pipeline.batch import TokenBatch
from data_pipeline.config import BadInput, Refused
from data_pipeline.mixture import MixtureConfig, texts_to_prepare
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.streams import Draws, LaneStream, SampleStream, Stream
from data_pipeline.streams.mixtures import MixtureLanes, MixtureStream, source_of
from data_pipeline.streams.rows import CutRows
from data_pipeline.streams.samples import rows_of
from evals.held_out import open_split
from tests.data_pipeline.corpora import text_config, write_files
from tests.data_pipeline.ragged import RaggedDocuments

SOURCES = {
    "books": RaggedDocuments([40, 12, 30, 9]),
    "code": RaggedDocuments([5, 17, 3, 40, 2, 64, 30]),
    "web": RaggedDocuments([200, 1, 33]),
}
LENGTH = 4
WEIGHTS = {"books": 0.2, "code": 0.5, "web": 0.3}
FIELDS = ("inputs", "labels", "age")


def mixture(stages: list[tuple[int, dict[str, int]]], *, seed: int = 0, rows: int = 3) -> MixtureStream:
    sources = {name: CutRows(documents, length=LENGTH, seed=seed) for name, documents in SOURCES.items()}
    return MixtureStream(sources, stages, length=LENGTH, draws=Draws(micro_batches=2, rows=rows, seed=seed))


def rows_read(stream: Stream, draws: range) -> list[tuple[int, int, TokenBatch, int]]:
    """Source, number in it, batch and place in it of every row, in order."""
    found = []
    for draw in draws:
        for micro_batch in (0, 1):
            batch = stream.micro_batch(draw, micro_batch)
            assert isinstance(batch, TokenBatch)
            found += [(*source_of(int(one)), batch, place) for place, one in enumerate(batch.sample_ids)]
    return found


def test_changed_at_step_50_of_100_no_row_of_any_source_comes_twice_or_never() -> None:
    before, after = {"books": 2, "code": 5, "web": 3}, {"books": 6, "web": 1}
    changed, steady = mixture([(0, before), (50, after)]), mixture([(0, before)])
    for draw in range(50):
        for number in (0, 1):
            assert torch.equal(
                changed.micro_batch(draw, number).sample_ids, steady.micro_batch(draw, number).sample_ids
            )
    read = rows_read(changed, range(100))
    for source, total in ((0, 60 + 257), (1, 150), (2, 90 + 43)):
        numbers = [number for one, number, _, _ in read if one == source]
        assert numbers == list(range(len(numbers)))
        assert abs(len(numbers) - total) <= 2
    assert not any(source == 1 for source, *_ in rows_read(changed, range(50, 100)))


numbers = st.dictionaries(st.sampled_from(sorted(SOURCES)), st.integers(1, 20), min_size=1)


@settings(max_examples=40, deadline=None)
@given(numbers, numbers, st.integers(1, 30), st.integers(0, 2**40), st.integers(1, 4))
def test_row_k_of_a_source_is_the_kth_of_its_own_stream(
    first: dict[str, int], second: dict[str, int], change: int, seed: int, rows: int
) -> None:
    """That of samples one by one, over all epochs."""
    stream = mixture([(0, first), (change, second)], seed=seed, rows=rows)
    alone = [
        SampleStream(documents, length=LENGTH, draws=Draws(micro_batches=1, rows=1, seed=seed))
        for documents in SOURCES.values()
    ]
    for source, number, batch, place in rows_read(stream, range(change - 1, change + 4)):
        expected = alone[source].micro_batch(number, 0)
        for name in FIELDS:
            assert torch.equal(getattr(batch, name)[place], getattr(expected, name)[0])


def test_any_order_of_asking_gives_the_same() -> None:
    stages = [(0, {"books": 1, "code": 2}), (7, {"web": 1, "code": 1})]
    alone, workers = mixture(stages), [mixture(stages), mixture(stages)]
    places = [(draw, number) for draw in (0, 6, 7, 8, 31, 32, 33, 10**6, 10**6 + 1) for number in (0, 1)]
    expected = {place: alone.micro_batch(*place) for place in places}
    for index in np.random.default_rng(0).permutation(len(places)):
        draw, number = places[index]
        batch = workers[number].micro_batch(draw, number)
        for name in (*FIELDS, "sample_ids"):
            assert torch.equal(getattr(batch, name), getattr(expected[draw, number], name))


def test_packed_and_cut_rows_mix() -> None:
    packed = rows_of(SOURCES["code"], length=LENGTH, seed=0, shuffle=True, separate_documents=True, packing="best_fit")
    sources = {"books": CutRows(SOURCES["books"], length=LENGTH, seed=0), "code": packed}
    stream = MixtureStream(sources, [(0, {"books": 1, "code": 1})], length=LENGTH, draws=Draws(micro_batches=2, rows=2))
    read = rows_read(stream, range(10))
    assert {source for source, *_ in read} == {0, 1}
    for source, number, batch, place in read:
        if source == 1:
            epoch, within = divmod(number, packed.num_rows)
            assert batch.inputs[place].tolist() in [
                packed.batch(epoch, np.arange(packed.num_rows)).inputs[r].tolist() for r in range(packed.num_rows)
            ], within


def test_a_source_without_weight_may_be_too_small() -> None:
    sources = {name: CutRows(documents, length=LENGTH, seed=0) for name, documents in SOURCES.items()}
    sources["code"] = CutRows(RaggedDocuments([3]), length=LENGTH, seed=0)
    draws = Draws(micro_batches=2, rows=2)
    stream = MixtureStream(sources, [(0, {"books": 1, "web": 1})], length=LENGTH, draws=draws)
    assert {source for source, *_ in rows_read(stream, range(10))} == {0, 2}
    with pytest.raises(BadInput, match=r"data\.sources\.code: has too few tokens for one row of 4"):
        MixtureStream(sources, [(0, {"web": 1}), (5, {"code": 1})], length=LENGTH, draws=draws)


def test_an_epoch_is_when_the_slowest_source_is_through() -> None:
    stream = mixture([(0, {"books": 1, "code": 1}), (5, {"web": 1, "code": 3})])
    draws = stream.draws_per_epoch
    for draw, is_through in ((draws, True), (draws - 1, False)):
        counts = stream.schedule.counts(draw * 6)
        assert (counts[1] >= (161 - 1) // LENGTH and counts[2] >= (234 - 1) // LENGTH) == is_through


# Configurations


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Three prepared directories: two of one tokenizer, and one of another."""
    place = tmp_path_factory.mktemp("texts")
    found = {}
    for number, (name, kind) in enumerate((("one", "byte"), ("two", "byte"), ("other", "word"))):
        files = write_files(place / f"{name}-files", count=12 + 8 * number, seed=number)
        config = text_config(place / name, files, tokenizer={"kind": kind})
        with LocalExecutor(1) as executor:
            prepare(config, executor=executor, report=lambda _: None)
        found[name] = config.model_dump()
    return found


def configured(sources: dict[str, Any], *stages: dict[str, float], steps: tuple[int, ...] = (0, 50)) -> MixtureConfig:
    shares = [{"from_step": step, "shares": one} for step, one in zip(steps, stages, strict=False)]
    return MixtureConfig.model_validate({"kind": "mixture", "sources": sources, "weights": shares})


def opened(config: MixtureConfig, reads: Any = "samples", **changes: Any) -> Stream:
    return config.stream(**({"reads": reads, "length": 8, "micro_batches": 2, "rows": 4, "seed": 1} | changes))


def test_texts_are_read_as_their_directories_are(texts: dict[str, dict[str, Any]]) -> None:
    prepared = {"kind": "prepared", "directory": texts["two"]["directory"]}
    config = configured({"two": prepared, "one": texts["one"]}, {"one": 1, "two": 3})
    assert config.vocab_size() == 257
    assert config.load_tokenizer().decode([72, 105]) == "Hi"
    assert config.directories() == {name: Path(texts[name]["directory"]) for name in ("one", "two")}
    assert texts_to_prepare(config) == [config.sources["one"]]
    assert texts_to_prepare(config.sources["two"]) == []
    stream = opened(config)
    assert isinstance(stream, MixtureStream)
    sources = [source for source, *_ in rows_read(stream, range(8))]
    assert (sources.count(0), sources.count(1)) == (16, 48)
    fingerprint = stream.fingerprint()
    assert {"data.sources.one", "data.sources.two", "weights"} <= fingerprint.keys()
    swapped = configured({"two": texts["one"], "one": prepared}, {"one": 1, "two": 3})
    assert opened(swapped).fingerprint() != fingerprint
    assert swapped.fingerprint() != config.fingerprint()


def test_held_out_documents_are_those_of_all_sources(texts: dict[str, dict[str, Any]]) -> None:
    config = configured({"two": texts["two"], "one": texts["one"]}, {"one": 1, "two": 3})
    parts = [open_split(config.sources[name], "valid") for name in ("one", "two")]
    found = open_split(config, "valid")
    assert found.documents.lengths.tolist() == [n for part in parts for n in part.documents.lengths.tolist()]
    first = len(parts[0].documents.lengths)
    for number in (0, first - 1, first, len(found.documents.lengths) - 1):
        part, inside = (parts[0], number) if number < first else (parts[1], number - first)
        offsets = np.arange(found.documents.lengths[number])
        expected = part.documents.tokens_at(np.full_like(offsets, inside), offsets)
        assert np.array_equal(found.documents.tokens_at(np.array(number), offsets), expected)
        assert found.documents.document_bytes(number) == part.documents.document_bytes(inside) > 0
    assert found.fingerprint not in {part.fingerprint for part in parts}


def test_different_tokenizers_are_refused_with_both_hashes(texts: dict[str, dict[str, Any]]) -> None:
    config = configured({"one": texts["one"], "other": texts["other"]}, {"one": 1, "other": 1})
    hashes = [config.sources[name].vocabulary() for name in ("one", "other")]
    assert len(set(hashes)) == 2
    for use in (config.vocab_size, lambda: opened(config), config.load_tokenizer):
        with pytest.raises(BadInput, match=f"one has the tokenizer {hashes[0]}, but other has {hashes[1]}"):
            use()


def test_a_tokenizer_and_the_file_it_wrote_are_one(tmp_path: Path) -> None:
    """Where one source's was trained, the others are made with that."""
    files = [write_files(tmp_path / name, seed=seed) for seed, name in enumerate(("a-files", "b-files"))]
    trained = text_config(tmp_path / "a", files[0])
    of_file = {"kind": "file", "path": str(tmp_path / "a" / "tokenizer.json"), "end_of_document": "<eos>"}
    given = text_config(tmp_path / "b", files[1], tokenizer=of_file)
    for config in (trained, given):
        with LocalExecutor(1) as executor:
            prepare(config, executor=executor, report=lambda _: None)
    mixture = configured({"a": trained.model_dump(), "b": given.model_dump()}, {"a": 1, "b": 1})
    assert trained.vocabulary() != given.vocabulary()
    assert mixture.vocab_size() == trained.vocab_size()
    assert opened(mixture).micro_batch(0, 0).inputs.shape == (4, 8)


MARKOV = {"kind": "markov", "num_symbols": 16, "document_length": 20, "num_documents": 30, "num_held_out": 4}
PAIR = {"a": MARKOV, "b": MARKOV | {"chain_seed": 1}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sources": {}}, "at least 1 item"),
        ({"weights": []}, "at least 1 item"),
        ({"weights": [{"from_step": 3, "shares": {"a": 1}}]}, "must be from_step 0"),
        ({"weights": [{"from_step": s, "shares": {"a": 1}} for s in (0, 5, 5)]}, "from_step 5 stands after 5"),
        ({"weights": [{"from_step": 0, "shares": {"a": 1, "c": 1}}]}, "name 'c', which is no source; there are a, b"),
        ({"weights": [{"from_step": 0, "shares": {"a": 0}}]}, "all weights are 0"),
        ({"weights": [{"from_step": 0, "shares": {"a": -1}}]}, "greater than or equal to 0"),
        (
            {"sources": {"a": MARKOV, "b": MARKOV | {"separate_documents": False}}},
            "sources differ in separate_documents",
        ),
        ({"sources": {"a.b": MARKOV}}, "pattern"),
    ],
)
def test_a_mixture_that_is_none(fields: dict[str, Any], message: str) -> None:
    values = {"kind": "mixture", "sources": PAIR, "weights": [{"from_step": 0, "shares": {"a": 1}}]} | fields
    with pytest.raises(ValidationError, match=message):
        MixtureConfig.model_validate(values)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reads": "vectors"}, "data.kind mixture cannot be read as vectors, only as lanes or samples"),
        ({"length": None}, "length None: data.kind mixture"),
        ({"split": "test"}, "split 'test': data.kind markov has the splits train, valid"),
        ({"length": 600}, r"data\.sources\.a: has too few tokens for one row of 600"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        opened(configured(PAIR, {"a": 1, "b": 1}), **arguments)


def test_only_the_past_may_not_change() -> None:
    steady = configured(PAIR, {"a": 1, "b": 1})
    changed = configured(PAIR, {"a": 0.5, "b": 0.5}, {"a": 1, "b": 9})
    changed.check_past(steady, 50, "samples")
    steady.check_past(changed, 50, "samples")
    with pytest.raises(Refused, match=r"changed for steps before 51, which the run has read already.*from_step 51 or"):
        changed.check_past(steady, 51, "samples")
    with pytest.raises(Refused, match="for steps before 51"):
        steady.check_past(changed, 51, "samples")
    steady.check_past(configured(PAIR, {"a": 3, "b": 3}), 50, "lanes")
    for draws in (0, 50):
        with pytest.raises(Refused, match="reads lanes"):
            changed.check_past(steady, draws, "lanes")


# Lanes


def test_a_lane_is_of_one_source_and_goes_on_in_it() -> None:
    config = configured(PAIR, {"a": 1, "b": 3})
    stream = opened(config, "lanes", length=5)
    assert isinstance(stream, MixtureLanes)
    counts = {"a": 2, "b": 6}
    alone = [
        LaneStream(source.documents("train"), length=5, draws=Draws(micro_batches=1, rows=counts[name], seed=1))
        for name, source in config.named().items()
    ]
    owners = []
    for draw in (0, 1, 2, 40, 41, 1000):
        seen = rows_read(stream, range(draw, draw + 1))
        owners.append([source for source, *_ in seen])
        for source, number, batch, place in seen:
            at_draw, lane = divmod(number, counts["ab"[source]])
            assert at_draw == draw
            expected = alone[source].micro_batch(draw, 0)
            for name in FIELDS:
                assert torch.equal(getattr(batch, name)[place], getattr(expected, name)[lane])
    assert sorted(owners[0]) == [0, 0, 1, 1, 1, 1, 1, 1]
    assert all(one == owners[0] for one in owners)
    assert stream.draws_per_epoch == max(one.draws_per_epoch for one in alone)


def test_lanes_are_not_weighted_anew_nor_left_without_a_source() -> None:
    with pytest.raises(
        BadInput, match="weights change from_step 50, but this model reads lanes: each is of one source"
    ):
        opened(configured(PAIR, {"a": 1}, {"b": 1}), "lanes")
    with pytest.raises(BadInput, match="of 8 lanes, a gets none for its weight"):
        opened(configured(PAIR, {"a": 1, "b": 99}), "lanes")
