"""Tokenizers: lossless where they say so, the same after storing, and blind to special tokens in text."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from data_pipeline.config import BadInput, Corrupt
from data_pipeline.tokenizers import TokenizerConfig
from data_pipeline.tokenizers.byte import ByteConfig, ByteTokenizer
from data_pipeline.tokenizers.byte_pairs import LONGEST_CALL, BytePairConfig, BytePairTokenizer, TokenizerFileConfig
from data_pipeline.tokenizers.division import LONGEST_RUN, divided
from data_pipeline.tokenizers.stored import load_tokenizer
from data_pipeline.tokenizers.tokenizer import SETTINGS_FILE, VOCABULARY_FILE, Tokenizer
from data_pipeline.tokenizers.word import WordConfig, WordTokenizer

TRAINING = ["the cat sat on the mat; the dog didn't. naïve 東京\n\n    def f(x):\n        return x\n"] * 40

STRANGE = [
    "",
    " ",
    "\n",
    "<eos>",
    "a<eos>b <unk> <|endoftext|>",
    "tabs\tand\r\nreturns \r",
    "   leading and trailing   ",
    "e\u0301 \u00a0 \u2028 \u3000 \ufeff\ufffd \x00\x1f",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0010ffff",
    "I'm you're'S 12345 $%^&*()",
]


def random_texts(count: int) -> list[str]:
    random = np.random.default_rng(5)
    alphabet = [*"ab  \n\t.'s1é東\u00a0\x1c\x85", "<eos>", " the", "\U0001f600"]
    return ["".join(alphabet[int(i)] for i in random.integers(0, len(alphabet), 50)) for _ in range(count)]


@pytest.fixture(scope="module")
def byte_pairs() -> BytePairTokenizer:
    return BytePairConfig(kind="bpe", vocab_size=320).build(TRAINING, Counter())


def word_tokenizer(text: str, **fields: object) -> WordTokenizer:
    return WordConfig.model_validate({"kind": "word", **fields}).build([], Counter(text.split()))


@pytest.mark.parametrize("kind", ["bpe", "byte"])
def test_text_comes_back_unchanged(kind: str, byte_pairs: BytePairTokenizer) -> None:
    tokenizer: Tokenizer = byte_pairs if kind == "bpe" else ByteTokenizer()
    texts = [*STRANGE, *random_texts(200), *TRAINING[:1]]
    for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
        assert ids.dtype == np.uint16
        assert tokenizer.decode(ids) == text
        assert tokenizer.end_of_document not in ids
        assert (ids < tokenizer.vocab_size).all()


def test_stored_documents_end_once(byte_pairs: BytePairTokenizer) -> None:
    for tokenizer in (byte_pairs, ByteTokenizer()):
        for ids, plain in zip(tokenizer.encode_documents(STRANGE), tokenizer.encode_batch(STRANGE), strict=True):
            assert np.array_equal(ids, [*plain, tokenizer.end_of_document])
            assert tokenizer.decode(ids).endswith("<eos>")


def test_byte_pairs_compress_what_they_were_trained_on(byte_pairs: BytePairTokenizer) -> None:
    assert 257 < byte_pairs.vocab_size <= 320
    (ids,) = byte_pairs.encode_batch(TRAINING[:1])
    assert len(ids) < 0.6 * len(TRAINING[0].encode())


def test_training_is_repeatable_and_depends_on_the_text(byte_pairs: BytePairTokenizer) -> None:
    config = BytePairConfig(kind="bpe", vocab_size=320)
    assert config.build(iter(TRAINING), Counter()).hash == byte_pairs.hash
    assert config.build([text.upper() for text in TRAINING], Counter()).hash != byte_pairs.hash


def test_a_giant_text_is_divided_without_a_trace(byte_pairs: BytePairTokenizer) -> None:
    text = " ".join(random_texts(4000))
    assert len(text) > 2 * LONGEST_CALL
    undivided = byte_pairs._library.encode(text, add_special_tokens=False).ids
    assert np.array_equal(byte_pairs.reference([text])[0], undivided)
    assert np.array_equal(byte_pairs.encode_batch([text])[0], undivided)


@pytest.mark.parametrize("length", [1, 7])
def test_no_cut_changes_the_ids(length: int, byte_pairs: BytePairTokenizer) -> None:
    words = word_tokenizer(" ".join(TRAINING))
    for text in [*STRANGE, *random_texts(100)]:
        parts = list(divided(text, length))
        assert "".join(parts) == text
        for tokenizer in (byte_pairs, words):
            ids = np.concatenate(tokenizer.encode_batch(parts))
            assert np.array_equal(ids, tokenizer.encode_batch([text])[0]), text


def test_a_run_without_an_end_is_cut_where_memory_asks_for_it(byte_pairs: BytePairTokenizer) -> None:
    text = "the " + "a" * (3 * LONGEST_RUN) + " the"
    (ids,) = byte_pairs.encode_documents([text])
    assert byte_pairs.decode(ids) == text + "<eos>"
    parts = [text[: 2 * LONGEST_RUN], text[2 * LONGEST_RUN : -4], text[-4:]]
    assert np.array_equal(ids[:-1], np.concatenate(byte_pairs.encode_batch(parts)))


def test_words_count_as_the_benchmarks_do() -> None:
    tokenizer = word_tokenizer("b a b a b c <unk>", min_count=2)
    (ids,) = tokenizer.encode_documents([" b a \n\n c b\n"])
    assert tokenizer.vocab_size == 4
    assert tokenizer.decode([2, 3]) == "b a", "the most frequent word comes first"
    assert tokenizer.decode(ids) == "b a <eos>\n<eos>\n<unk> b <eos>"


@pytest.mark.parametrize(
    ("end_of_line", "text", "expected"),
    [
        (True, "a a\n", "a a <eos>"),
        (True, "a a", "a a <eos>"),
        (True, "a\na", "a <eos>\na <eos>"),
        (True, "", "<eos>"),
        (False, "a\na\n", "a a <eos>"),
        (False, "a <eos>", "a <unk> <eos>"),
    ],
)
def test_each_word_document_ends_exactly_once(end_of_line: bool, text: str, expected: str) -> None:
    tokenizer = word_tokenizer("a <eos>", end_of_line=end_of_line)
    assert tokenizer.decode(tokenizer.encode_documents([text])[0]) == expected


def test_a_large_vocabulary_needs_four_bytes() -> None:
    words = [f"w{number}" for number in range(70_000)]
    tokenizer = word_tokenizer(" ".join(words))
    (ids,) = tokenizer.encode_batch([" ".join(words)])
    assert ids.dtype == np.uint32
    assert sorted(ids) == list(range(2, 70_002))


def test_no_frequent_word_is_refused() -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.min_count 3: no word"):
        word_tokenizer("a a b", min_count=3)


def test_all_kinds_are_the_same_after_storing(byte_pairs: BytePairTokenizer, tmp_path: Path) -> None:
    byte_pairs.save(tmp_path / "bpe")
    path = str(tmp_path / "bpe" / VOCABULARY_FILE)
    from_file = TokenizerFileConfig(kind="file", path=path, end_of_document="<eos>").build([], Counter())
    tokenizers = [
        byte_pairs,
        from_file,
        ByteTokenizer(),
        word_tokenizer("a b c"),
        word_tokenizer("a", end_of_line=False),
    ]
    for number, tokenizer in enumerate(tokenizers):
        directory = tmp_path / str(number)
        tokenizer.save(directory)
        again = load_tokenizer(directory, tokenizer.hash)
        assert type(again) is type(tokenizer)
        assert (again.kind, again.vocab_size, again.end_of_document) == (
            tokenizer.kind,
            tokenizer.vocab_size,
            tokenizer.end_of_document,
        )
        for one, other in zip(again.encode_documents(STRANGE), tokenizer.encode_documents(STRANGE), strict=True):
            assert np.array_equal(one, other)
    assert len({tokenizer.hash for tokenizer in tokenizers}) == len(tokenizers)


def test_a_tokenizer_that_another_version_wrote_keeps_its_hash(byte_pairs: BytePairTokenizer, tmp_path: Path) -> None:
    """Earlier versions of the library wrote a merge as one string."""
    byte_pairs.save(tmp_path)
    content = json.loads((tmp_path / VOCABULARY_FILE).read_text())
    content["model"]["merges"] = [" ".join(pair) for pair in content["model"]["merges"]]
    (tmp_path / VOCABULARY_FILE).write_text(json.dumps(content))
    stored = load_tokenizer(tmp_path)
    assert stored.hash != byte_pairs.hash
    files = [(tmp_path / name).read_text() for name in (SETTINGS_FILE, VOCABULARY_FILE)]
    assert stored.hash == hashlib.sha256("\0".join(files).encode()).hexdigest()
    stored.save(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again", stored.hash)
    assert np.array_equal(again.encode_batch(["the cat"])[0], byte_pairs.encode_batch(["the cat"])[0])


def test_a_tokenizer_file_needs_its_end_of_document(byte_pairs: BytePairTokenizer, tmp_path: Path) -> None:
    byte_pairs.save(tmp_path)
    path = str(tmp_path / VOCABULARY_FILE)
    with pytest.raises(BadInput, match=r"end_of_document '<\|endoftext\|>': not a token"):
        TokenizerFileConfig(kind="file", path=path).build([], Counter())
    with pytest.raises(BadInput, match=r"tokenizer\.path .*cannot be read"):
        TokenizerFileConfig(kind="file", path=str(tmp_path / "none.json")).build([], Counter())


@pytest.mark.parametrize("name", [VOCABULARY_FILE, SETTINGS_FILE])
def test_damaged_or_exchanged_files_are_noticed(name: str, byte_pairs: BytePairTokenizer, tmp_path: Path) -> None:
    byte_pairs.save(tmp_path)
    path = tmp_path / name
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(Corrupt, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    path.unlink()
    with pytest.raises(BadInput, match=r"launch\.py prepare"):
        load_tokenizer(tmp_path)
    word_tokenizer("a").save(tmp_path)
    with pytest.raises(Corrupt, match="its hash is"):
        load_tokenizer(tmp_path, byte_pairs.hash)


def test_the_union_is_chosen_by_kind_and_knows_its_fields() -> None:
    adapter: TypeAdapter[TokenizerConfig] = TypeAdapter(TokenizerConfig)
    assert isinstance(adapter.validate_python({"kind": "byte"}), ByteConfig)
    with pytest.raises(ValidationError, match="vocab_size"):
        adapter.validate_python({"kind": "bpe", "vocab_size": 256})
    with pytest.raises(ValidationError, match="min_count"):
        adapter.validate_python({"kind": "byte", "min_count": 1})
