"""The Transformer-XL attention layer: queries from the segment, keys and values from memory and segment.

Dai et al. 2019, section 3.3. Memory is either hidden states, projected anew in each segment, so that gradients flow
through its keys and values into their projections (the original); or keys and values as they were projected when they
were in the segment, without a gradient (cheaper; equal while weights stand still, as in evaluation).

Memory is projected apart from the segment and is detached, so that no gradient by its hidden states is ever formed.

Shape legend: B rows, L queries, M memory, K = M + L keys, H heads, D head width, W model width, T distances.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kernels.choice import Implementation
from kernels.relative_attention import relative_attention, unsupported_width


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

    kernel = "relative_attention"

    def __init__(self, width: int, num_heads: int, head_width: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.head_width, self.dropout = num_heads, head_width, dropout
        self.impl: Implementation = "auto"
        inner = num_heads * head_width
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(width, 2 * inner, bias=False)
        self.distance = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)

    def kernel_unsupported(self) -> str | None:
        return unsupported_width(self.head_width)

    def keys_and_values(self, h_BLW: Tensor) -> Tensor:
        """[B, L, 2HD] of hidden states."""
        projected_BLI: Tensor = self.key_value(h_BLW)
        return projected_BLI

    def forward(
        self,
        h_BLW: Tensor,
        context_BKI: Tensor,
        r_TW: Tensor,
        biases: RelativeBiases,
        window_BL: Tensor,
        *,
        memory_gradient: bool = True,
    ) -> Tensor:
        """[B, L, W]: what each position of the segment reads from `context_BKI`, the keys and values (I = 2HD) of
        memory, then of the segment; `window_BL` says how far back."""
        heads = (self.num_heads, self.head_width)
        key_BKHD, value_BKHD = context_BKI.unflatten(-1, (2, *heads)).unbind(2)
        read_BLHD = relative_attention(
            self.query(h_BLW).unflatten(-1, heads),
            key_BKHD,
            value_BKHD,
            self.distance(r_TW).unflatten(-1, heads),
            biases.u_HD,
            biases.w_HD,
            window_BL=window_BL,
            dropout=self.dropout if self.training else 0.0,
            memory_gradient=memory_gradient,
            impl=self.impl,
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
