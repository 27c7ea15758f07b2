"""A giant document: many workers encode it, and it stays one document with the ids of the whole."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import pre_tokenizers

from data_pipeline.prepare import LocalExecutor, prepare
from data_pipeline.sources.document import Piece, Report, Span
from data_pipeline.sources.giants import GIANT
from data_pipeline.sources.whole_documents import whole_documents, with_whole_documents
from data_pipeline.text import TextConfig
from data_pipeline.tokenizers.tokenizer import VOCABULARY_FILE
from tests.data_pipeline.corpora import content_of, text_config
from tests.data_pipeline.tokenizers.vocabularies import trained

LINE = "the cat sat on the mat; it's naïve 東京 "


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("corpus")
    giant = LINE * (GIANT // len(LINE.encode()) + 1)
    (directory / "a.txt").write_text(f"first\n{giant.strip()}\nlast\n")
    return directory


def config_of(out: Path, corpus: Path, tokenizer: dict[str, Any]) -> TextConfig:
    fields = {"kind": "files", "directory": str(corpus), "train": ["a.txt"], "document": "line", "held_out": 0}
    return text_config(out, corpus, corpus=fields, tokenizer=tokenizer, shard_bytes=1 << 23)


def test_a_giant_line_is_one_document_with_the_ids_of_the_whole(corpus: Path, tmp_path: Path) -> None:
    trained().save(tmp_path)
    tokenizer = {"kind": "file", "path": str(tmp_path / VOCABULARY_FILE), "end_of_document": "<eos>"}
    config = config_of(tmp_path / "one", corpus, tokenizer)
    with LocalExecutor(1) as executor:
        manifest = prepare(config, executor=executor, report=lambda _: None)
    records = manifest.splits["train"].shards
    assert [record.continues for record in records] == [False, False, True, True, True, True]
    shards = config.shards()
    assert shards.num_documents == manifest.splits["train"].num_documents == 3
    lines = (corpus / "a.txt").read_text().splitlines()
    assert [shards.document_bytes(number) for number in range(3)] == [len(line.encode()) for line in lines]
    whole = np.concatenate(trained().encode_documents(lines))
    assert shards.lengths.sum() == len(whole)
    assert np.array_equal(np.concatenate([np.load(one.path(tmp_path / "one", "tokens")) for one in records]), whole)
    assert trained().decode(shards.document(2)) == "last<eos>"
    cut = int(shards.lengths[0] + records[1].num_tokens)
    here = np.arange(cut - 5, cut + 5)
    assert np.array_equal(shards.tokens_at(np.ones_like(here), here - shards.lengths[0]), whole[cut - 5 : cut + 5])


def test_two_workers_give_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    for workers in (1, 2):
        with LocalExecutor(workers) as executor:
            prepare(config_of(tmp_path / str(workers), corpus, {"kind": "byte"}), executor=executor, report=print)
    assert content_of(tmp_path / "1") == content_of(tmp_path / "2")


def test_a_tokenizer_that_would_tell_where_it_was_cut_gets_it_whole(corpus: Path, tmp_path: Path) -> None:
    """Its words are not GPT-2's: it begins each text with a space."""
    library = LibraryTokenizer.from_str(trained().vocabulary_json())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.save(str(tmp_path / "prefix.json"))
    tokenizer = {"kind": "file", "path": str(tmp_path / "prefix.json"), "end_of_document": "<eos>"}
    config = config_of(tmp_path / "out", corpus, tokenizer)
    small = tmp_path / "small"
    small.mkdir()
    (small / "a.txt").write_text("the cat sat\n")
    spans = (Span("a.txt", 0, 4, 4, (0, 11)), Span("a.txt", 4, 11, 7, (0, 11)), Span("a.txt", 11, 12, 1))
    pieces = [Piece("train", (span,)) for span in spans]
    (joined, last) = with_whole_documents(pieces)
    assert (joined.spans, last.spans) == (spans[:2], spans[2:])
    read = config_of(tmp_path / "out", small, tokenizer).corpus.read(joined, Report())
    ((split, document),) = whole_documents(read)
    assert (split, document.text, document.num_bytes, document.more) == ("train", "the cat sat", 11, False)
    tokenizer_made = config.tokenizer.build([], Counter())
    assert not tokenizer_made.divisible
    assert trained().divisible
