"""Reading all of a run's shards and tars while it trains, to see that they are what was written (`data.verify`)."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from data_pipeline.config import Corrupt, SegueError
from data_pipeline.media.media_data import MediaData
from data_pipeline.mixture import MixtureConfig
from data_pipeline.prepared_text import PreparedText
from data_pipeline.verification import verify
from pretrain.experiment import Experiment
from pretrain.run_directory import record_event
from pretrain.trainer import Trainer

LEAVE_SECONDS = 5.0
"""So long the end of a run waits for a read in hand; one that hangs does not keep it."""


class DataCheck:
    """While inside, the leader reads the files in a thread; the first that is damaged makes the run save and stop."""

    def __init__(self, trainer: Trainer, experiment: Experiment, directory: Path) -> None:
        self.trainer, self.directory = trainer, directory
        self.sources = [source for source in _prepared(experiment) if source.verify == "background"]
        self.damage: str | None = None
        """What was found."""
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._read, name="data check", daemon=True)

    def __enter__(self) -> "DataCheck":
        if self.sources and self.trainer.engine.group.leads:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_SECONDS)

    def refuse(self) -> None:
        """Raise Corrupt, on every worker as the leader has found it, where a file is damaged. Collective."""
        damage = self.trainer.engine.group.tell(self.damage) if self.sources else None
        if damage is not None:
            raise Corrupt(
                f"{damage}. The run has read such data until step {self.trainer.step}, which is saved; once the file "
                f"is whole, `resume {self.directory}` goes on. `launch.py data verify {self.directory}` looks at all"
            )

    def _read(self) -> None:
        try:
            num_files = sum(1 for _ in self._files())
        except Ended:
            return
        except (SegueError, OSError) as error:
            self.damage = str(error)
            record_event(self.directory, "data damaged", message=self.damage)
            self.trainer.request_stop()
            return
        record_event(self.directory, "data verified", files=num_files)

    def _files(self) -> Iterator[Path]:
        """Each as it is found good; raises Corrupt at the first that is not, and Ended when the run is over."""
        for source in self.sources:
            left_out = source.left_out() if isinstance(source, PreparedText) else ()
            for checked in verify(Path(source.directory), leave_out=left_out, see=self._go_on):
                if checked.problem is not None:
                    raise Corrupt(str(checked.problem))
                yield checked.path

    def _go_on(self, _: int) -> None:
        if self._ends.is_set():
            raise Ended


class Ended(Exception):
    """The run is over."""


def _prepared(experiment: Experiment) -> list[PreparedText | MediaData]:
    data = experiment.data
    if isinstance(data, MixtureConfig):
        return list(data.texts().values())
    return [data] if isinstance(data, PreparedText | MediaData) else []
