"""Whether the splits that a corpus of media is to have can have items, as far as names tell before anything is read."""

from collections.abc import Sequence

from data_pipeline.config import BadInput
from data_pipeline.media import archive_entries, image_arrays
from data_pipeline.media.item import Converter
from data_pipeline.media.media_corpus import MediaCorpus, Span
from data_pipeline.sources.document import Split

DIVIDED = (".abc", ".json", ".json.gz")
"""Files whose items have names of their own."""


def check_names(corpus: MediaCorpus, converter: Converter, pieces: Sequence[Sequence[Span]]) -> None:
    """BadInput for a split that no file is of, where each file is one item, so that its name decides."""
    names = dict.fromkeys(span.name for spans in pieces for span in spans)
    if any(_has_items_within(name) for name in names):
        return
    splits = {corpus.split_of(name) for name in names if name.lower().endswith(converter.endings)}
    for split in corpus.expected:
        if splits and split not in splits:
            raise BadInput(
                f"corpus: no item for the split {split}, by the names of the files, such as {next(iter(names))}; "
                f"{remedy(corpus, split)}"
            )


def remedy(corpus: MediaCorpus, split: Split) -> str:
    """For a split without items."""
    if split == "train":
        takes = [f"corpus.{name}" for name in ("valid", "test") if getattr(corpus, name) is not None]
        return f"name more files, or correct {' or '.join(['corpus.files', *takes])}"
    key = "held_out" if split == "valid" and corpus.valid is None else split
    return f"name more files, or correct corpus.{key}"


def _has_items_within(name: str) -> bool:
    return name.lower().endswith((*archive_entries.ENDINGS, *DIVIDED)) or image_arrays.is_array(name)
