"""The faster engine gives the ids of the reference for any text, and is not used where it might not."""

import json
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, normalizers, pre_tokenizers
from tokenizers import Tokenizer as LibraryTokenizer

from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer
from data_pipeline.tokenizers.engine import LONGEST_WHITE_SPACE, Engine, differing_classes, unsupported
from data_pipeline.tokenizers.hard_texts import HARD_TEXTS
from tests.data_pipeline.tokenizers.vocabularies import gpt2, trained

VOCABULARIES = pytest.mark.parametrize("vocabulary", [trained, gpt2], ids=["trained", "gpt2"])

FRAGMENTS = st.sampled_from(
    [
        "the",
        " the",
        "'s",
        "'ll",
        "'",
        "don't",
        " ",
        "  ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "\u2003",
        "\u3000",
        "\x85",
        "\x00",
        "\x1c",
        "\x1f",
        "\x7f",
        "<eos>",
        "<|endoftext|>",
        "<unk>",
        "é",
        "e\u0301",
        "東京",
        "дом",
        "हिन्दी",
        "👩\u200d👧",
        "🇩🇪",
        "\U0010ffff",
        "1",
        "²",
        "½",
        "٣",
        "...",
        "==",
        "_",
        "\ufeff",
        "a" * 40,
        " " * 40,
        "ab" * 20,
    ]
)
TEXTS = st.one_of(st.lists(FRAGMENTS, max_size=30).map("".join), st.text(max_size=60))


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return len(one) == len(other) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(one, other, strict=True)
    )


