"""A unigram language model of pieces (Kudo 2018, https://arxiv.org/abs/1804.10959).

The pieces are of UTF-8 bytes, within the words of GPT-2's pattern: every byte is one, so that it is lossless.

Training, after Kudo: from many pieces, those that make up the most of the words' characters, the probabilities are
estimated by how often each is in the most likely division of the words (by the library's model), and the pieces are
left out without which the words would lose the least likelihood; and so on, until there are as few as are wanted. All
sums are of whole numbers, in a fixed order, so that equal text gives equal probabilities: those of the library's own
trainer differ from run to run.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import Field
from tokenizers import models, pre_tokenizers

from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer, byte_level
from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, TokenizerTraining

SEEDS, KEPT, ESTIMATIONS = 4, 0.75, 2
"""Times as many pieces to begin with; the share that is kept each time; and how often probabilities are estimated
before."""

LONGEST_PIECE = 16
LONGEST_WORD = 1 << 10
"""Characters of one word that are looked at."""

Words = list[tuple[str, int]]
Counts = dict[str, int]


class UnigramConfig(TokenizerTraining):
    """Trained on a fixed sample of the train split."""

    kind: Literal["unigram"]
    vocab_size: int = Field(ge=257, le=1 << 20)
    """At most, with the 256 bytes and `<eos>`."""
    sample_bytes: int = Field(default=1 << 24, ge=1)
    """Text to train on: the documents whose ids have the lowest hashes, until there is as much."""

    @property
    def wanted_sample_bytes(self) -> int:
        return self.sample_bytes

    @property
    def wanted_vocab_size(self) -> int:
        return self.vocab_size

    def build(self, texts: Iterable[str], counts: Counter[str]) -> BytePairTokenizer:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        library = byte_level(_trained(alphabet, _words(texts), self.vocab_size - 1))
        library.add_special_tokens([END_OF_DOCUMENT])
        return BytePairTokenizer(library, kind="unigram", end_of_document=END_OF_DOCUMENT)


def _words(texts: Iterable[str]) -> Words:
    """The texts' words as the pre-tokenizer spells them, with their counts, in alphabetical order."""
    split = byte_level(models.Unigram()).pre_tokenizer.pre_tokenize_str
    return sorted(Counter(word[:LONGEST_WORD] for text in texts for word, _ in split(text)).items())


def _trained(alphabet: list[str], words: Words, size: int) -> models.Unigram:
    """The model of `size` pieces at most, the alphabet among them."""
    counts = _seeds(alphabet, words, SEEDS * size)
    while True:
        for _ in range(ESTIMATIONS):
            counts = _divided(_model(counts), counts, words)
        if len(counts) <= size:
            return _model(counts)
        counts = _pruned(alphabet, counts, max(size, int(KEPT * len(counts))))


def _seeds(alphabet: list[str], words: Words, size: int) -> Counts:
    """How often each piece is in the words, wherever it begins, of those that cover the most characters."""
    letters: Counter[str] = Counter()
    for word, count in words:
        for letter in word:
            letters[letter] += count
    longer: Counts = {}
    repeated: Counts = {letter: count for letter, count in letters.items() if count > 1}
    for length in range(2, LONGEST_PIECE + 1):
        words = [(word, count) for word, count in words if len(word) >= length]
        repeated = _repeated(words, length, repeated)
        longer |= repeated
    best = sorted(longer, key=lambda piece: (-longer[piece] * len(piece), piece))
    return {letter: letters[letter] for letter in alphabet} | {piece: longer[piece] for piece in best[:size]}


def _repeated(words: Words, length: int, shorter: Counts) -> Counts:
    """How often the pieces of a length are in the words, of those that are there more than once. So are both of their
    parts that are one shorter: of other pieces, of which there may be as many as characters, none is counted."""
    found: Counter[str] = Counter()
    for word, count in words:
        for start in range(len(word) - length + 1):
            piece = word[start : start + length]
            if piece[:-1] in shorter and piece[1:] in shorter:
                found[piece] += count
    return {piece: count for piece, count in found.items() if count > 1}


def _divided(model: models.Unigram, pieces: Counts, words: Words) -> Counts:
    """How often each piece is in the most likely divisions."""
    counts = dict.fromkeys(pieces, 0)
    for word, count in words:
        for token in model.tokenize(word):
            counts[token.value] += count
    return counts


def _pruned(alphabet: list[str], counts: Counts, size: int) -> Counts:
    """The alphabet, and the pieces without which the most likelihood would be lost."""
    scores = _scores(counts)
    losses = {
        piece: count * (scores[piece] - _score_without(piece, scores)) if count else 0.0
        for piece, count in counts.items()
        if len(piece) > 1
    }
    kept = sorted(losses, key=lambda piece: (-losses[piece], piece))[: size - len(alphabet)]
    return {piece: counts[piece] for piece in [*alphabet, *kept]}


def _score_without(piece: str, scores: dict[str, float]) -> float:
    """Log-probability of the likeliest division of a piece in others."""
    best = [0.0]
    for stop in range(1, len(piece) + 1):
        ways = (best[start] + scores.get(piece[start:stop], -math.inf) for start in range(stop == len(piece), stop))
        best.append(max(ways))
    return best[-1]


def _scores(counts: Counts) -> dict[str, float]:
    """log((count + 1/2) / sum), with as few digits as the library reads back exactly."""
    total = sum(counts.values()) + len(counts) / 2
    return {piece: round(math.log((count + 0.5) / total), 6) for piece, count in counts.items()}


def _model(counts: Counts) -> models.Unigram:
    """The likeliest first; `<eos>` has the id 0."""
    scored = sorted(_scores(counts).items(), key=lambda one: (-one[1], one[0]))
    return models.Unigram([(END_OF_DOCUMENT, 0.0), *scored], unk_id=0)
