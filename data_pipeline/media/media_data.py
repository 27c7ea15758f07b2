"""What data of kinds `images`, `audio` and `music` have in common: a corpus, and the directory of tars that
`launch.py prepare` makes of it."""

import abc
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_pipeline.config import BadInput
from data_pipeline.manifest import check_unchanged
from data_pipeline.media.media_corpus import MediaCorpus
from data_pipeline.media.media_manifest import MediaManifest, read_media_manifest
from data_pipeline.media.media_pieces import AnyConverter
from data_pipeline.media.media_shards import MediaShards
from data_pipeline.streams.vectors import Vectors
from data_pipeline.vector_data import VectorData


class MediaData(VectorData):
    """Which media, where the tars are, and how a run reads them; decoded by the process that trains."""

    directory: str
    """Of the tars, such as data/prepared/mnist."""
    corpus: MediaCorpus
    shard_bytes: int = Field(default=1 << 26, ge=1)
    """Of one tar, and of the files in one piece of work."""
    verify: Literal["sizes", "background"] = "sizes"
    """At a start only sizes are compared; or every file's hash as well, while training goes on. A run whose data turn
    out to be damaged saves and stops."""

    @abc.abstractmethod
    def converter(self) -> AnyConverter:
        """Of the corpus's files to members of the tars."""

    def identity(self) -> dict[str, Any]:
        """What decides the tars' bytes, but for where the corpus lies."""
        return {
            "corpus": self.corpus.model_dump(mode="json", exclude={"directory"}),
            "shard_bytes": self.shard_bytes,
            **self.converter().model_dump(mode="json"),
        }

    @property
    def num_classes(self) -> int | None:
        return len(self.corpus.classes) or None

    def manifest(self) -> MediaManifest:
        """Of the tars; BadInput if they are not prepared, Refused if they were prepared otherwise."""
        manifest = read_media_manifest(Path(self.directory))
        check_unchanged(self.directory, manifest.config, self.identity())
        return manifest

    def splits(self) -> tuple[str, ...]:
        return tuple(self.manifest().splits)

    def directories(self) -> dict[str, Path]:
        """Of all that is prepared, by source; this has only the one."""
        return {"": Path(self.directory)}

    def shards(self, split: str = "train") -> MediaShards:
        """The items of a split."""
        self.manifest()
        return MediaShards.open(Path(self.directory), split)

    def fingerprint(self) -> str:
        """SHA-256 over every tar's hash, and how the training split is read."""
        return self.vectors("train").fingerprint

    def _vectors(self, split: str) -> Vectors:
        shards = self.shards(split)
        vectors = self._decoded(shards, split)
        if not len(vectors.labels):
            raise BadInput(
                f"data.directory {self.directory}: none of the {shards.num_items:,} items of the split {split!r} is as "
                f"long as a row of {list(self.shape)}, the longest {int(shards.lengths.max()):,}; make rows shorter"
            )
        return vectors

    @abc.abstractmethod
    def _decoded(self, shards: MediaShards, split: str) -> Vectors:
        """The rows of a split."""
