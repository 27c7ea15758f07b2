"""Data of kind text, from the shards to the streams, and the published counts of the benchmarks."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.data import DataConfig
from data_pipeline.manifest import Manifest
from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.shards import TokenShards
from data_pipeline.streams import Stream
from data_pipeline.summary import summarize
from data_pipeline.text import TextConfig
from tests.data_pipeline.corpora import SHARED_DATA, text_config, write_files


def prepared(config: TextConfig) -> Manifest:
    with LocalExecutor(1) as executor:
        return prepare(config, executor=executor, report=lambda _: None)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> TextConfig:
    place = tmp_path_factory.mktemp("text")
    config = text_config(place / "out", write_files(place / "corpus", count=40))
    prepared(config)
    return config


def benchmark(directory: Path, name: str, splits: dict[str, str]) -> TextConfig:
    source = SHARED_DATA / name
    if not source.is_dir():
        pytest.skip(f"{name} is not in {SHARED_DATA}")
    corpus = {"kind": "files", "directory": str(source), "document": "file"}
    corpus |= {split: [file] for split, file in splits.items()}
    return text_config(directory, source, corpus=corpus, tokenizer={"kind": "word"}, shard_bytes=1 << 23)


def test_penn_treebank_has_its_published_counts(tmp_path: Path) -> None:
    files = {split: f"ptb.{split}.txt.gz" for split in ("train", "valid", "test")}
    manifest = prepared(benchmark(tmp_path, "ptb", files))
    counts = {split: record.num_tokens for split, record in manifest.splits.items()}
    assert counts == {"train": 929_589, "valid": 73_760, "test": 82_430}
    assert manifest.vocab_size == 10_000


def test_wikitext_2_has_its_published_counts(tmp_path: Path) -> None:
    files = {split: f"wiki.{split}.tokens.gz" for split in ("train", "valid")}
    manifest = prepared(benchmark(tmp_path, "wikitext2", files))
    counts = {split: record.num_tokens for split, record in manifest.splits.items()}
    assert counts == {"train": 2_088_628, "valid": 217_646}
    assert manifest.vocab_size == 33_278


def test_any_token_is_what_its_document_says(config: TextConfig) -> None:
    shards = config.shards()
    assert len({len(shards.document(index)) for index in range(shards.num_documents)}) > 5
    random = np.random.default_rng(0)
    documents = random.integers(0, shards.num_documents, (7, 50))
    offsets = (random.random((7, 50)) * shards.lengths[documents]).astype(np.int64)
    expected = [
        [shards.document(d)[o] for d, o in zip(*row, strict=True)] for row in zip(documents, offsets, strict=True)
    ]
    assert np.array_equal(shards.tokens_at(documents, offsets), expected)
    for index in (-1, shards.num_documents):
        with pytest.raises(IndexError, match=f"document {index}"):
            shards.document(index)


def test_unshuffled_lanes_are_the_corpus(config: TextConfig) -> None:
    plain = config.model_copy(update={"shuffle": False})
    corpus = np.concatenate([ids for ids, _ in plain.shards("train").documents()])
    stream = plain.stream(reads="lanes", length=16, micro_batches=2, rows=2, seed=0)
    assert isinstance(stream, Stream)
    batches = [[stream.micro_batch(draw, number).inputs for number in (0, 1)] for draw in range(stream.draws_per_epoch)]
    lanes = torch.cat([torch.cat(pair) for pair in batches], dim=1).numpy()
    lane_length = (len(corpus) - 1) // 4
    for row in range(4):
        assert np.array_equal(lanes[row], corpus[row * lane_length :][: lanes.shape[1]])


def test_equal_seeds_give_equal_streams_and_others_others(config: TextConfig) -> None:
    def stream(seed: int) -> Stream:
        return config.stream(reads="samples", length=8, micro_batches=2, rows=3, seed=seed)

    assert torch.equal(stream(1).micro_batch(5, 1).inputs, stream(1).micro_batch(5, 1).inputs)
    assert not torch.equal(stream(1).micro_batch(5, 1).inputs, stream(2).micro_batch(5, 1).inputs)
    assert stream(1).fingerprint() != stream(2).fingerprint()


def test_the_vocabulary_covers_every_token(config: TextConfig) -> None:
    tokens = np.concatenate([ids for ids, _ in config.shards("train").documents()])
    assert tokens.max() < config.vocab_size() == config.load_tokenizer().vocab_size <= 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"reads": "vectors"}, "data.kind text cannot be read as vectors, only as lanes or samples"),
        ({"length": None}, "length None: data.kind text is read in segments"),
        ({"split": "test"}, "split 'test': .* has the splits train, valid"),
        ({"rows": 100_000}, "one draw of micro_batches 2 x rows 100000 x length 16 needs at least 3200001"),
    ],
)
def test_what_cannot_be_read_is_refused(arguments: dict[str, Any], message: str, config: TextConfig) -> None:
    defaults: dict[str, Any] = {"reads": "lanes", "length": 16, "micro_batches": 2, "rows": 2, "seed": 0}
    with pytest.raises(BadInput, match=message):
        config.stream(**(defaults | arguments))


def test_missing_shards_say_what_to_do(tmp_path: Path) -> None:
    config = text_config(tmp_path / "nothing", tmp_path)
    for use in (config.shards, config.vocab_size, config.fingerprint, config.load_tokenizer):
        with pytest.raises(
            BadInput, match=r"data\.directory .*nothing: holds no prepared data; run `launch\.py prepare`"
        ):
            use()


@pytest.mark.parametrize("content", ["", "{}", '{"format_version": 1}', "[", "null"])
def test_a_manifest_that_is_none_is_corrupt(content: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(Corrupt, match=r"manifest\.json: not a manifest"):
        TokenShards.open(tmp_path, "train")


def test_a_manifest_of_another_format_is_refused(config: TextConfig, tmp_path: Path) -> None:
    other = config.manifest().model_copy(update={"format_version": 99})
    (tmp_path / "manifest.json").write_text(other.model_dump_json())
    with pytest.raises(BadInput, match="format_version 99, but this version of Segue reads 1"):
        TokenShards.open(tmp_path, "train")


def test_the_union_is_chosen_by_kind(config: TextConfig) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(DataConfig)
    for fields in (config.model_dump(), {"kind": "markov"}, {"kind": "digits"}):
        data = adapter.validate_python(fields)
        assert data.kind == fields["kind"]
        assert re.fullmatch("[0-9a-f]{64}", data.fingerprint())
    assert adapter.validate_python(config.model_dump()) == config
    with pytest.raises(ValidationError, match="shufle"):
        adapter.validate_python({"kind": "markov", "shufle": True})


def test_the_summary_tells_what_is_there(config: TextConfig, tmp_path: Path) -> None:
    directory = Path(config.directory)
    summary = summarize(directory)
    text = "\n".join([*summary.lines(), *map(str, summary.splits)])
    shards = config.shards()
    assert f"train: {shards.num_documents:,} documents, {shards.num_tokens:,} tokens" in text
    assert f"{shards.num_bytes / shards.num_tokens:.2f} bytes/token" in text
    assert config.fingerprint() in text
    assert config.manifest().tokenizer_hash in text
    first = next(iter(config.corpus.documents("train"))).text
    assert summary.splits[0].sample.removesuffix("<eos>") in first + "<eos>"
    assert len(summary.splits[0].sample) > 20
    with pytest.raises(BadInput, match="holds no prepared data"):
        summarize(tmp_path)
