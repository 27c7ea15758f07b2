"""One directory to make, piece by piece, by an executor."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipeline.prepare.executor import Executor
from data_pipeline.prepare.left_out import LeftOutFile
from data_pipeline.prepare.pieces import Encoded, EncodeTask, SampleTask, encode, sample, scan_and_encode
from data_pipeline.prepare.progress import Listener, Progress, Stage, followed
from data_pipeline.prepare.scanning import Scan, ScanTask, first_of, scan
from data_pipeline.sources import Corpus
from data_pipeline.sources.document import Piece, Split
from data_pipeline.steps.cleaned_corpus import CleanedCorpus

if TYPE_CHECKING:
    from data_pipeline.text import TextConfig

ENDLESS = (2.0, 0)
"""After every document's place in the sample."""


class Findings:
    """What was found in all pieces together. Of the sample it keeps what is still in it."""

    def __init__(self, sample_bytes: int) -> None:
        self._sample_bytes = sample_bytes
        self.contents: list[str] = []
        self.documents: Counter[Split] = Counter()
        self.report: Counter[str] = Counter()
        self.left_out = LeftOutFile()
        self.counts: Counter[str] = Counter()
        self.sample: list[tuple[float, int]] = []
        self._last_of_sample = ENDLESS
        """What comes after it is not in the sample."""
        self.first_priorities: list[float] = []
        """Of each piece: that of the first document that may be in the sample."""

    def add(self, found: Scan) -> None:
        """The next piece's."""
        self.contents.append(found.content)
        self.documents.update(found.documents)
        self.report.update(found.report)
        self.left_out.add(found.left_out)
        self.counts.update(found.counts)
        better = found.sample[: bisect_right(found.sample, self._last_of_sample)]
        if better:
            self.sample = first_of(self.sample + better, self._sample_bytes)
            is_full = sum(size for _, size in self.sample) >= self._sample_bytes
            self._last_of_sample = self.sample[-1] if is_full else ENDLESS
        self.first_priorities.append(min((one for one, _ in found.sample), default=ENDLESS[0]))


@dataclass(frozen=True, slots=True)
class Job:
    """The steps of the work."""

    config: "TextConfig"
    corpus: Corpus | CleanedCorpus
    """As workers read it."""
    directory: Path
    pieces: Sequence[Piece]
    executor: Executor
    report: Listener

    def scan(self) -> Findings:
        """Reads all pieces, but for those that were scanned before and have not changed."""
        findings = Findings(self.config.tokenizer.wanted_sample_bytes)
        for found in self._each("scan", scan, [self._scan_task(number) for number in range(len(self.pieces))]):
            findings.add(found)
        return findings

    def sample(self, findings: Findings) -> list[str]:
        """The texts to train on, in the corpus's order."""
        if not findings.sample:
            return []
        highest = findings.sample[-1][0]
        wanted = [
            SampleTask(self.corpus, piece, highest, self.config.tokenizer.wanted_sample_bytes)
            for piece, first in zip(self.pieces, findings.first_priorities, strict=True)
            if first <= highest
        ]
        texts: list[str] = []
        num_bytes = 0
        for number, found in enumerate(self.executor.map(sample, wanted)):
            texts += found
            num_bytes += sum(len(text.encode()) for text in found)
            self.report(Progress("sample", number + 1, len(wanted), len(texts), num_bytes))
        return texts

    def encode(self, findings: Findings, tokenizer_hash: str) -> list[Encoded]:
        """Writes all shards of pieces that were scanned, but for those that are there."""
        return list(self._each("encode", encode, self._encode_tasks(tokenizer_hash, findings.contents)))

    def scan_and_encode(self, tokenizer_hash: str) -> tuple[Findings, list[Encoded]]:
        """The same of pieces that were not scanned, in one pass."""
        findings, all_encoded = Findings(0), []
        tasks = self._encode_tasks(tokenizer_hash, [None] * len(self.pieces))
        for found, encoded in self._each("encode", scan_and_encode, tasks):
            findings.add(found)
            all_encoded.append(encoded)
        return findings, all_encoded

    def _scan_task(self, number: int) -> ScanTask:
        return ScanTask(
            corpus=self.corpus,
            piece=self.pieces[number],
            number=number,
            directory=self.directory,
            sample_bytes=self.config.tokenizer.wanted_sample_bytes,
            counts=self.config.tokenizer.counts,
        )

    def _encode_tasks(self, tokenizer_hash: str, contents: Sequence[str | None]) -> list[EncodeTask]:
        return [
            EncodeTask(self._scan_task(number), content, tokenizer_hash, self.config.shard_bytes)
            for number, content in enumerate(contents)
        ]

    def _each(self, stage: Stage, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
        """The result for each piece in order; after each, how far the stage is."""
        sizes = [sum(span.size for span in piece.spans) for piece in self.pieces]

        def numbers(result: Any) -> tuple[int, int]:
            found = result[0] if isinstance(result, tuple) else result
            return found.num_documents, found.num_bytes

        return followed(self.executor.map(function, tasks), stage, sizes, numbers, self.report)
