"""What the autoregressive models of images and waves have in common: p(x) = prod_d p(x_d given x_<d), without latents.

A member says log_prob and how the missing values are drawn one after another; training on -log_prob, sampling and
completion follow. A model that is told a class models p(x given class); a sample of no given class is of one drawn
evenly.

Shape legend: R rows of a batch, N samples, D values of a row.
"""

import abc
from typing import ClassVar, Literal

import torch
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import VectorModelConfig


class VisibleModel(Model):
    """Exact likelihood, samples value by value."""

    unit: ClassVar[Literal["token", "image", "row"]] = "image"
    sampling = "expensive"

    def __init__(self, config: VectorModelConfig, num_values: int) -> None:
        super().__init__()
        self._num_values, self._num_classes = num_values, config.num_classes

    @abc.abstractmethod
    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x), or log p(x given class), in nats."""

    @property
    @abc.abstractmethod
    def outcomes(self) -> str:
        """What log p is a probability of; a score compares only with those of the same outcomes."""

    @abc.abstractmethod
    def check_values(self, values: Tensor) -> Tensor:
        """The same values, of any shape; BadInput where one is none that the model could draw."""

    @abc.abstractmethod
    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N, D]: the values where `known` is true, draws given all that comes earlier in the order where it is not.

        Values are in at least float32, whatever the weights are in.
        """

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        """-log p."""
        return Loss(total=-self.log_prob(batch).sum(), count=batch.rows)

    def sample(self, count: int) -> Tensor:
        """[count, D]."""
        return self._draw(count, None)

    def sample_of(self, labels_N: Tensor) -> Tensor:
        """[N, D] of these classes; BadInput from a model that is told none."""
        if self._num_classes is None:
            raise BadInput(f"{type(self).__name__}: was trained without classes; set model.classes, or sample any")
        return self._draw(len(labels_N), labels_N)

    @torch.no_grad()
    def complete(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None = None) -> Tensor:
        """[N, D]: exact draws of what is missing if all that is known comes first in the order.

        A draw sees only what comes earlier: what is known later (the lower half of an image, say) is kept but says
        nothing. The classes are drawn evenly if they are not given. What is known is returned as it was given, in
        at least float32. BadInput for shapes that do not fit, and for a known value that the model could not draw.
        """
        self._check_shapes(values_ND, known_ND, labels_N)
        device = self._like().device
        values_ND, known_ND = at_least_float32(values_ND).to(device), known_ND.to(device).bool()
        values_ND = values_ND.masked_fill(~known_ND, 0)
        self.check_values(values_ND[known_ND])
        return self.draw(values_ND, known_ND, self._labels(labels_N, len(values_ND)))

    def _check_shapes(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> None:
        if values_ND.ndim != 2 or values_ND.shape[1] != self._num_values or known_ND.shape != values_ND.shape:
            raise BadInput(
                f"values of shape {list(values_ND.shape)}, known of {list(known_ND.shape)}: both must be [rows, "
                f"{self._num_values}], as the model's rows are; flatten them, and say of each value whether it is known"
            )
        if labels_N is not None and labels_N.shape != values_ND.shape[:1]:
            raise BadInput(
                f"labels of shape {list(labels_N.shape)}: must be [{len(values_ND)}], one for each row; give as many"
            )

    @torch.no_grad()
    def _draw(self, count: int, labels_N: Tensor | None) -> Tensor:
        values_ND = at_least_float32(self._like().new_zeros(count, self._num_values))
        return self.draw(values_ND, torch.zeros_like(values_ND, dtype=torch.bool), self._labels(labels_N, count))

    def _like(self) -> Tensor:
        """For dtype and device."""
        return next(self.parameters()).detach()

    def _labels(self, labels_N: Tensor | None, count: int) -> Tensor | None:
        if self._num_classes is None:
            return None
        if labels_N is None:
            return torch.randint(self._num_classes, (count,), device=self._like().device)
        return self.checked(labels_N.to(self._like().device))

    def checked(self, labels_R: Tensor) -> Tensor | None:
        """The labels that the model is told, or None; BadInput where one is no class."""
        if self._num_classes is None:
            return None
        wrong_R = (labels_R < 0) | (labels_R >= self._num_classes)
        if bool(wrong_R.any()):
            raise BadInput(
                f"label {int(labels_R[wrong_R][0])}: model.classes {self._num_classes} makes the classes 0 .. "
                f"{self._num_classes - 1}; give data of these classes, or set model.classes=null to read none"
            )
        return labels_R
