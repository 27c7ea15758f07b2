"""Text as items: boundaries, what does not fit, and running text of which every token is scored once."""

from collections.abc import Sequence

import numpy as np
import pytest

from data_pipeline.config import BadInput
from evals.scoring.encoding import CannotBeAsked, Request, encode_requests, fit, windows

START = 99


class Characters:
    """A character is a token, but a space joins the letter after it."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        found = []
        for text in texts:
            ids, place = [], 0
            while place < len(text):
                size = 2 if text[place] == " " and place + 1 < len(text) else 1
                ids.append(hash_of(text[place : place + size]))
                place += size
            found.append(np.array(ids, dtype=np.uint16))
        return found


def hash_of(piece: str) -> int:
    return ord(piece[-1]) + (1000 if len(piece) == 2 else 0)


def encode(context: str, continuation: str, max_length: int | None = None) -> tuple[list[int], list[int], int]:
    (one,) = encode_requests([Request(context, continuation)], Characters(), start=START, max_length=max_length)
    return one.item.context.tolist(), one.item.continuation.tolist(), one.dropped


def ids(text: str) -> list[int]:
    return Characters().encode_batch([text])[0].tolist()


def test_the_boundary_is_where_the_context_ends() -> None:
    assert encode("ab", " cd") == (ids("ab"), ids(" cd"), 0)


def test_spaces_at_the_end_of_a_context_belong_to_the_continuation() -> None:
    assert encode("ab ", "cd") == (ids("ab"), ids(" cd"), 0)


def test_an_empty_context_is_the_start() -> None:
    assert encode("", "ab") == ([START], ids("ab"), 0)


class Nothing:
    """Has no token for a blank, and one of its own that begins a text."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([START if word == "<s>" else len(word) for word in text.split()]) for text in texts]


def test_a_context_without_a_token_is_the_start_and_a_start_is_never_scored() -> None:
    for context, continuation, wanted in (
        ("  ", "a bcd", [1, 3]),
        ("", "<s> a bcd", [1, 3]),
        ("", "a <s>", [1, START]),
    ):
        (one,) = encode_requests([Request(context, continuation)], Nothing(), start=START, max_length=None)
        assert (one.item.context.tolist(), one.item.continuation.tolist()) == ([START], wanted)


def test_what_a_tokenizer_puts_before_texts_stands_before_contexts_and_is_dropped_first() -> None:
    requests = [Request("ab", " cd"), Request("", "cd"), Request("abc", "de")]
    found = encode_requests(requests, Characters(), start=START, max_length=5, prefix=(7, 8))
    contexts = [one.item.context.tolist() for one in found]
    assert contexts == [[7, 8, *ids("ab")], [START], [8, *ids("abc")]]
    assert [one.dropped for one in found] == [0, 0, 1]


def test_what_does_not_fit_is_dropped_from_the_beginning_and_counted() -> None:
    assert encode("abcdef", "gh", max_length=4) == (ids("def"), ids("gh"), 3)
    assert encode("abc", "gh", max_length=4) == (ids("abc"), ids("gh"), 0)


def test_a_continuation_must_have_a_token_and_fit() -> None:
    with pytest.raises(BadInput, match="the continuation '' has no token after 'ab'"):
        encode("ab", "")
    with pytest.raises(BadInput, match="a continuation of 5 tokens does not fit: the model reads 4 at a time"):
        encode("ab", "cdefg", max_length=4)
    assert fit(np.arange(9), np.arange(4), 4).item.context.tolist() == [8]


@pytest.mark.parametrize(
    ("continuation", "message"), [("", "the continuation '' has"), ("defgh", "a continuation of 5")]
)
def test_who_cannot_be_asked_is_named(continuation: str, message: str) -> None:
    asked = [Request("ab", "c"), Request("ab", continuation), Request("ab", "d")]
    names = ["example 1", "example 2", "example 3"]
    with pytest.raises(CannotBeAsked, match=rf"^example 2: {message}"):
        encode_requests(asked, Characters(), start=START, max_length=4, owners=[1, 2, 3], names=names)


class JoinsLetters(Characters):
    """`th` is one token."""

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([*map(ord, text.replace("th", "\u00fe"))]) for text in texts]


def test_boundaries_within_tokens_are_told() -> None:
    asked = [Request("at", "ha"), Request("at", "a"), Request("ath", "a")]
    found = encode_requests(asked, JoinsLetters(), start=START, max_length=None)
    assert [one.spanned for one in found] == [True, False, False]


def test_a_context_of_several_continuations_is_cut_once() -> None:
    asked = [Request("abcdef", "gh"), Request("abcdef", "g"), Request("abcdef", "ghi"), Request("xbcdef", "g")]
    found = encode_requests(asked, Characters(), start=START, max_length=4, owners=[0, 0, 1, 1])
    kept = [one.item.context.tolist() for one in found]
    assert kept == [ids("def"), ids("def"), ids("ef"), ids("cdef")]
    assert [one.dropped for one in found] == [3, 3, 4, 2]


@pytest.mark.parametrize("length", [1, 4, 5, 8, 9, 23])
@pytest.mark.parametrize("stride", [1, 2, 4, None])
def test_every_token_of_running_text_is_scored_once(length: int, stride: int | None) -> None:
    text = np.arange(100, 100 + length)
    items = windows(text, start=START, max_length=4, stride=stride)
    assert np.concatenate([item.continuation for item in items]).tolist() == text.tolist()
    read = [START, *text.tolist()]
    done = 0
    for item in items:
        seen = item.context.tolist()
        assert seen == read[done + 1 - len(seen) : done + 1], "the tokens right before, and no others"
        assert item.num_read <= 4
        done += len(item.continuation)
    if stride is not None:
        assert all(len(item.continuation) <= stride for item in items[1:])
        assert all(item.num_read == 4 for item in items[1:]), "each window is full"


def test_memory_reads_it_as_one_and_bad_strides_are_refused() -> None:
    (item,) = windows(np.arange(9), start=START, max_length=None)
    assert (item.context.tolist(), item.continuation.tolist()) == ([START], list(range(9)))
    for stride in (0, 5):
        with pytest.raises(BadInput, match=f"stride {stride}: must be from 1 to 4"):
            windows(np.arange(9), start=START, max_length=4, stride=stride)
    with pytest.raises(BadInput, match="has no token"):
        windows(np.arange(0), start=START, max_length=4)
