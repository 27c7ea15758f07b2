"""Transformer-XL's relative attention with memory in plain torch: the specification of the operation.

Dai et al. 2019 (https://arxiv.org/abs/1901.02860), section 3.3. With distance t = i + M - j between query i of the
segment and key j of (memory, segment),

    score_ij = ((q_i + u) . k_j + (q_i + w) . r_t) / sqrt(D),    0 <= t <= window_i
    out_i = sum_j softmax_j(score_ij) v_j

where w is the paper's v. A key outside the window (the future, empty memory, another document) has weight zero.

Shape legend: B rows, L queries, M memory positions, K = M + L keys, H heads, D head width, T distances in the table.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def window_mask(window_BL: Tensor, num_keys: int) -> Tensor:
    """[B, 1, L, K] bool, true where a key must not be seen: 0 <= distance <= window fails."""
    num_queries = window_BL.shape[1]
    memory = num_keys - num_queries
    query_L = torch.arange(num_queries, device=window_BL.device)
    key_K = torch.arange(num_keys, device=window_BL.device)
    distance_LK = query_L[:, None] + memory - key_K
    return ((distance_LK < 0) | (distance_LK > window_BL[..., None])).unsqueeze(1)


def relative_shift(position_BHLK: Tensor) -> Tensor:
    """[i, p] -> [i, p + L - 1 - i]: rows scored against descending distances K-1..0 become rows over keys 0..K-1.

    Entries with j > i + M hold another row's numbers; they lie in the future and are masked.
    """
    batch, heads, num_queries, num_keys = position_BHLK.shape
    padded = F.pad(position_BHLK, (1, 0)).view(batch, heads, num_keys + 1, num_queries)
    return padded[:, :, 1:].reshape(batch, heads, num_queries, num_keys)


def relative_attention(
    q_BLHD: Tensor,
    k_BKHD: Tensor,
    v_BKHD: Tensor,
    r_THD: Tensor,
    u_HD: Tensor,
    w_HD: Tensor,
    *,
    window_BL: Tensor,
    dropout: float = 0.0,
    memory_gradient: bool = True,
    kept_BHLK: Tensor | None = None,
) -> Tensor:
    """[B, L, H, D], with the scores of every head held; see the package for the arguments.

    `kept_BHLK` says which weights dropout leaves; without it, torch's default generator does.
    """
    num_keys = k_BKHD.shape[1]
    if not memory_gradient:
        k_BKHD, v_BKHD = (_detached_memory(x, num_keys - q_BLHD.shape[1]) for x in (k_BKHD, v_BKHD))
    distance_K = torch.arange(num_keys - 1, -1, -1, device=q_BLHD.device).clamp(max=r_THD.shape[0] - 1)
    k_BHDK = k_BKHD.permute(0, 2, 3, 1)
    r_HDK = r_THD[distance_K].permute(1, 2, 0)
    content_BHLK = (q_BLHD + u_HD).transpose(1, 2) @ k_BHDK
    position_BHLK = relative_shift((q_BLHD + w_HD).transpose(1, 2) @ r_HDK)
    score_BHLK = (content_BHLK + position_BHLK) * (1.0 / math.sqrt(q_BLHD.shape[-1]))
    weight_BHLK = torch.softmax(score_BHLK.masked_fill(window_mask(window_BL, num_keys), float("-inf")), dim=-1)
    if kept_BHLK is not None:
        weight_BHLK = weight_BHLK * kept_BHLK / (1.0 - dropout)
    elif dropout > 0.0:
        weight_BHLK = F.dropout(weight_BHLK, dropout)
    return (weight_BHLK @ v_BKHD.transpose(1, 2)).transpose(1, 2)


def by_distance(
    q_BLHD: Tensor, k_BKHD: Tensor, v_BKHD: Tensor, r_THD: Tensor, u_HD: Tensor, w_HD: Tensor, *, window_BL: Tensor
) -> Tensor:
    """The same without the shift: every pair's encoding is looked up by its distance. For tests: O(L K H D) memory."""
    queries, keys = q_BLHD.shape[1], k_BKHD.shape[1]
    query_L, key_K = torch.arange(queries, device=q_BLHD.device), torch.arange(keys, device=q_BLHD.device)
    distance_LK = (query_L[:, None] + keys - queries - key_K).clamp(0, r_THD.shape[0] - 1)
    content_BHLK = torch.einsum("blhd,bkhd->bhlk", q_BLHD + u_HD, k_BKHD)
    position_BHLK = torch.einsum("blhd,lkhd->bhlk", q_BLHD + w_HD, r_THD[distance_LK])
    score_BHLK = (content_BHLK + position_BHLK) / math.sqrt(q_BLHD.shape[-1])
    weight_BHLK = score_BHLK.masked_fill(window_mask(window_BL, keys), float("-inf")).softmax(-1)
    return torch.einsum("bhlk,bkhd->blhd", weight_BHLK, v_BKHD)


def _detached_memory(x_BKHD: Tensor, length: int) -> Tensor:
    return torch.cat([x_BKHD[:, :length].detach(), x_BKHD[:, length:]], dim=1)
