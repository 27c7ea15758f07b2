"""The Transformer-XL attention layer: queries from the segment, keys and values from memory and segment.

Dai et al. 2019, section 3.3. Gradients flow through the memory's keys and values into their projections, as in the
original; the memory itself is detached, so it is enough to keep it out of the graph.

Shape legend: B rows, L queries, K = M + L keys, H heads, D head width, W model width, T distances.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.relative_attention import relative_attention


def sinusoids(num_distances: int, width: int, *, like: Tensor) -> Tensor:
    """[T, W] encodings of distances 0..T-1: sines of W/2 frequencies, then cosines (Vaswani et al. 2017, sec. 3.5)."""
    frequency = 10000.0 ** (-torch.arange(0.0, width, 2.0, device=like.device) / width)
    angle = torch.arange(float(num_distances), device=like.device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=-1)[:, :width].to(like.dtype)


class RelativeBiases(nn.Module):
    """The paper's u and v: what a query asks of any content and of any distance; shared by layers or one each."""

    def __init__(self, num_heads: int, head_width: int) -> None:
        super().__init__()
        self.u_HD = nn.Parameter(torch.empty(num_heads, head_width))
        self.w_HD = nn.Parameter(torch.empty(num_heads, head_width))


class RelativeAttention(nn.Module):
    """Multi-head relative attention without biases in its projections, as in the paper's code."""

    def __init__(self, width: int, num_heads: int, head_width: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_width, self.dropout = num_heads, head_width, dropout
        inner = num_heads * head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.distance = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def forward(
        self, h_BLW: Tensor, context_BKW: Tensor, r_TW: Tensor, biases: RelativeBiases, masked_B1LK: Tensor
    ) -> Tensor:
        """[B, L, W]: what each position of the segment reads from `context_BKW` (memory, then the segment)."""
        heads = (self.num_heads, self.head_width)
        key_BKHD, value_BKHD = self.key_value(context_BKW).unflatten(-1, (2, *heads)).unbind(2)
        read_BLHD = relative_attention(
            self.query(h_BLW).unflatten(-1, heads),
            key_BKHD,
            value_BKHD,
            self.distance(r_TW).unflatten(-1, heads),
            biases.u_HD,
            biases.w_HD,
            masked_B1LK=masked_B1LK,
            dropout=self.dropout if self.training else 0.0,
        )
        return self.output(read_BLHD.flatten(2))


class FeedForward(nn.Module):
    """Two layers with ReLU, as in Transformer-XL."""

    def __init__(self, width: int, inner_width: int, *, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner_width)
        self.output = nn.Linear(inner_width, width)
        self.dropout = dropout

    def forward(self, h_BLW: Tensor) -> Tensor:
        inner = F.dropout(F.relu(self.inner(h_BLW)), self.dropout, self.training)
        return F.dropout(self.output(inner), self.dropout, self.training)
