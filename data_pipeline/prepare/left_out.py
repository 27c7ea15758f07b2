"""The names of what was left out or altered, beside the manifest, which counts them.

DIRECTORY/left_out.jsonl   a line each, in the order of the pieces; the first of each reason and piece
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from data_pipeline.atomic import write_atomically
from data_pipeline.sources.document import LeftOut

LEFT_OUT_FILE = "left_out.jsonl"

MOST_IN_ALL = 10_000
"""Lines of one reason, so that a corpus of any size has a file of bounded size."""


class LeftOutFile:
    """Takes in what each piece left out, in their order."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._counts = Counter[str]()
        self._first = ""

    def add(self, found: Iterable[LeftOut]) -> None:
        """The next piece's."""
        for one in found:
            self._first = self._first or one.id or one.file
            self._counts[one.reason] += 1
            if self._counts[one.reason] <= MOST_IN_ALL:
                self._lines.append(json.dumps(one.model_dump(), ensure_ascii=False))

    def counted(self, report: Mapping[str, int]) -> str:
        """How often each reason was, and what was the first, for an error that leaves no file of them."""
        counts = ", ".join(f"{count:,} {reason}" for reason, count in sorted(report.items()))
        return f"{counts}, the first {self._first}" if self._first else counts or "none"

    def write(self, directory: Path) -> None:
        """Without lines, too: then nothing was left out."""
        write_atomically(directory / LEFT_OUT_FILE, "".join(f"{line}\n" for line in self._lines).encode())


def where_told(directory: str, report: dict[str, int]) -> str:
    """To follow the counts of a report: the file with the names, if there is something in it."""
    path = Path(directory, LEFT_OUT_FILE)
    return f" (the first of each reason are named in {path})" if report and path.is_file() else ""
