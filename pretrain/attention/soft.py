"""Soft attention: every target position reads the whole source (Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473).

    weights_ij = softmax_j energy(s_i, h_j)

Legend: see `pretrain.attention.source`.
"""

from typing import Literal

from torch import Tensor

from pretrain.attention.source import AttentionConfig, Energy, Reading, SourceAttention, logits_of_present


class SoftConfig(AttentionConfig):
    """No further setting."""

    kind: Literal["soft"]

    def build(self, query_width: int, memory_width: int) -> "SoftAttention":
        return SoftAttention(self, query_width, memory_width)


class SoftAttention(SourceAttention):
    """Reads everything, hard or not."""

    streams = False

    def __init__(self, config: SoftConfig, query_width: int, memory_width: int) -> None:
        super().__init__()
        self.energy = Energy(query_width, memory_width, config.width)

    def forward(self, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor, *, hard: bool) -> Reading:
        energies_RTS = logits_of_present(self.energy(s_RTQ, h_RSM), present_RS, float("-inf"))
        return Reading(energies_RTS.softmax(-1), None)

    def stops_here(self, s_1Q: Tensor, h_1M: Tensor) -> bool:
        return False

    def weights(self, s_1Q: Tensor, h_JM: Tensor) -> Tensor:
        return self.energy(s_1Q[None], h_JM[None])[0, 0].softmax(-1)
