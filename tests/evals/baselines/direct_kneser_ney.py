"""Modified Kneser-Ney straight from the paper's formulas: dictionaries of tuples, nothing shared with the subject."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Literal

START = "<s>"
Gram = tuple[int | str, ...]


class DirectKneserNey:
    """p(word | history) for a list of ids; slow. `counts="raw"` is the mistake of leaving continuation counts out."""

    def __init__(
        self,
        ids: Sequence[int],
        *,
        order: int,
        vocabulary_size: int,
        end_of_line: int | None,
        counts: Literal["continuation", "raw"] = "continuation",
    ) -> None:
        self.ids, self.order, self.vocabulary_size = list(ids), order, vocabulary_size
        self.end_of_line, self.counts = end_of_line, counts

    @cached_property
    def lines(self) -> list[list[int]]:
        lines: list[list[int]] = [[]]
        for token in self.ids:
            lines[-1].append(token)
            if token == self.end_of_line:
                lines.append([])
        return [line for line in lines if line]

    @cached_property
    def occurrences(self) -> Counter[Gram]:
        """How often each n-gram of any length is said; those that begin with the start of a line among them."""
        said: Counter[Gram] = Counter()
        for line in self.lines:
            marked: list[int | str] = [START, *line]
            for last in range(1, len(marked)):
                for first in range(max(0, last - self.order + 1), last + 1):
                    said[tuple(marked[first : last + 1])] += 1
        return said

    @cached_property
    def came_before(self) -> dict[Gram, set[int | str]]:
        """For each n-gram: what stood before it."""
        before: dict[Gram, set[int | str]] = defaultdict(set)
        for gram in self.occurrences:
            if len(gram) > 1:
                before[gram[1:]].add(gram[0])
        return before

    def count(self, gram: Gram) -> int:
        """c(gram): occurrences in the highest order and after a line's start, else N_1+(. gram)."""
        if len(gram) == self.order or gram[0] == START or self.counts == "raw":
            return self.occurrences[gram]
        return len(self.came_before[gram]) if gram in self.came_before else 0

    @cached_property
    def following(self) -> dict[Gram, dict[int | str, int]]:
        """For each history: the count of every word that followed it."""
        following: dict[Gram, dict[int | str, int]] = defaultdict(dict)
        for gram in self.occurrences:
            following[gram[:-1]][gram[-1]] = self.count(gram)
        return following

    @cached_property
    def discounts(self) -> list[list[float]]:
        """By order from 1: D for the counts 0, 1, 2 and from 3 on."""
        by_order = []
        for length in range(1, self.order + 1):
            of_counts = Counter(self.count(gram) for gram in self.occurrences if len(gram) == length)
            n1, n2, n3, n4 = (of_counts[i] for i in (1, 2, 3, 4))
            estimates = [0.5, 1.0, 1.5]
            if n1 and n2 and n3 and n4:
                y = n1 / (n1 + 2 * n2)
                tried = [1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3]
                if min(tried) > 0:
                    estimates = tried
            by_order.append([0.0, *estimates])
        return by_order

    def probability(self, word: int, history: Gram) -> float:
        """p(word | history), of at most order - 1 tokens."""
        discount = self.discounts[len(history)]
        lower = self.probability(word, history[1:]) if history else 1 / self.vocabulary_size
        followers = self.following.get(history)
        if not followers:
            return lower
        total = sum(followers.values())
        numbers = [sum(count == i for count in followers.values()) for i in (1, 2)]
        numbers.append(sum(count >= 3 for count in followers.values()))
        gamma = sum(d * number for d, number in zip(discount[1:], numbers, strict=True)) / total
        count = followers.get(word, 0)
        return max(count - discount[min(count, 3)], 0) / total + gamma * lower

    def history(self, before: Sequence[int]) -> Gram:
        """What a model of this order sees of the tokens before one."""
        line: list[int | str] = [START]
        for token in before:
            line = [START] if token == self.end_of_line else [*line, token]
        return tuple(line[max(0, len(line) - self.order + 1) :]) if self.order > 1 else ()

    def next_probabilities(self, before: Sequence[int]) -> list[float]:
        history = self.history(before)
        return [self.probability(word, history) for word in range(self.vocabulary_size)]

    def probabilities(self, text: Sequence[int]) -> list[float]:
        return [self.probability(word, self.history(text[:place])) for place, word in enumerate(text)]
