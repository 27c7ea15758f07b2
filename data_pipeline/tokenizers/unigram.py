"""A unigram language model of pieces (Kudo 2018, https://arxiv.org/abs/1804.10959), by the `tokenizers` library.

The pieces are of UTF-8 bytes, within the words of GPT-2's pattern: every byte is one, so that it is lossless.

The library's training chooses the pieces. Its probabilities differ from run to run in the second decimal (it sums in
the order of a hash table with a random seed), so they are estimated anew, from whole numbers alone: by how often each
piece is in the most likely division of the words, a few times over (Viterbi training). Starting from counts of all
occurrences, equal pieces give equal probabilities.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Literal

from pydantic import Field
from tokenizers import Tokenizer as LibraryTokenizer
from tokenizers import models, pre_tokenizers, trainers

from data_pipeline.tokenizers.byte_pairs import BytePairTokenizer, byte_level
from data_pipeline.tokenizers.tokenizer import END_OF_DOCUMENT, TokenizerTraining

ESTIMATIONS = 4

LONGEST_WORD = 1 << 10
"""Characters of one word that are looked at."""


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

    def build(self, texts: Iterable[str], counts: Counter[str]) -> BytePairTokenizer:
        trainer = trainers.UnigramTrainer(
            vocab_size=self.vocab_size,
            special_tokens=[END_OF_DOCUMENT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        sample = list(texts)
        library = byte_level(models.Unigram())
        library.train_from_iterator(sample, trainer)
        pieces = sorted(library.get_vocab(with_added_tokens=False).keys() - {END_OF_DOCUMENT})
        library = byte_level(_estimated(pieces, _words(library, sample)))
        library.add_special_tokens([END_OF_DOCUMENT])
        return BytePairTokenizer(library, kind="unigram", end_of_document=END_OF_DOCUMENT)


def _words(library: LibraryTokenizer, texts: Iterable[str]) -> list[tuple[str, int]]:
    """The texts' words as the pre-tokenizer spells them, with their counts, in alphabetical order."""
    split = library.pre_tokenizer.pre_tokenize_str
    return sorted(Counter(word for text in texts for word, _ in split(text)).items())


def _estimated(pieces: list[str], words: list[tuple[str, int]]) -> models.Unigram:
    """The model of these pieces whose probabilities fit the words."""
    counts = _occurrences(pieces, words)
    for _ in range(ESTIMATIONS):
        model, counts = _model(pieces, counts), Counter[str]()
        for word, count in words:
            for token in model.tokenize(word[:LONGEST_WORD]):
                counts[token.value] += count
    return _model(pieces, counts)


def _occurrences(pieces: list[str], words: list[tuple[str, int]]) -> Counter[str]:
    """How often each piece is in the words, wherever it begins."""
    counts, known, longest = Counter[str](), set(pieces), max(map(len, pieces))
    for word, count in words:
        short = word[:LONGEST_WORD]
        for start in range(len(short)):
            for stop in range(start + 1, min(start + longest, len(short)) + 1):
                if short[start:stop] in known:
                    counts[short[start:stop]] += count
    return counts


def _model(pieces: list[str], counts: Counter[str]) -> models.Unigram:
    """log((count + 1/2) / sum), the likeliest first; `<eos>` has the id 0."""
    total = counts.total() + len(pieces) / 2
    scored = sorted((-math.log((counts[piece] + 0.5) / total), piece) for piece in pieces)
    return models.Unigram([(END_OF_DOCUMENT, 0.0), *((piece, -score) for score, piece in scored)], unk_id=0)
