"""Data of kind `mixture`: several texts of one tokenizer, read side by side in given proportions.

Which source a row comes from is a function of the seed and the row's number, and row k of a source is its k-th, so a
run is continued by its step number alone. Weights may change from a step on; what was read before stays as it was.
"""

import hashlib
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from data_pipeline.config import BadInput, Config, Refused
from data_pipeline.markov import MarkovConfig
from data_pipeline.prepared_text import PreparedConfig, PreparedText
from data_pipeline.streams.apportionment import whole_numbers
from data_pipeline.streams.lanes import LaneStream
from data_pipeline.streams.mixtures import MixtureLanes, MixtureStream
from data_pipeline.streams.reading import Reads, cannot_be_read, check_lanes, check_split, no_length
from data_pipeline.streams.rows import Rows
from data_pipeline.streams.samples import rows_of
from data_pipeline.streams.stream import Draws, Stream
from data_pipeline.text import TextConfig
from data_pipeline.tokenizers.tokenizer import Tokenizer

Source = Annotated[TextConfig | PreparedConfig | MarkovConfig, Field(discriminator="kind")]
SourceName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]


class WeightsConfig(Config):
    """Proportions from a step on."""

    from_step: int = Field(ge=0)
    """A step that draws nothing else than one batch, as those of all models of text; draws that a roll-back leaves out
    count as well."""
    shares: dict[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    """By source; in whatever unit. A source that is not named has none."""

    def numbers(self) -> dict[str, int]:
        """Whole numbers in the same proportions."""
        return whole_numbers(self.shares)


class MixtureConfig(Config):
    """Named sources and their weights."""

    kind: Literal["mixture"]
    sources: dict[SourceName, Source] = Field(min_length=1)
    weights: tuple[WeightsConfig, ...] = Field(min_length=1)

    @field_validator("weights")
    @classmethod
    def _in_order(cls, weights: tuple[WeightsConfig, ...]) -> tuple[WeightsConfig, ...]:
        if weights[0].from_step != 0:
            raise ValueError(f"the first weights are from_step {weights[0].from_step}; they must be from_step 0")
        for before, after in pairwise(weights):
            if after.from_step <= before.from_step:
                raise ValueError(f"from_step {after.from_step} stands after {before.from_step}; steps must rise")
        for one in weights:
            one.numbers()
        return weights

    @model_validator(mode="after")
    def _check(self) -> "MixtureConfig":
        for one in self.weights:
            unknown = [name for name in one.shares if name not in self.sources]
            if unknown:
                raise ValueError(
                    f"weights from_step {one.from_step} name {unknown[0]!r}, which is no source; there are "
                    f"{', '.join(self.sources)}"
                )
        if len({source.separate_documents for source in self.sources.values()}) > 1:
            raise ValueError("sources differ in separate_documents; a model learns one of both: set all alike")
        return self

    @property
    def separate_documents(self) -> bool:
        """The same in all sources."""
        return next(iter(self.sources.values())).separate_documents

    def named(self) -> dict[str, Source]:
        """The sources in alphabetical order, which is that of their numbers."""
        return dict(sorted(self.sources.items()))

    def texts(self) -> dict[str, PreparedText]:
        """Those of token shards."""
        return {name: source for name, source in self.named().items() if isinstance(source, PreparedText)}

    def directories(self) -> dict[str, Path]:
        """Of all token shards, by source."""
        return {name: Path(source.directory) for name, source in self.texts().items()}

    def warnings(self) -> list[str]:
        """What a run's user is to know of its training data: the shards that are left out."""
        return [f"{name}: {line}" for name, source in self.texts().items() for line in source.warnings()]

    def check_vocabularies(self) -> None:
        """BadInput, with both hashes, where sources have tokens of different tokenizers."""
        (first, one), *others = self.named().items()
        for name, other in others:
            if other.vocabulary() != one.vocabulary() and _ids_of(other) != _ids_of(one):
                raise BadInput(
                    f"data.sources: {first} has the tokenizer {one.vocabulary()}, but {name} has "
                    f"{other.vocabulary()}; a model reads one vocabulary: prepare one of them anew, in another "
                    "directory, with tokenizer.kind file and the tokenizer.json that is in the other's"
                )

    def vocab_size(self) -> int:
        """Of the tokenizer of all sources."""
        self.check_vocabularies()
        return next(iter(self.sources.values())).vocab_size()

    def load_tokenizer(self) -> Tokenizer:
        """The one of all sources; BadInput where they are no text."""
        self.check_vocabularies()
        for source in self.texts().values():
            return source.load_tokenizer()
        raise BadInput("data.kind mixture: none of its sources is a text, so it has no tokenizer")

    def fingerprint(self) -> str:
        """SHA-256 over those of the sources."""
        parts = (f"{name} {source.fingerprint()}" for name, source in self.named().items())
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def splits(self) -> tuple[str, ...]:
        """Those that any source has."""
        return tuple(dict.fromkeys(split for source in self.named().values() for split in source.splits()))

    def with_split(self, split: str) -> dict[str, Source]:
        """The sources that have a split, in alphabetical order; BadInput where none has it."""
        check_split(self.kind, split, self.splits())
        return {name: source for name, source in self.named().items() if split in source.splits()}

    def stream(
        self,
        *,
        reads: Reads,
        length: int | None,
        micro_batches: int,
        rows: int,
        seed: int,
        split: str = "train",
    ) -> Stream:
        """Lanes or samples of a split; BadInput if they cannot be read so, or a source is too small, or not prepared,
        or has no such split."""
        if reads not in ("lanes", "samples"):
            raise cannot_be_read(self.kind, reads, "lanes", "samples")
        if length is None or length < 1:
            raise no_length(self.kind, length)
        self.check_vocabularies()
        for source in self.sources.values():
            check_split(source.kind, split, source.splits())
        draws = Draws(micro_batches=micro_batches, rows=rows, seed=seed)
        if reads == "lanes":
            return self._lanes(length, draws, split)
        rows_by_name = {name: _rows(source, split, length, seed) for name, source in self.named().items()}
        stages = [(one.from_step, one.numbers()) for one in self.weights]
        return MixtureStream(rows_by_name, stages, length=length, draws=draws)

    def _lanes(self, length: int, draws: Draws, split: str) -> MixtureLanes:
        if len(self.weights) > 1:
            raise BadInput(
                f"data.weights change from_step {self.weights[1].from_step}, but this model reads lanes: each is of "
                "one source for the whole run, as its memory is; leave one set of weights, or choose a model that "
                "reads samples"
            )
        lanes = {name: partial(_lanes_of, source, split, length, draws) for name, source in self.named().items()}
        return MixtureLanes(lanes, self.weights[0].numbers(), length=length, draws=draws)

    def check_past(self, before: "MixtureConfig", draws: int, reads: Reads) -> None:
        """Refused where the weights were others in a draw that the run has taken already: rows of a source would come
        twice, or never."""
        if reads == "lanes" and self._up_to(None) != before._up_to(None):
            raise Refused(
                "data.weights have changed, but this model reads lanes: each is of one source for the whole run, as "
                "its memory is; undo the change, or start a new run"
            )
        if self._up_to(draws) != before._up_to(draws):
            raise Refused(
                f"data.weights have changed for steps before {draws}, which the run has read already, so that some "
                "rows would come twice and others never; leave those weights as they were, and add others from_step "
                f"{draws} or later"
            )

    def _up_to(self, draws: int | None) -> list[tuple[int, dict[str, int]]]:
        """What decides the draws before this one (None: all)."""
        return [(one.from_step, one.numbers()) for one in self.weights if draws is None or one.from_step < draws]


def texts_to_prepare(data: Config) -> list[TextConfig]:
    """Of any kind of data: the texts that `launch.py prepare` makes shards of."""
    sources = data.sources.values() if isinstance(data, MixtureConfig) else [data]
    return [source for source in sources if isinstance(source, TextConfig)]


def _rows(source: Source, split: str, length: int, seed: int) -> Rows:
    return rows_of(
        source.documents(split),
        length=length,
        seed=seed,
        shuffle=source.shuffle,
        separate_documents=source.separate_documents,
        packing=source.packing if isinstance(source, PreparedText) else "cut",
    )


def _lanes_of(source: Source, split: str, length: int, draws: Draws, count: int) -> LaneStream:
    check_lanes(source.packing if isinstance(source, PreparedText) else "cut")
    return LaneStream(
        source.documents(split),
        length=length,
        draws=Draws(micro_batches=1, rows=count, seed=draws.seed),
        shuffle=source.shuffle,
        separate_documents=source.separate_documents,
    )


def _ids_of(source: Source) -> str:
    """What tells the tokens' ids from those of other tokenizers."""
    return source.load_tokenizer().hash_of_ids if isinstance(source, PreparedText) else source.vocabulary()
