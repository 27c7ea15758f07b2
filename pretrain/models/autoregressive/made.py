"""The masked autoencoder for distribution estimation: a perceptron whose output d sees only what comes before d.

Germain et al. 2015 (https://arxiv.org/abs/1502.03509). With the masks M of `pretrain/layers/masked_linear.py`,

    h_l = relu(b_l + (W_l * M_l) h_{l-1}),    p(x_d = 1 given x_<d) = sigmoid(c + (V * M_V) h_L + (A * M_A) x)_d

(equations 8 to 10; A: the direct connections). With several masks, each step trains the next of them in turn (section
4.2), and the model is their even mixture, p(x) = 1/K sum_k p_k(x). Classes add a vector to every layer.

Shape legend: R rows, N samples, D values, H hidden units, K masks.
"""

import math
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from pretrain.contract import Carry, Loss
from pretrain.distributions.bernoulli import bernoulli_log_prob, check_binary
from pretrain.layers.masked_linear import MaskedLinear, Order, hidden_degrees, hidden_mask, output_mask, places_of
from pretrain.layers.precision import at_least_float32, to_dtype_of
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.vectors import Accepts, VectorModelConfig


class MADEConfig(VectorModelConfig):
    """The sizes of a MADE and its masks."""

    kind: Literal["made"]
    num_values: int = Field(gt=0)
    """Width of a row; its values are zeros and ones."""
    hidden_widths: tuple[PositiveInt, ...] = Field(min_length=1)
    num_masks: int = Field(default=1, gt=0)
    order: Order = "natural"
    """Of the values; `drawn` gives each mask another one."""
    mask_seed: int = 0
    direct: bool = False
    """Connect the values with the outputs directly too."""
    classes: int | None = Field(default=None, gt=0)
    """Number of classes that it is told; None: none."""

    accepts: ClassVar[Accepts] = "binary"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_values,)

    @property
    def num_classes(self) -> int | None:
        return self.classes

    def build(self) -> "MADE":
        return MADE(self)


class MADE(VisibleModel):
    """One network for all conditionals; a sample takes D passes."""

    def __init__(self, config: MADEConfig) -> None:
        super().__init__(config, config.num_values)
        self.config = config
        widths = [config.num_values, *config.hidden_widths, config.num_values]
        self.layers = nn.ModuleList(MaskedLinear(width, following) for width, following in pairwise(widths))
        self.direct = MaskedLinear(config.num_values, config.num_values, bias=False) if config.direct else None
        classes = config.num_classes
        self.classes = None if classes is None else nn.ModuleList(nn.Embedding(classes, w) for w in widths[1:])
        self._initialise()
        for number, degrees_KH in enumerate(self._degrees()):
            self.register_buffer(f"degrees_{number}", torch.as_tensor(degrees_KH), persistent=False)

    def _initialise(self) -> None:
        """Glorot's uniform weights; no direct connections and hardly any difference between classes at first."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias") or name.startswith("direct"):
                nn.init.zeros_(parameter)
            elif name.startswith("classes"):
                nn.init.normal_(parameter, std=0.01)
            else:
                nn.init.xavier_uniform_(parameter)

    def _degrees(self) -> list[np.ndarray]:
        """[K, D] places of the values, then [K, H] degrees of each hidden layer: functions of the config."""
        config, seed = self.config, self.config.mask_seed
        masks = range(config.num_masks)
        places_KD = np.stack([places_of(config.num_values, config.order, seed, mask) for mask in masks])
        hidden = [hidden_degrees(config.hidden_widths, config.num_values, seed, mask) for mask in masks]
        return [places_KD, *(np.stack(layer) for layer in zip(*hidden, strict=True))]

    def _degrees_of(self, layer: int, mask: int) -> Tensor:
        """[D] or [H]."""
        degrees_KH: Tensor = getattr(self, f"degrees_{layer}")
        return degrees_KH[mask]

    def logits(self, x_RD: Tensor, labels_R: Tensor | None, mask: int) -> Tensor:
        """[R, D] of p(x_d = 1 given what comes before d), under one of the masks."""
        degrees = [self._degrees_of(number, mask) for number in range(len(self.layers))]
        h, last = to_dtype_of(self, x_RD), len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            if number < last:
                h = layer(h, hidden_mask(degrees[number + 1], degrees[number]))
            else:
                h = layer(h, output_mask(degrees[0], degrees[number]))
            if self.classes is not None:
                h = h + self.classes[number](labels_R)
            h = F.relu(h) if number < last else h
        return (
            h if self.direct is None else h + self.direct(to_dtype_of(self, x_RD), output_mask(degrees[0], degrees[0]))
        )

    @property
    def outcomes(self) -> str:
        return "zeros and ones"

    def check_values(self, values: Tensor) -> Tensor:
        return check_binary(values)

    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x), of the mixture over all masks, in nats."""
        x_RD, labels_R = self._read(batch)
        masks = range(self.config.num_masks)
        each_KR = torch.stack([bernoulli_log_prob(self.logits(x_RD, labels_R, mask), x_RD) for mask in masks])
        return each_KR.logsumexp(0) - math.log(len(masks))

    def _read(self, batch: VectorBatch) -> tuple[Tensor, Tensor | None]:
        return self.check_values(batch.values).to(self._like().dtype), self.checked(batch.labels)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        """-log p under the step's mask in training, else under their mixture."""
        if not self.training:
            return super().forward(batch, carry, player=player, step=step)
        x_RD, labels_R = self._read(batch)
        logits_RD = self.logits(x_RD, labels_R, step % self.config.num_masks)
        return Loss(total=-bernoulli_log_prob(logits_RD, x_RD).sum(), count=batch.rows)

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N, D]; each row under a mask drawn by how probable that makes what is known."""
        drawn_ND = values_ND.clone()
        chosen_N = self._choose_masks(values_ND, known_ND, labels_N)
        for mask in chosen_N.unique().tolist():
            rows = chosen_N == mask
            labels = None if labels_N is None else labels_N[rows]
            drawn_ND[rows] = self._draw_under(mask, values_ND[rows], known_ND[rows], labels)
        return drawn_ND

    def _choose_masks(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N] p(mask given what is known), where that comes first in the mask's order."""
        log_prob_NK = at_least_float32(values_ND.new_zeros(len(values_ND), self.config.num_masks))
        if self.config.num_masks > 1 and bool(known_ND.any()):
            for mask in range(self.config.num_masks):
                logits_ND = at_least_float32(self.logits(values_ND, labels_N, mask))
                each_ND = bernoulli_log_prob(logits_ND[..., None], values_ND[..., None])
                log_prob_NK[:, mask] = (each_ND * known_ND).sum(-1)
        return torch.multinomial(log_prob_NK.softmax(-1), 1)[:, 0]

    def _draw_under(self, mask: int, x_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        x_ND = x_ND.clone()
        for value in self._degrees_of(0, mask).argsort().tolist():
            missing_N = ~known_ND[:, value]
            if not bool(missing_N.any()):
                continue
            chance_N = at_least_float32(self.logits(x_ND, labels_N, mask)[:, value]).sigmoid()
            x_ND[:, value] = torch.where(missing_N, torch.bernoulli(chance_N).to(x_ND.dtype), x_ND[:, value])
        return x_ND

    def flops_per_count(self) -> float:
        """Every weight once, those that a mask leaves out too."""
        return 2.0 * sum(m.weight.numel() for m in self.modules() if isinstance(m, MaskedLinear))
