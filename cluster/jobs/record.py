"""What a run keeps of the job that computes it: an event, and how the code differed from its commit."""

import json
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.config import BadInput
from pretrain.run_directory import record_event

PATCH_NAME = "uncommitted.patch"
"""Beside the record."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    """Of one submission."""

    job: str
    commit: str
    dirty: str
    submitted_at: str
    patch: str = ""

    def keep(self, directory: Path) -> None:
        """In a run's directory."""
        kept = {}
        if self.patch:
            path = directory / "logs" / f"{self.job}.patch"
            path.parent.mkdir(exist_ok=True)
            path.write_text(self.patch, encoding="utf-8")
            kept = {"patch": str(path.relative_to(directory))}
        record_event(
            directory,
            "submitted",
            job=self.job,
            commit=self.commit,
            dirty=bool(self.dirty),
            submitted_at=self.submitted_at,
            **kept,
        )


def read_record(path: Path | None) -> JobRecord | None:
    """The record that a job takes along; None where there is none."""
    if path is None:
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        patch = path.with_name(PATCH_NAME)
        return JobRecord(
            job=values["id"],
            commit=values["commit"],
            dirty=values["dirty"],
            submitted_at=values["submitted_at"],
            patch=patch.read_text(encoding="utf-8", errors="replace") if patch.is_file() else "",
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"--submission {path}: is no record of a submission: {error}") from error
