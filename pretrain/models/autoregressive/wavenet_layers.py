"""The layers of a WaveNet over a whole wave, and one sample at a time from what they kept.

A layer with dilation d and a kernel of k reads its input at t, t - d, .., t - (k - 1) d, so a wave is continued in
O(layers) a sample if each keeps its last (k - 1) d inputs (Le Paine et al. 2016, https://arxiv.org/abs/1611.09482).

Shape legend: R rows, N samples drawn, T samples of a wave, F residual features, G = 2 F, S skip features, K taps.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class DilatedLayer(nn.Module):
    """A gated causal convolution with a residual and a skip connection; the last layer has only the skip."""

    def __init__(
        self, features: int, skip_features: int, kernel: int, dilation: int, classes: int | None, *, last: bool
    ) -> None:
        super().__init__()
        self.dilation = dilation
        self.kernel, self.features = kernel, features
        self.taps = nn.Conv1d(features, 2 * features, kernel, dilation=dilation)
        self.skip = nn.Linear(features, skip_features)
        self.residual = None if last else nn.Linear(features, features)
        self.class_table = None if classes is None else nn.Embedding(classes, 2 * features)
        if self.class_table is not None:
            nn.init.normal_(self.class_table.weight, std=0.01)

    def forward(self, h_RFT: Tensor, labels_R: Tensor | None) -> tuple[Tensor, Tensor]:
        """[R, F, T] the next layer's input, and [R, S, T] for the output."""
        a_RGT = self.taps(F.pad(h_RFT, ((self.kernel - 1) * self.dilation, 0)))
        if self.class_table is not None:
            a_RGT = a_RGT + self.class_table(labels_R)[:, :, None]
        signal_RFT, opening_RFT = a_RGT.chunk(2, dim=1)
        z_RTF = (signal_RFT.tanh() * opening_RFT.sigmoid()).transpose(1, 2)
        skip_RST = self.skip(z_RTF).transpose(1, 2)
        return h_RFT if self.residual is None else h_RFT + self.residual(z_RTF).transpose(1, 2), skip_RST


class LayerCache:
    """A layer's last inputs, in a ring, and its weights laid out for one sample."""

    def __init__(self, layer: DilatedLayer, rows: int, labels_N: Tensor | None) -> None:
        self.dilation, self.span = layer.dilation, (layer.kernel - 1) * layer.dilation
        weight_GFK, bias_G = layer.taps.weight, layer.taps.bias
        assert bias_G is not None
        self.taps_FG = [weight_GFK[:, :, tap].t().contiguous() for tap in range(layer.kernel)]
        self.start_NG = bias_G.expand(rows, -1)
        if layer.class_table is not None:
            self.start_NG = self.start_NG + layer.class_table(labels_N)
        self.residual = None if layer.residual is None else (layer.residual.weight, layer.residual.bias)
        self.ring = list(weight_GFK.new_zeros(self.span, rows, layer.features).unbind(0))

    def advance(self, h_NF: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """[N, F] of sample t: the next layer's input, and what the skip connection reads."""
        a_NG = torch.addmm(self.start_NG, h_NF, self.taps_FG[-1])
        for tap, weight_FG in enumerate(self.taps_FG[:-1]):
            a_NG = torch.addmm(a_NG, self.ring[(t + tap * self.dilation) % self.span], weight_FG)
        self.ring[t % self.span] = h_NF
        signal_NF, opening_NF = a_NG.chunk(2, dim=1)
        z_NF = signal_NF.tanh() * opening_NF.sigmoid()
        return h_NF if self.residual is None else h_NF + F.linear(z_NF, *self.residual), z_NF


class WaveNetCache:
    """All layers in the middle of so many waves; all skip connections are one product."""

    def __init__(self, layers: Sequence[DilatedLayer], rows: int, labels_N: Tensor | None) -> None:
        self.layers = [LayerCache(layer, rows, labels_N) for layer in layers]
        self.skip_weight = torch.cat([layer.skip.weight for layer in layers], dim=1)
        self.skip_bias_S = torch.stack([layer.skip.bias for layer in layers]).sum(0)
        self.silence_NF = layers[0].taps.weight.new_zeros(rows, layers[0].features)
        self.t = 0

    def advance(self, h_NF: Tensor | None) -> Tensor:
        """[N, S] for the next sample's distribution, given the first layer's input of the sample before it."""
        h_NF = self.silence_NF if h_NF is None else h_NF
        skipped = []
        for layer in self.layers:
            h_NF, z_NF = layer.advance(h_NF, self.t)
            skipped.append(z_NF)
        self.t += 1
        return F.linear(torch.cat(skipped, dim=1), self.skip_weight, self.skip_bias_S)
