"""GPT-2's vocabulary, unigram pieces and characters."""

import gzip
import json
import tracemalloc
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.config import BadInput
from data_pipeline.tokenizers.byte_pairs import BytePairConfig
from data_pipeline.tokenizers.characters import CharacterConfig, CharacterTokenizer
from data_pipeline.tokenizers.gpt2 import GPT2Config
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import Tokenizer
from data_pipeline.tokenizers.unigram import LONGEST_PIECE, LONGEST_WORD, UnigramConfig, _seeds
from tests.data_pipeline.tokenizers.vocabularies import GPT2_FILES, TRAINING, gpt2, trained


def test_gpt2_has_its_published_ids() -> None:
    """The first are those of the example in OpenAI's repository, https://github.com/openai/tiktoken."""
    tokenizer = gpt2()
    assert tokenizer.encode_batch(["hello world"])[0].tolist() == [31373, 995]
    assert tokenizer.vocab_size == 50_257
    assert tokenizer.encode_documents(["a<|endoftext|>"])[0].tolist()[-1] == 50_256
    assert tokenizer.lossless
    assert tokenizer.dtype == np.uint16


def test_gpt2_is_the_same_from_whichever_files(tmp_path: Path) -> None:
    gpt2().save(tmp_path / "saved")
    again = GPT2Config(kind="gpt2", path=str(tmp_path / "saved" / "tokenizer.json")).build([], Counter())
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "encoder.json").write_bytes(gzip.decompress((GPT2_FILES / "encoder.json.gz").read_bytes()))
    (tmp_path / "plain" / "vocab.bpe.gz").write_bytes(gzip.compress((GPT2_FILES / "vocab.bpe").read_bytes()))
    plain = GPT2Config(kind="gpt2", path=str(tmp_path / "plain")).build([], Counter())
    assert again.hash == plain.hash == gpt2().hash == load_tokenizer(tmp_path / "saved").hash


def test_other_vocabularies_are_not_taken_for_gpt2(tmp_path: Path) -> None:
    trained().save(tmp_path)
    with pytest.raises(BadInput, match=rf"{trained().vocab_size} tokens, .*GPT-2 has 50257.*tokenizer\.kind file"):
        GPT2Config(kind="gpt2", path=str(tmp_path / "tokenizer.json")).build([], Counter())
    with pytest.raises(BadInput, match=r"tokenizer\.path .*cannot be read.*vocab\.bpe and encoder\.json"):
        GPT2Config(kind="gpt2", path=str(tmp_path)).build([], Counter())
    (tmp_path / "encoder.json").write_text("[]")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b c\n")
    with pytest.raises(BadInput, match="cannot be read"):
        GPT2Config(kind="gpt2", path=str(tmp_path)).build([], Counter())


def unigram() -> Tokenizer:
    return UnigramConfig(kind="unigram", vocab_size=320).build(TRAINING, Counter())


def test_unigram_training_is_repeatable() -> None:
    assert len({unigram().hash for _ in range(3)}) == 1
    assert 257 < unigram().vocab_size <= 320
    (ids,) = unigram().encode_batch(TRAINING[:1])
    assert len(ids) < 0.8 * len(TRAINING[0].encode())


def characters(text: str = "abcab ", **fields: object) -> CharacterTokenizer:
    return CharacterConfig.model_validate({"kind": "char", **fields}).build([], Counter(text))


UNIGRAM = unigram()


@given(texts=st.lists(st.text(max_size=40), max_size=4))
@settings(max_examples=150, deadline=None)
def test_every_text_comes_back(texts: list[str]) -> None:
    for tokenizer in (UNIGRAM, characters()):
        assert tokenizer.lossless
        for text, ids in zip(texts, tokenizer.encode_documents(texts), strict=True):
            assert tokenizer.decode(ids) == text + "<eos>"
            assert (ids < tokenizer.vocab_size).all()
            assert np.flatnonzero(ids == tokenizer.end_of_document).tolist() == [len(ids) - 1]


@pytest.mark.parametrize("size", [20, 10_000])
def test_unigram_begins_with_the_pieces_that_cover_the_most(size: int) -> None:
    random = np.random.default_rng(size)
    words = [("".join("abcd"[int(one)] for one in random.integers(0, 4, 30)), 1 + number) for number in range(20)]
    words += [("b", 3), ("abcabcabcabcabcabcabc", 1), ("x", 1)]
    found: Counter[str] = Counter()
    for word, count in words:
        for start, stop in combinations(range(len(word) + 1), 2):
            found[word[start:stop]] += count
    longer = [piece for piece, count in found.items() if 1 < len(piece) <= LONGEST_PIECE and count > 1]
    longer.sort(key=lambda piece: (-found[piece] * len(piece), piece))
    expected = {piece: found[piece] for piece in [*"abcdxz", *longer[:size]]}
    assert list(_seeds([*"abcdxz"], words, size).items()) == list(expected.items())


def test_unigram_counts_long_words_in_bounded_memory() -> None:
    """Such as base64, or languages without spaces: nearly every longer piece is there once."""
    random = np.random.default_rng(0)
    letters = "".join(chr(97 + int(one)) for one in random.integers(0, 26, 60_000))
    words = [(letters[start : start + LONGEST_WORD], 1) for start in range(0, len(letters), LONGEST_WORD)]
    tracemalloc.start()
    _seeds([*"abc"], words, 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_characters_are_ordered_by_count() -> None:
    tokenizer = characters("abcab ", rare="unknown", min_count=2)
    assert not tokenizer.lossless
    assert tokenizer.encode_documents(["ba c"])[0].tolist() == [3, 2, 1, 1, 0]
    assert tokenizer.decode([3, 2, 1, 0]) == "ba<unk><eos>"
    spelled = characters("ab", rare="bytes")
    assert spelled.encode_documents(["aéb"])[0].tolist() == [257, 1 + 0xC3, 1 + 0xA9, 258, 0]


@pytest.mark.parametrize("rare", ["bytes", "unknown"])
def test_characters_are_the_same_after_storing(rare: str, tmp_path: Path) -> None:
    tokenizer = characters("zß\u2028\U0001f600", rare=rare)
    tokenizer.save(tmp_path)
    again = load_tokenizer(tmp_path, tokenizer.hash)
    text = "ß\U0001f600\u2028?"
    assert np.array_equal(again.encode_batch([text])[0], tokenizer.encode_batch([text])[0])
    assert again.lossless == (rare == "bytes")
    assert json.loads((tmp_path / "tokenizer.json").read_text())["characters"] == "zß\u2028\U0001f600"


@pytest.mark.parametrize("kind", [BytePairConfig, UnigramConfig])
def test_a_vocabulary_that_is_smaller_than_asked_for_is_told(kind: type[BytePairConfig] | type[UnigramConfig]) -> None:
    config = kind.model_validate({"kind": "bpe" if kind is BytePairConfig else "unigram", "vocab_size": 5000})
    size = config.build(["abab abab cdcd"] * 3, Counter()).vocab_size
    assert size < 300
    assert config.told(size).startswith(f"vocabulary {size}, not tokenizer.vocab_size 5,000 (no more pieces")
    assert config.told(5000) == "vocabulary 5,000"
