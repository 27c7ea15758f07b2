"""An interpolated n-gram model: what is kept of the counts, and how texts are scored with it.

For a history h = w_1 .. w_{k-1} of a k-gram hw, and h' = w_2 .. w_{k-1}:

    p_k(w | h) = alpha(hw) + gamma(h) p_{k-1}(w | h')        where h was followed by anything in training
    p_k(w | h) = p_{k-1}(w | h')                             where it was not
    p_0(w)     = 1 / V

alpha is zero for what was not seen. Every history's alphas and its gamma add up to one, and so do the probabilities.

N-grams of k tokens have numbers 0 .. num_k - 1 in the order of their keys, (number of the first k - 1 tokens) * V +
(the last); a token is its own number, and V is the start of a line, which is only ever a history. A search for all the
k-grams of a text is then one `searchsorted`, given the numbers of its (k-1)-grams.

Legend: T positions of a text with the starts of its lines, N its tokens, C tokens of a context, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.typing import ArrayLike

from data_pipeline.config import BadInput
from evals.baselines.baseline import Floats, Ids, checked_ids

FORMAT = 1
MISSING = -1
UNREADABLE = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError, BadZipFile)


@dataclass(frozen=True, eq=False)
class Level:
    """The k-grams of a model."""

    keys: Ids
    """[num_k], ascending."""
    alpha: Floats
    """[num_k]: the discounted share of each k-gram in what followed its history; for k = 1 also the start's, zero."""
    gamma: Floats
    """[num_{k-1}]: what the discounts left over at each history; one where nothing followed it. [1] for k = 1."""
    discounts: Floats
    """[3]: D_1, D_2, D_3+."""
    estimated: bool
    """Whether the discounts were estimated from counts of counts; else they are the fixed ones."""

    def find(self, prefix_T: Ids, word_T: Ids, *, vocabulary_size: int) -> Ids:
        """Numbers of the k-grams made of a (k-1)-gram and a token, MISSING where there is none; [T], [T] -> [T]."""
        key_T = prefix_T * vocabulary_size + word_T
        place_T = np.searchsorted(self.keys, key_T)
        place_T[place_T == len(self.keys)] = 0
        known_T = (prefix_T != MISSING) & (word_T < vocabulary_size)
        if len(self.keys):
            known_T &= self.keys[place_T] == key_T
        else:
            known_T[:] = False
        return np.where(known_T, place_T, MISSING)


def with_starts(ids_N: Ids, *, vocabulary_size: int, end_of_line: int | None) -> Ids:
    """A text with V before each of its lines; before the first token only where lines have no end; [N] -> [T]."""
    places = np.zeros(1, dtype=np.int64)
    if end_of_line is not None:
        places = np.append(places, np.flatnonzero(ids_N[:-1] == end_of_line) + 1)
    return np.insert(ids_N, places, vocabulary_size)


