"""Self-attention over the prefix, as in GPT-2, for whole segments and token by token with cached keys and values.

Shape legend: B rows, L queries, K keys, C positions of the cache, H heads, D head width, W = H * D model width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CausalAttention(nn.Module):
    """Multi-head attention with biases in its projections; each position sees itself and what precedes it."""

    def __init__(self, width: int, num_heads: int, *, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, h_BLW: Tensor, masked_B1LL: Tensor | None) -> Tensor:
        """[B, L, W]: what each position reads from its prefix.

        `masked_B1LL` is true where a key must not be seen; None stands for the future alone.
        """
        q_BHLD, k_BHLD, v_BHLD = self._project(h_BLW)
        visible = None if masked_B1LL is None else ~masked_B1LL
        dropout = self.dropout if self.training else 0.0
        read_BHLD = F.scaled_dot_product_attention(
            q_BHLD, k_BHLD, v_BHLD, attn_mask=visible, is_causal=visible is None, dropout_p=dropout
        )
        return self.output(read_BHLD.transpose(1, 2).flatten(2))

    def extend(self, h_BLW: Tensor, cache_B2HCD: Tensor, seen: int) -> tuple[Tensor, Tensor]:
        """The same for the L positions after `seen` cached ones; returns [B, L, W] and the cache with them added."""
        q_BHLD, k_BHLD, v_BHLD = self._project(h_BLW)
        num_keys = seen + h_BLW.shape[1]
        cache_B2HCD = cache_B2HCD.clone()
        cache_B2HCD[:, :, :, seen:num_keys] = torch.stack([k_BHLD, v_BHLD], dim=1)
        k_BHKD, v_BHKD = cache_B2HCD[:, :, :, :num_keys].unbind(1)
        visible_LK = torch.ones(h_BLW.shape[1], num_keys, dtype=torch.bool, device=h_BLW.device).tril(seen)
        read_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHKD, v_BHKD, attn_mask=visible_LK)
        return self.output(read_BHLD.transpose(1, 2).flatten(2)), cache_B2HCD

    def _project(self, h_BLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv_BL3HD = self.query_key_value(h_BLW).unflatten(-1, (3, self.num_heads, -1))
        q_BHLD, k_BHLD, v_BHLD = qkv_BL3HD.permute(2, 0, 3, 1, 4)
        return q_BHLD, k_BHLD, v_BHLD
