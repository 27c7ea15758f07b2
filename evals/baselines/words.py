"""Words of pre-tokenized benchmark files (Penn Treebank, WikiText) as ids: a word is what stands between spaces."""

import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.config import BadInput
from evals.baselines.baseline import Ids

END_OF_LINE = "\n"  # no word can be spelled so
UNKNOWN = "<unk>"


def read_lines(path: str | Path) -> list[str]:
    r"""The lines of a UTF-8 file (also a .gz), without their \n; nothing else ends a line.

    Raises BadInput where there is no such file, or it is empty, damaged or not UTF-8.
    """
    path = Path(path)
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        text = data.decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text ({error}); give another file") from error
    if not text:
        raise BadInput(f"{path}: is empty; give a file with at least one line")
    return text.removesuffix("\n").split("\n")


def split(line: str) -> list[str]:
    r"""The words of a line. Spaces alone divide words; any other white space would be part of one.

    >>> split(" the\u00a0cat  sat ")
    ['the\xa0cat', 'sat']
    """
    return [word for word in line.split(" ") if word]


@dataclass(frozen=True)
class Words:
    """A vocabulary of whole words: id 0 ends a line, id 1 is the unknown word, then by first appearance.

    >>> words = Words.of(["the cat sat", "the end"])
    >>> words.ids(["the dog sat"]).tolist()
    [2, 1, 4, 0]
    """

    id_of: dict[str, int]

    @classmethod
    def of(cls, lines: Iterable[str]) -> "Words":
        """The vocabulary of a training text: every word that is in it at least once, the end of a line, `<unk>`."""
        id_of = {END_OF_LINE: 0, UNKNOWN: 1}
        for line in lines:
            for word in split(line):
                id_of.setdefault(word, len(id_of))
        return cls(id_of)

    @property
    def size(self) -> int:
        return len(self.id_of)

    @property
    def end_of_line(self) -> int:
        return self.id_of[END_OF_LINE]

    @property
    def unknown(self) -> int:
        return self.id_of[UNKNOWN]

    def ids(self, lines: Iterable[str]) -> Ids:
        """Ids of all words, line after line, each line ended by `end_of_line`; [words + lines].

        A word outside of the vocabulary is `unknown`.
        """
        id_of, unknown, end = self.id_of, self.unknown, self.end_of_line
        ids: list[int] = []
        for line in lines:
            ids.extend(id_of.get(word, unknown) for word in split(line))
            ids.append(end)
        return np.array(ids, dtype=np.int64)
