"""What preparing tells while it runs."""

from dataclasses import dataclass
from typing import Literal

Stage = Literal["list", "clean", "scan", "sample", "tokenizer", "encode", "finished"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step further in a stage."""

    stage: Stage
    done: int
    total: int
    """Pieces of the corpus (for "clean": once for each pass; for "tokenizer": whether it is there)."""
    documents: int = 0
    num_bytes: int = 0
    """Read in this stage so far, of text."""
    size_done: int = 0
    size: int = 0
    """What the pieces done, and all of them, have in the corpus's files."""