@VOCABULARIES
@given(texts=st.lists(TEXTS, max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_texts_have_the_ids_of_the_reference(vocabulary: Callable[[], BytePairTokenizer], texts: list[str]) -> None:
    tokenizer = vocabulary()
    assert tokenizer.engine is not None
    reference = tokenizer.reference(texts)
    assert equal(tokenizer.encode_batch(texts), reference)
    end = np.array([tokenizer.end_of_document], dtype=tokenizer.dtype)
    assert equal(tokenizer.encode_documents(texts), [np.concatenate([ids, end]) for ids in reference])
    assert [tokenizer.decode(ids) for ids in reference] == texts
    easy = [text for text in texts if tokenizer.engine.can_encode(text)]
    assert all("\0" in text for text in texts if text not in easy), "nothing else is left to the reference"
    assert equal(tokenizer.engine.encode(easy, with_end=False), tokenizer.reference(easy))


@VOCABULARIES
@pytest.mark.parametrize("unit", ["a", " ", "\n", "-", "é", "1", "ab", "東", "\u00a0 "])
def test_long_runs_have_the_ids_of_the_reference(vocabulary: Callable[[], BytePairTokenizer], unit: str) -> None:
    texts = [unit * 3000, unit * 3000 + "x", "x" + unit * 500]
    assert equal(vocabulary().encode_batch(texts), vocabulary().reference(texts))


@pytest.mark.parametrize("tail", ["", "x"])
def test_a_million_white_spaces_are_left_to_the_reference(tail: str) -> None:
    """tiktoken's stack overflows at them."""
    tokenizer, text = trained(), " " * (1 << 20) + tail
    assert tokenizer.engine is not None
    assert not tokenizer.engine.can_encode("x" + " " * 2 * LONGEST_WHITE_SPACE + "x")
    assert tokenizer.engine.can_encode(" x" * LONGEST_WHITE_SPACE)
    (ids,) = tokenizer.encode_batch([text])
    assert tokenizer.decode(ids) == text


def test_both_libraries_class_the_characters_of_unicode_alike() -> None:
    """For the versions in constraints.txt; where it fails, take COMPARED_CLASSES back, and texts are looked at."""
    assert differing_classes().tolist() == []


def altered(change: Callable[[LibraryTokenizer], None]) -> LibraryTokenizer:
    library = LibraryTokenizer.from_str(trained().vocabulary_json())
    change(library)
    return library


def with_merges(change: Callable[[list[list[str]], dict[str, int]], None]) -> LibraryTokenizer:
    content = json.loads(trained().vocabulary_json())
    change(content["model"]["merges"], content["model"]["vocab"])
    return LibraryTokenizer.from_str(json.dumps(content))


def another_pair(merges: list[list[str]], vocabulary: dict[str, int]) -> None:
    """`the` out of t and he, of which he comes too late ever to meet t: its own text becomes th, e."""
    for token in ("qx", "xz", "qxz"):
        vocabulary[token] = len(vocabulary)
    merges += [["q", "x"], ["x", "z"], ["q", "xz"]]


def forgotten_byte(merges: list[list[str]], vocabulary: dict[str, int]) -> None:
    vocabulary["東"] = vocabulary.pop("ÿ")


def setting(name: str, value: object) -> Callable[[LibraryTokenizer], None]:
    return lambda library: setattr(library, name, value)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (lambda: altered(setting("normalizer", normalizers.NFC())), "a normalizer"),
        (lambda: altered(setting("pre_tokenizer", pre_tokenizers.Whitespace())), "GPT-2's pattern"),
        (lambda: altered(setting("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True))), "GPT-2's pattern"),
        (lambda: altered(lambda library: library.add_tokens([AddedToken("the")]) and None), "added tokens"),
        (lambda: altered(lambda library: setattr(library.model, "dropout", 0.5)), "dropout"),
        (lambda: altered(lambda library: setattr(library.model, "ignore_merges", True)), "ignore_merges"),
        (lambda: with_merges(another_pair), "not merged to it"),
        (lambda: with_merges(forgotten_byte), "missing in its vocabulary"),
    ],
)
def test_other_tokenizers_are_left_to_the_reference(library: Callable[[], LibraryTokenizer], reason: str) -> None:
    found = unsupported(library())
    assert found is not None
    assert reason in found
    tokenizer = BytePairTokenizer(library(), kind="file", end_of_document="<eos>")
    assert tokenizer.engine is None
    if reason != "dropout":
        assert equal(tokenizer.encode_batch(HARD_TEXTS), tokenizer.reference(HARD_TEXTS))


@pytest.mark.parametrize("seen", ["at load", "in the corpus"])
def test_an_engine_that_differs_is_found_and_not_used(seen: str) -> None:
    """One id is another: of a letter in the fixed texts, or of one that only the corpus has."""
    library = LibraryTokenizer.from_str(trained().vocabulary_json())
    tokenizer = BytePairTokenizer(library, kind="bpe", end_of_document="<eos>")

    class Wrong(Engine):
        def encode(self, texts: object, *, with_end: bool) -> list[np.ndarray]:
            ids = super().encode(texts, with_end=with_end)  # type: ignore[arg-type]
            wrong = tokenizer.reference(["x" if seen == "at load" else "\u0133"])[0][-1]
            return [np.where(one == wrong, one + 1, one).astype(one.dtype) for one in ids]

    wrong = Wrong(library, tokenizer.end_of_document, tokenizer.dtype)
    texts = HARD_TEXTS if seen == "at load" else ["\u0133\u0133", "a"]
    assert tokenizer.engine is not None
    tokenizer.engine = wrong
    with pytest.warns(RuntimeWarning, match="tiktoken and tokenizers differ"):
        encoded = tokenizer.encode_batch(texts)
    assert equal(encoded, tokenizer.reference(texts))
    assert tokenizer.engine is None


def test_the_engine_of_an_intact_vocabulary_does_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trained().engine is not None


def test_the_hash_does_not_depend_on_the_engine() -> None:
    before = LibraryTokenizer.from_str(trained().vocabulary_json())
    tokenizer = BytePairTokenizer(before, kind="bpe", end_of_document="<eos>")
    unused = tokenizer.hash
    tokenizer.encode_batch(HARD_TEXTS)
    assert tokenizer.hash == unused == trained().hash
