"""The neural autoregressive distribution estimator.

Larochelle & Murray 2011 (https://proceedings.mlr.press/v15/larochelle11a.html), Uria et al. 2016
(https://arxiv.org/abs/1605.02226, equations 2 to 5), over the values in their order,

    a_d = c + sum_(j<d) x_j W_j,    h_d = sigmoid(a_d),    p(x_d = 1 given x_<d) = sigmoid(b_d + V_d . h_d)

All a_d are one cumulative sum (`nade_logits`). A class adds a vector to c.

Shape legend: R rows, N samples, D values in their order, H hidden units.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from data_pipeline.batch import VectorBatch
from pretrain.distributions.bernoulli import bernoulli_log_prob, check_binary
from pretrain.layers.masked_linear import Order, places_of
from pretrain.layers.precision import at_least_float32
from pretrain.models.autoregressive.nade_logits import nade_logits
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.vectors import Accepts, VectorModelConfig


class NADEConfig(VectorModelConfig):
    """The sizes of a NADE and the order of its values."""

    kind: Literal["nade"]
    num_values: int = Field(gt=0)
    """Width of a row; its values are zeros and ones."""
    num_hidden: int = Field(gt=0)
    order: Order = "natural"
    order_seed: int = 0
    initial_std: float = Field(default=0.01, gt=0.0)
    classes: int | None = Field(default=None, gt=0)
    """Number of classes that it is told; None: none."""

    accepts: ClassVar[Accepts] = "binary"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_values,)

    @property
    def num_classes(self) -> int | None:
        return self.classes

    def build(self) -> "NADE":
        return NADE(self)


class NADE(VisibleModel):
    """Shares the weights of the values between all conditionals; a sample takes D steps of O(H) each."""

    order_D: Tensor

    def __init__(self, config: NADEConfig) -> None:
        super().__init__(config, config.num_values)
        self.config = config
        sizes, std = (config.num_values, config.num_hidden), config.initial_std
        self.weight_DH = nn.Parameter(torch.randn(sizes) * std)
        self.hidden_bias_H = nn.Parameter(torch.zeros(config.num_hidden))
        self.output_weight_DH = nn.Parameter(torch.randn(sizes) * std)
        self.output_bias_D = nn.Parameter(torch.zeros(config.num_values))
        self.classes = None if config.classes is None else nn.Embedding(config.classes, config.num_hidden)
        if self.classes is not None:
            nn.init.normal_(self.classes.weight, std=std)
        places_D = places_of(config.num_values, config.order, config.order_seed)
        self.register_buffer("order_D", torch.as_tensor(places_D).argsort(), persistent=False)

    def logits(self, x_RD: Tensor, labels_R: Tensor | None) -> Tensor:
        """[R, D] of p(x_d = 1 given x_<d); values and results stand in the model's order."""
        weight_DH, output_weight_DH = at_least_float32(self.weight_DH), at_least_float32(self.output_weight_DH)
        return nade_logits(x_RD, weight_DH, self._start(labels_R), output_weight_DH) + self.output_bias_D

    def _start(self, labels_R: Tensor | None) -> Tensor:
        """[1 or R, H]: what every a_d begins with."""
        start_1H = at_least_float32(self.hidden_bias_H)[None]
        return start_1H if self.classes is None else start_1H + self.classes(labels_R)

    @property
    def outcomes(self) -> str:
        return "zeros and ones"

    def check_values(self, values: Tensor) -> Tensor:
        return check_binary(values)

    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x) in nats."""
        x_RD = self.check_values(batch.values).to(self._like().dtype)[:, self.order_D]
        return bernoulli_log_prob(self.logits(x_RD, self.checked(batch.labels)), x_RD)

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N, D]; carries a_d from value to value."""
        drawn_ND = values_ND.clone()
        before_NH = self._start(labels_N).expand(len(values_ND), -1)
        for place, value in enumerate(self.order_D.tolist()):
            logit_N = before_NH.sigmoid() @ at_least_float32(self.output_weight_DH[place])
            chance_N = (logit_N + self.output_bias_D[place]).sigmoid()
            new_N = torch.bernoulli(chance_N).to(drawn_ND.dtype)
            drawn_ND[:, value] = torch.where(known_ND[:, value], drawn_ND[:, value], new_N)
            before_NH = before_NH + drawn_ND[:, value, None] * self.weight_DH[place]
        return drawn_ND

    def flops_per_count(self) -> float:
        """Every value with every hidden unit, in and out; blocks repeat a few sums."""
        return 4.0 * self.config.num_values * self.config.num_hidden
