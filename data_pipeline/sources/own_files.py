"""A prepared directory within a corpus, whose own files a later run would take for the corpus's."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.config import BadInput
from data_pipeline.sources.document import SPLITS
from data_pipeline.sources.globs import matches

ALWAYS = (
    "left_out.jsonl", "work/lock", "work/listing.json", "work/files.json", "work/started.json", "work/piece-00000.json",
)  # fmt: skip
OF_TEXT = (
    *ALWAYS, "manifest.json", "tokenizer.json", "tokenizer_settings.json", "work/tokenizer.json",
    "work/scan-00000.json", "work/part-00000.json",
    *(f"shards/{split}-00000-000.{kind}.npy" for split in SPLITS for kind in ("tokens", "offsets", "bytes")),
)  # fmt: skip
OF_MEDIA = (
    *ALWAYS, "media.json",
    *(f"shards/{split}-00000-000.{ending}" for split in SPLITS for ending in ("tar", "index.npy")),
)  # fmt: skip
"""Names like those of all that is written."""


def check_apart(directory: Path, corpus: Path, patterns: Mapping[str, Sequence[str]], written: Sequence[str]) -> None:
    """BadInput if a glob of a field, below the corpus's folder, matches what is written to the directory."""
    base, below = corpus.resolve(), directory.resolve()
    if not below.is_relative_to(base):
        return
    place = below.relative_to(base)
    for field, globs in patterns.items():
        for pattern in globs:
            seen = next((name for name in written if matches(pattern, (place / name).as_posix())), None)
            if seen is not None:
                raise BadInput(
                    f"data.directory {directory}: is within corpus.directory, where corpus.{field} {pattern} "
                    f"would take what is written there, such as {seen}, for the corpus's; choose another "
                    f"data.directory, or narrower names in corpus.{field}"
                )
