"""What a save goes through, and how it fails."""

from typing import Literal

from data_pipeline.config import SegueError

Phase = Literal[
    "directory made",
    "block written",
    "pieces written",
    "manifest written",
    "renamed",
    "pointer moved",
    "older removed",
]
"""The moments between which a save can be cut off: the first three on every worker, the others on the leader."""


class NotSaved(SegueError):
    """Exit code 6: a checkpoint, or what was to be kept, could not be written; what was there before is untouched."""

    exit_code = 6
