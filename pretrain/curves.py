"""TensorBoard's curves of a run; when it fails, training goes on, and once it works again it gets what it missed."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from data_pipeline.config import BadInput

FLUSH_EVERY = 100
"""Rows, after which those before are known to be on the disk."""
LONGEST_WAIT = 128
"""Rows between two attempts to open it again; the first waits are shorter."""

Row = dict[str, Any]
RowsAfter = Callable[[int], list[Row]]
"""The rows of later steps than this, from the run's own record."""


class Writer(Protocol):
    """As of `torch.utils.tensorboard.SummaryWriter`."""

    def add_scalar(self, name: str, value: float, step: int) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...


OpenWriter = Callable[[Path, int], Writer]
"""(directory, first step whose old values are no longer valid) -> writer."""


class Curves:
    """Writes the numbers of rows as scalars, from the step after `first_step` on; warns once of each failure."""

    def __init__(
        self, directory: Path, first_step: int, *, rows_after: RowsAfter, warn: Callable[[str], None], open_: OpenWriter
    ) -> None:
        self.directory, self.rows_after, self.warn, self.open = directory, rows_after, warn, open_
        self.kept = first_step
        """All rows up to this step are on the disk, as far as can be known."""
        self.writer: Writer | None = None
        self.waited, self.wait, self.unflushed = 0, 0, 0
        self._attempt(lambda: None)

    def write(self, row: Row) -> None:
        """The row must be in the run's own record already, for that is what is read after a failure."""
        if self.writer is not None:
            self._attempt(lambda: self._add([row]))
            return
        self.waited += 1
        if self.waited >= self.wait:
            self._attempt(lambda: self._add(self.rows_after(self.kept)))

    def close(self) -> None:
        """One last attempt, where it does not work now."""
        missed = self.writer is None

        def finish() -> None:
            if missed:
                self._add(self.rows_after(self.kept))
            if self.writer is not None:
                self.writer.close()

        self._attempt(finish)

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do it with an open writer; on failure leave the writer, to try again later."""
        try:
            if self.writer is None:
                self.writer = self.open(self.directory, self.kept + 1)
            work()
        except BadInput:
            raise
        except Exception as error:  # whatever a tracker raises, it is no reason to stop training
            self._leave(error)

    def _leave(self, error: Exception) -> None:
        if not self.wait:
            self.warn(f"TensorBoard cannot be written ({error}); training goes on, and tries again")
        broken, self.writer = self.writer, None
        self.wait, self.waited, self.unflushed = min(2 * self.wait or 1, LONGEST_WAIT), 0, 0
        with suppress(Exception):  # it failed already
            if broken is not None:
                broken.close()

    def _add(self, rows: list[Row]) -> None:
        assert self.writer is not None
        for row in rows:
            for name, value in scalars(row):
                self.writer.add_scalar(name, value, row["step"])
        self.unflushed += len(rows)
        if rows and (self.wait or self.unflushed >= FLUSH_EVERY):
            self.writer.flush()
            self.kept, self.unflushed, self.wait = rows[-1]["step"], 0, 0


def open_summary_writer(directory: Path, first_step: int) -> Writer:
    """Raises BadInput where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BadInput(
            "log.tensorboard is true, but tensorboard is not installed: pip install 'segue[trackers]', "
            "or set log.tensorboard=false"
        ) from error
    writer: Writer = SummaryWriter(str(directory), purge_step=first_step)
    return writer


def scalars(row: Row, prefix: str = "") -> list[tuple[str, float]]:
    """The numbers of a row, also nested ones, by the path of their names; the step is none of them."""
    found = []
    for name, value in row.items():
        if isinstance(value, dict):
            found += scalars(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and name != "step":
            found.append((f"{prefix}{name}", float(value)))
    return found
