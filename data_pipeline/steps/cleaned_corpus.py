"""A corpus as its steps leave it: read piece by piece like any other."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from data_pipeline.arrays import array_path, load_array
from data_pipeline.atomic import sha256_of
from data_pipeline.config import Corrupt
from data_pipeline.sources.document import CorpusConfig, Document, Piece, Report, Split
from data_pipeline.steps import Step
from data_pipeline.steps.chain import chain, reason_names
from data_pipeline.steps.piece_pass import VERSION, PassRecord, piece_name
from data_pipeline.steps.raw_content import RawContent, changed


@dataclass(frozen=True, slots=True)
class CleanedCorpus:
    """For workers: it needs the corpus and, where a pass was made, the folder of the last one."""

    corpus: CorpusConfig
    steps: tuple[Step, ...]
    known: int
    """The verdicts of the steps before this place are in the folder."""
    folder: Path | None
    verdicts: str
    """The kind of array that they are in."""

    def read(self, piece: Piece, report: Report) -> Iterator[tuple[Split, Document]]:
        """The documents that stay, altered; why others do not, and what was altered in those, goes to the report.

        BadInput if the piece is no longer what the passes read; Corrupt if their files are not there.
        """
        raw = RawContent(self.corpus, piece)
        record, codes = self._known(piece)
        work, reasons = chain(self.steps, self.known, len(self.steps)), reason_names(self.steps)
        for position, (split, document) in enumerate(raw.read(report)):
            if codes is not None and position >= len(codes):
                raise changed(piece)
            altered = Counter[str]()
            outcome = codes[position] if codes is not None and codes[position] else work.apply(document, altered)
            for reason, count in altered.items():
                report.note(reason, document.id, document.start, count)
            if isinstance(outcome, int):
                report.note(reasons[outcome - 1], document.id, document.start)
            else:
                yield split, outcome
        if record is not None:
            raw.check(record.content)

    def stamp(self, piece: Piece) -> str | None:
        """Equal stamps: what is left of the piece has not changed; None where that cannot be told."""
        of_corpus = self.corpus.stamp(piece)
        if of_corpus is None or self.folder is None:
            return None if of_corpus is None else f"{of_corpus} {VERSION}"
        path = array_path(self.folder, piece_name(piece), self.verdicts)
        return f"{of_corpus} {VERSION} {sha256_of(path)}" if path.exists() else None

    def _known(self, piece: Piece) -> tuple[PassRecord | None, list[int] | None]:
        if self.folder is None:
            return None, None
        name = piece_name(piece)
        try:
            record = PassRecord.model_validate_json((self.folder / f"{name}.json").read_bytes())
            return record, load_array(array_path(self.folder, name, self.verdicts)).tolist()
        except (OSError, ValueError, ValidationError) as error:
            raise Corrupt(
                f"{self.folder}: what the steps found cannot be read ({error}); run `launch.py prepare` again"
            ) from error
