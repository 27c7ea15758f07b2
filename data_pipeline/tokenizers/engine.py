"""A faster way to the same ids: tiktoken's core (https://github.com/openai/tiktoken) on a byte-level vocabulary.

The reference is the `tokenizers` library. The engine takes only what it can give exactly: pairs of bytes after GPT-2's
pattern, without a normalizer. tiktoken merges the neighbours whose *text* has the lowest rank, `tokenizers` the pair
that comes first in the list of merges. They are the same if each token's text, alone, is merged to that token: within a
text, neighbours x, y only arise as they do in xy alone, where they end as one; so that (x, y) is the pair in the list.

Many documents are encoded in one call, with a special token between: a special token divides the text before the
pattern sees it, and its rank stands where a document ends. Ranks are the order of the merges; a table gives the ids.
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tiktoken
import tokenizers
from tokenizers import Regex, normalizers
from tokenizers import Tokenizer as LibraryTokenizer

from data_pipeline.tokenizers.byte_alphabet import BYTE_OF, spelled

PATTERN = r"(?: ?\p{L}+|'(?:[sdmt]|ll|ve|re)| ?\p{N}+| ?[^\s\p{L}\p{N}]+)|\s++$|\s+(?!\S)|\s"
"""GPT-2's, written for speed: the alternatives that need not look ahead together, so that they are one automaton."""

SEPARATOR = "\0"
"""Between documents. One that holds it is left to the reference."""

LONGEST_WHITE_SPACE = 1 << 14
"""Characters, about: tiktoken's stack overflows at a run of a million."""

COMPARED_CLASSES = ("0.14.0", "0.23.3")
"""Versions of tiktoken and tokenizers whose letters, digits and white space a test has compared."""


class Engine:
    """Encodes as the library does."""

    def __init__(self, library: LibraryTokenizer, end_of_document: int, dtype: np.dtype) -> None:
        """ValueError, saying why, if this tokenizer is one that the engine cannot be sure to reproduce."""
        reason = unsupported(library)
        if reason:
            raise ValueError(reason)
        names = _by_rank(json.loads(library.to_str())["model"])
        ranks = {spelling: rank for rank, spelling in enumerate(map(spelled, names)) if spelling is not None}
        self._core = tiktoken.Encoding(
            "byte pairs", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={SEPARATOR: len(ranks)}
        )
        self._end_rank = len(ranks)
        self._ids = np.array([*map(library.token_to_id, names), end_of_document]).astype(dtype)
        self._ranks_are_ids = np.array_equal(self._ids, np.arange(len(self._ids)))

    def can_encode(self, text: str) -> bool:
        """Whether this text is within what the engine is sure of; the cost is small beside encoding it."""
        if SEPARATOR in text or _has_long_white_space(text):
            return False
        return text.isascii() or _without_differing_classes(text)

    def encode(self, texts: Sequence[str], *, with_end: bool) -> list[np.ndarray]:
        """The ids of texts that `can_encode`, with the id of the end of a document after each, if asked for."""
        joined = SEPARATOR.join([*texts, ""])
        ranks = self._core.encode_to_numpy(joined, allowed_special={SEPARATOR}, disallowed_special=())
        ids = ranks.astype(self._ids.dtype) if self._ranks_are_ids else self._ids[ranks]
        ends = np.flatnonzero(ranks == self._end_rank).tolist()
        starts = [0, *(end + 1 for end in ends)]
        return [ids[start : end + with_end] for start, end in zip(starts, ends, strict=False)]


def unsupported(library: LibraryTokenizer) -> str | None:
    """Why the engine cannot be sure of this tokenizer's ids; None if it can."""
    content = json.loads(library.to_str())
    reasons = (*_structure(content), *(_vocabulary(library, content["model"]) if _is_plain(content) else ()))
    return next(iter(reasons), None)


def _is_plain(content: dict[str, Any]) -> bool:
    return not list(_structure(content))


def _structure(content: dict[str, Any]) -> Iterator[str]:
    before, model = content["pre_tokenizer"] or {}, content["model"]
    if content["normalizer"] is not None:
        yield "it has a normalizer"
    if before.get("type") != "ByteLevel" or before.get("add_prefix_space") or not before.get("use_regex", True):
        yield "its words are not those of GPT-2's pattern"
    if any(not token["special"] for token in content["added_tokens"]):
        yield "it has added tokens that text may hold"
    if model.get("type") != "BPE":
        yield f"its model is {model.get('type')}, not pairs of bytes"
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges"):
        if model.get(name):
            yield f"its model has {name}"


def _vocabulary(library: LibraryTokenizer, model: dict[str, Any]) -> Iterator[str]:
    names = _by_rank(model)
    if any(spelled(name) is None or name not in model["vocab"] for name in names):
        yield "a byte or a merged token is missing in its vocabulary"
    elif len(set(names)) != len(names):
        yield "two merges make the same token"
    elif any([token.value for token in library.model.tokenize(name)] != [name] for name in names):
        yield "a token's own text is not merged to it"


def _by_rank(model: dict[str, Any]) -> list[str]:
    """All bytes, and what each merge makes, in the order of the merges."""
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return [*BYTE_OF, *("".join(merge) for merge in merges)]


def _has_long_white_space(text: str) -> bool:
    """Whether a run of twice the length may be there: then one of the fixed stretches is white throughout."""
    stretches = range(0, len(text) - LONGEST_WHITE_SPACE + 1, LONGEST_WHITE_SPACE)
    return any(text[start : start + LONGEST_WHITE_SPACE].isspace() for start in stretches)


_DIFFERING: list[np.ndarray] = []


def _without_differing_classes(text: str) -> bool:
    """Whether both libraries agree which of the text's characters are letters, digits, and white space."""
    if (tiktoken.__version__, tokenizers.__version__) == COMPARED_CLASSES:
        return True
    if not _DIFFERING:
        _DIFFERING.append(differing_classes())
    return not np.isin(np.frombuffer(text.encode("utf-32-le"), dtype="<u4"), _DIFFERING[0]).any()


def differing_classes() -> np.ndarray:
    """The characters of Unicode that the two libraries' versions of it class differently: none, or newly assigned."""
    every = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    alone = {bytes([byte]): byte for byte in range(256)}
    found: set[str] = set()
    for one, others in ((r"\p{L}+", r"\P{L}+"), (r"\p{N}+", r"\P{N}+"), (r"\s+", r"\S+")):
        core = tiktoken.Encoding(one, pat_str=one, mergeable_ranks=alone, special_tokens={})
        kept = core.encode_to_numpy(every, disallowed_special=()).astype(np.uint8).tobytes().decode()
        found |= set(kept) ^ set(normalizers.Replace(Regex(others), "").normalize_str(every))
    return np.array(sorted(map(ord, found)), dtype=np.uint32)
