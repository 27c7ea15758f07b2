"""What the configurations of models of independent vectors (images, waves, points) have in common."""

import abc
import math
from typing import ClassVar, Literal

from data_pipeline.config import Config
from data_pipeline.vector_data import VectorData
from pretrain.optim import OptimizerConfig

Accepts = Literal["binary", "unit", "real"]
"""Zeros and ones; numbers from 0 to 1, zeros and ones too; any number."""


class VectorModelConfig(Config, abc.ABC):
    """Reads rows of numbers, each a flattened image, wave or point."""

    kind: str
    reads: ClassVar[Literal["lanes", "samples", "vectors", "pairs"]] = "vectors"
    accepts: ClassVar[Accepts] = "real"
    fewest_rows: ClassVar[int] = 1
    """Of a micro-batch, for the objective to be what it says."""

    @property
    def players(self) -> tuple[str, ...]:
        """See `pretrain.contract.Model.players`."""
        return ("model",)

    @property
    def length(self) -> int | None:
        return None

    @property
    def vocabulary_size(self) -> int | None:
        return None

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of a row before it is flattened; of one number where the model does not care."""

    @property
    def num_levels(self) -> int | None:
        """Values that it tells apart, evenly spaced from 0 to 1; None: it has no levels."""
        return None

    @property
    def num_classes(self) -> int | None:
        """Labels that it is told; None: it reads none."""
        return None

    @property
    def reads_whole_weights(self) -> str | None:
        """The setting for which forward reads weights outside of their layers, where ZeRO stage 3 has cut them."""
        return None

    def optimizer_problem(self, player: str, optimizer: OptimizerConfig) -> str | None:
        """Which of the settings of a player's optimizer it cannot learn with, why, and what to do, or None."""
        return None

    def problem(self, data: VectorData) -> str | None:
        """Why it cannot read this data, and what to do, or None."""
        if math.prod(self.shape) != math.prod(data.shape) or (len(self.shape) > 1 and self.shape != data.shape):
            return f"the model reads rows of shape {list(self.shape)}, the data has {list(data.shape)}; make them equal"
        if self.accepts == "binary" and data.values != "binary":
            return (
                f"the model is of zeros and ones, the data of {data.values}; make it binary (data.pixels=threshold, "
                "sampled or dynamic), or choose another model"
            )
        if self.accepts == "unit" and data.values == "real":
            return "the model's values lie between 0 and 1, the data's anywhere; choose another model"
        if self.num_levels is not None and self.num_levels != data.num_levels:
            has = data.num_levels or "none"
            return f"the model has {self.num_levels} levels of a value, the data {has}; make them equal"
        if self.num_classes is not None and self.num_classes != data.num_classes:
            has = data.num_classes or "none"
            return f"the model is told one of {self.num_classes} classes, the data has {has}; make them equal"
        return None