@dataclass(frozen=True, eq=False)
class NGramModel:
    """A fitted model (see the module); `KneserNey.fit` makes one."""

    vocabulary_size: int
    end_of_line: int | None
    """Ends a line: the next token's history starts anew. None: all of a text is one line."""
    levels: tuple[Level, ...]
    """For k = 1, 2, .. order."""

    @property
    def order(self) -> int:
        return len(self.levels)

    def _starts(self, ids_N: Ids) -> Ids:
        return with_starts(ids_N, vocabulary_size=self.vocabulary_size, end_of_line=self.end_of_line)

    def _numbers(self, text_T: Ids) -> Iterator[tuple[Level, Ids, Ids]]:
        """For k = 2 .. order: the level, the numbers of each position's history, and of the k-gram that it ends."""
        number_T = text_T
        for level in self.levels[1:]:
            history_T = np.concatenate(([MISSING], number_T[:-1]))
            number_T = level.find(history_T, text_T, vocabulary_size=self.vocabulary_size)
            yield level, history_T, number_T

    def nats(self, ids: ArrayLike) -> Floats:
        """-log p of every token given those before it in its line; [N] -> [N]. A text starts where a line starts."""
        text_T = self._starts(checked_ids(ids, vocabulary_size=self.vocabulary_size))
        first = self.levels[0]
        p_T = first.alpha[text_T] + first.gamma[0] / self.vocabulary_size
        for level, history_T, number_T in self._numbers(text_T):
            seen_T = history_T != MISSING
            p_T[seen_T] *= level.gamma[history_T[seen_T]]
            found_T = number_T != MISSING
            p_T[found_T] += level.alpha[number_T[found_T]]
        return -np.log(p_T[text_T < self.vocabulary_size])

    def log_prob(self, context: ArrayLike, continuation: ArrayLike) -> float:
        """log p(continuation | context) in nats; [C], [N] -> a number, zero for an empty continuation."""
        context_C = checked_ids(context, vocabulary_size=self.vocabulary_size, name="context")
        continuation_N = checked_ids(continuation, vocabulary_size=self.vocabulary_size, name="continuation")
        near_C = context_C[-self.order :]  # longer than a history, so that the line that starts here is not seen to
        nats = self.nats(np.concatenate((near_C, continuation_N)))
        return float(np.sum(-nats[len(near_C) :]))

    def next_log_probs(self, context: ArrayLike) -> Floats:
        """log p of every token that may follow; [C] -> [V]."""
        context_C = checked_ids(context, vocabulary_size=self.vocabulary_size, name="context")
        any_token = [0]
        text_T = self._starts(np.concatenate((context_C[-self.order :], any_token)))
        first = self.levels[0]
        p_V = first.alpha[:-1] + first.gamma[0] / self.vocabulary_size
        for level, history_T, _ in self._numbers(text_T):
            if history_T[-1] == MISSING:
                break
            low_key = history_T[-1] * self.vocabulary_size
            low, high = np.searchsorted(level.keys, (low_key, low_key + self.vocabulary_size))
            p_V *= level.gamma[history_T[-1]]
            p_V[level.keys[low:high] - low_key] += level.alpha[low:high]
        return np.log(p_V)

    def describe(self) -> dict[str, Any]:
        """What the model is, for the record of a result."""
        return {
            "model": "interpolated modified Kneser-Ney",
            "order": self.order,
            "vocabulary_size": self.vocabulary_size,
            "histories": "within a line" if self.end_of_line is not None else "across lines",
            "num_ngrams": [len(level.keys) for level in self.levels],
            "discounts": [level.discounts.tolist() for level in self.levels],
            "fixed_discounts_at": [k for k, level in enumerate(self.levels, 1) if not level.estimated],
        }

    def save(self, path: str | Path) -> None:
        """Write the model as .npz (arrays only, no pickle)."""
        end = -1 if self.end_of_line is None else self.end_of_line
        arrays: dict[str, Any] = {"description": np.array([FORMAT, self.order, self.vocabulary_size, end])}
        for k, level in enumerate(self.levels, 1):
            arrays |= {f"keys_{k}": level.keys, f"alpha_{k}": level.alpha, f"gamma_{k}": level.gamma}
            arrays |= {f"discounts_{k}": level.discounts, f"estimated_{k}": np.array(level.estimated)}
        with Path(path).open("wb") as file:
            np.savez(file, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> "NGramModel":
        """Read what `save` wrote; raises BadInput for anything else."""
        try:
            with ZipFile(path) as archive:
                if archive.testzip() is not None:
                    raise BadZipFile("damaged")
            with np.load(path, allow_pickle=False) as file:
                stored = dict(file)
            version, order, vocabulary_size, end = stored["description"].tolist()
            levels = tuple(
                Level(
                    keys=stored[f"keys_{k}"],
                    alpha=stored[f"alpha_{k}"],
                    gamma=stored[f"gamma_{k}"],
                    discounts=stored[f"discounts_{k}"],
                    estimated=bool(stored[f"estimated_{k}"]),
                )
                for k in range(1, order + 1)
            )
        except UNREADABLE as error:
            raise BadInput(f"{path}: is no stored n-gram model ({error}); fit and save one") from error
        if version != FORMAT:
            raise BadInput(f"{path}: format {version}, but this version reads {FORMAT}; fit the model again")
        return cls(vocabulary_size, None if end < 0 else end, levels)
