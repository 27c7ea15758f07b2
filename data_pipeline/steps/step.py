"""What a cleaning step is.

A *document step* looks at one document and keeps it, alters it or drops it: a pure function, so that every worker that
reads the document comes to the same. A *corpus step* decides by the whole corpus: workers collect arrays for each piece
(its signatures), one pass over all of them says which documents are dropped; that depends on nothing but the corpus and
the step's settings, whatever the pieces, the workers and the executor.
"""

import abc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from data_pipeline.arrays import array_path, load_array
from data_pipeline.config import Config
from data_pipeline.sources.document import Document

if TYPE_CHECKING:
    from data_pipeline.prepare.executor import Executor


@dataclass(frozen=True, slots=True)
class Dropped:
    """A document is left out, and why: one of the step's `reasons`."""

    reason: str


class DocumentStep(Config, abc.ABC):
    """A rule for single documents."""

    reasons: ClassVar[tuple[str, ...]]
    """Why it may drop one."""
    alters: ClassVar[bool] = False
    """Whether it may change the text of one that stays."""

    @abc.abstractmethod
    def apply(self, document: Document, altered: Counter[str]) -> Document | Dropped:
        """The document as it goes on, or why it does not; what was altered in it is counted by name."""


class Collector(Protocol):
    """Takes the documents of one piece, in order."""

    def add(self, position: int, text: str) -> None:
        """The document that is the piece's number `position`, as the steps before left it."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What `resolve` wants to know of the piece; the same for the same documents."""


class CorpusStep(Config, abc.ABC):
    """A rule that needs the whole corpus."""

    reason: ClassVar[str]
    """Why it drops a document."""

    @property
    def reasons(self) -> tuple[str, ...]:
        return (self.reason,)

    def files(self) -> list[Path]:
        """Files that it reads besides the corpus; BadInput if one cannot be used."""
        return []

    def start(self, folder: Path) -> str:
        """Puts into the folder what collectors need; what identifies that. BadInput if it cannot be made."""
        return ""

    @abc.abstractmethod
    def collector(self, folder: Path) -> Collector:
        """For one piece, in a worker; `folder` is where `start` wrote."""

    @abc.abstractmethod
    def resolve(self, signatures: "Signatures", executor: "Executor") -> np.ndarray:
        """Which documents of the corpus are dropped: [signatures.num_documents] bool."""


LISTING_FILE = "listing.json"


class Listing(Config):
    """The pieces of a corpus that was read, in order."""

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    """[pieces + 1] where the numbers of each piece's documents begin, and the number of all documents."""


@dataclass(frozen=True, slots=True)
class Signatures:
    """The arrays that collectors left in a folder."""

    folder: Path

    @property
    def listing(self) -> Listing:
        return Listing.model_validate_json((self.folder / LISTING_FILE).read_bytes())

    @property
    def num_documents(self) -> int:
        """Of the corpus, those too that steps before dropped."""
        return self.listing.offsets[-1]

    def arrays(self, kind: str) -> Iterator[np.ndarray]:
        """One kind of every piece, in order, as memory maps."""
        for name in self.listing.names:
            yield load_array(array_path(self.folder, name, kind))


def with_text(document: Document, text: str) -> Document:
    """The same document with another text."""
    return replace(document, text=text, num_bytes=len(text.encode()))


def share(part: float, whole: float) -> float:
    """part / whole, 0 of nothing; rounded as a bound in decimals is, so that a share just at its bound is within it."""
    return part / whole if whole else 0.0
