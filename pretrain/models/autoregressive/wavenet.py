"""WaveNet: dilated causal convolutions over the samples of a wave.

van den Oord et al. 2016 (https://arxiv.org/abs/1609.03499). p(x) = prod_t p(x_t given x_<t); from h_0(t), which reads
x_(t-1) alone and is 0 at the beginning, layer l with dilation d has (equation 2, with y the class, the speaker's, say)

    z = tanh(W_f *_d h + V_f y) . sigmoid(W_g *_d h + V_g y),    h <- h + W_r z,    skip <- skip + W_s z

and x_t's distribution is read from relu(W relu(skip)): a softmax over mu-law codes, or (van den Oord et al. 2017,
https://arxiv.org/abs/1711.10433, section 2) a mixture of logistics over all levels of the wave. x_t depends on the
1 + (kernel - 1) * sum(dilations) samples before it. With output=mu_law, log p is that of the codes.

Shape legend: R rows, N samples drawn, T samples of a wave, F residual features, G = 2 F, S skip features, P parameters.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from pretrain.distributions.categorical import categorical_log_prob, draw_categorical, level_of, value_of
from pretrain.distributions.logistic import draw_logistic_mixture, logistic_mixture_log_prob
from pretrain.layers.precision import at_least_float32
from pretrain.models.autoregressive.visible import VisibleModel
from pretrain.models.autoregressive.wavenet_layers import DilatedLayer, WaveNetCache
from pretrain.models.vectors import Accepts, VectorModelConfig
from pretrain.quantizers.mu_law import mu_law_codes, mu_law_values


class WaveNetConfig(VectorModelConfig):
    """A wave's length, what a sample is distributed by, and the sizes of the layers."""

    kind: Literal["wavenet"]
    length_of_wave: int = Field(gt=0)
    """Samples in a row."""
    levels: int = Field(default=65_536, ge=2)
    """Of the data's samples: 65,536 of 16 bits."""
    output: Literal["mu_law", "logistic"] = "mu_law"
    num_codes: int = Field(default=256, ge=2)
    """Of output=mu_law."""
    num_components: int = Field(default=10, gt=0)
    """Of output=logistic."""
    residual_features: int = Field(gt=0)
    skip_features: int = Field(gt=0)
    kernel: int = Field(default=2, ge=2)
    dilations: tuple[PositiveInt, ...] = Field(min_length=1)
    """Of each layer, such as 1, 2, 4, .., 512, and again."""
    classes: int | None = Field(default=None, gt=0)
    """Number of classes (speakers, digits) that it is told; None: none."""

    accepts: ClassVar[Accepts] = "unit"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.length_of_wave)

    @property
    def num_levels(self) -> int | None:
        return self.levels

    @property
    def num_classes(self) -> int | None:
        return self.classes

    @property
    def receptive_field(self) -> int:
        """Samples before it that one depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def build(self) -> "WaveNet":
        return WaveNet(self)


class WaveNet(VisibleModel):
    """A stack of dilated layers; a drawn sample costs one step of each."""

    unit = "row"

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__(config, config.length_of_wave)
        self.config = config
        codes, width, skip = config.output == "mu_law", config.residual_features, config.skip_features
        self.first: nn.Module = nn.Embedding(config.num_codes, width) if codes else nn.Linear(1, width)
        last = len(config.dilations) - 1
        self.layers = nn.ModuleList(
            DilatedLayer(width, skip, config.kernel, dilation, config.classes, last=number == last)
            for number, dilation in enumerate(config.dilations)
        )
        self.before_output = nn.Linear(skip, skip)
        self.output = nn.Linear(skip, config.num_codes if codes else 3 * config.num_components)

    def parameters_of(self, x_RT: Tensor, labels_R: Tensor | None) -> Tensor:
        """[R, T, P] of each sample's distribution, given those before it."""
        h_RFT = F.pad(self.step_input(x_RT[:, :-1]).transpose(1, 2), (1, 0))
        skip_RST = None
        for layer in self.layers:
            h_RFT, out_RST = layer(h_RFT, labels_R)
            skip_RST = out_RST if skip_RST is None else skip_RST + out_RST
        assert skip_RST is not None
        return self.head(skip_RST.transpose(1, 2))

    def head(self, skip: Tensor) -> Tensor:
        """[..., S] -> [..., P]."""
        return self.output(F.relu(self.before_output(F.relu(skip))))

    def step_input(self, x: Tensor) -> Tensor:
        """[...] samples -> [..., F] what the layers read at the sample after each: of its code, or of its value."""
        if self.config.output == "mu_law":
            return self.first(mu_law_codes(x, self.config.num_codes))
        return self.first(2 * x.to(self._like().dtype)[..., None] - 1)

    @property
    def outcomes(self) -> str:
        if self.config.output == "mu_law":
            return f"{self.config.num_codes} mu-law codes of each sample"
        return f"{self.config.levels} levels of each sample"

    def check_values(self, values: Tensor) -> Tensor:
        if self.config.output == "mu_law":
            mu_law_codes(values, self.config.num_codes)
        else:
            level_of(values, self.config.levels)
        return values

    def log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x), or of its codes, in nats."""
        parameters_RTP = self.parameters_of(batch.values, self.checked(batch.labels))
        if self.config.output == "mu_law":
            return categorical_log_prob(parameters_RTP, mu_law_codes(batch.values, self.config.num_codes)).sum(-1)
        levels = self.config.levels
        values_RT = value_of(level_of(batch.values, levels), levels, at_least_float32(batch.values).dtype)
        return logistic_mixture_log_prob(values_RT, *self._mixture(parameters_RTP), levels).sum(-1)

    def _mixture(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, means and log scales of the components, for values from 0 to 1; at first a tenth wide."""
        logits, mean, log_scale = at_least_float32(parameters).chunk(3, dim=-1)
        return logits, (mean + 1) / 2, log_scale - 3.0

    def draw_one(self, parameters_NP: Tensor) -> Tensor:
        """[N] values in [0, 1]."""
        if self.config.output == "mu_law":
            codes_N = draw_categorical(parameters_NP)
            return mu_law_values(codes_N, self.config.num_codes, at_least_float32(parameters_NP).dtype)
        return draw_logistic_mixture(*self._mixture(parameters_NP), self.config.levels)

    def draw(self, values_ND: Tensor, known_ND: Tensor, labels_N: Tensor | None) -> Tensor:
        """[N, T]; one step of every layer for each sample."""
        drawn_NT, cache = values_ND.clone(), self.cache(len(values_ND), labels_N)
        before_NF = None
        for t in range(drawn_NT.shape[1]):
            parameters_NP = self.head(cache.advance(before_NF))
            if not bool(known_ND[:, t].all()):
                new_N = self.draw_one(parameters_NP).to(drawn_NT.dtype)
                drawn_NT[:, t] = torch.where(known_ND[:, t], drawn_NT[:, t], new_N)
            before_NF = self.step_input(drawn_NT[:, t])
        return drawn_NT

    def cache(self, rows: int, labels_N: Tensor | None) -> WaveNetCache:
        """At the beginning of a wave."""
        layers = [layer for layer in self.layers if isinstance(layer, DilatedLayer)]
        return WaveNetCache(layers, rows, labels_N)

    def flops_per_count(self) -> float:
        """Every weight but those of tables once for each sample; the first layer reads all samples but the last."""
        layers = (m.weight.numel() for m in self.modules() if isinstance(m, nn.Linear | nn.Conv1d))
        first = self.first.weight.numel() if isinstance(self.first, nn.Linear) else 0
        return 2.0 * (sum(layers) * self.config.length_of_wave - first)
