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
    masked_B1LK: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Attention over memory and segment; returns [B, L, H, D]. Materialises the L x K scores of every head.

    `r_THD[t]` is the projected encoding of distance t; a distance beyond the table uses its last entry (the paper's
    clamp). `masked_B1LK` comes from `window_mask`; every query must see at least one key. `dropout` is applied to the
    attention weights, drawn from torch's default generator.

    Raises ValueError naming the argument where shapes do not fit.
    """
    _check(q_BLHD, k_BKHD, v_BKHD, r_THD, u_HD, w_HD, masked_B1LK)
    num_keys = k_BKHD.shape[1]
    distance_K = torch.arange(num_keys - 1, -1, -1, device=q_BLHD.device).clamp(max=r_THD.shape[0] - 1)
    k_BHDK = k_BKHD.permute(0, 2, 3, 1)
    r_HDK = r_THD[distance_K].permute(1, 2, 0)
    content_BHLK = (q_BLHD + u_HD).transpose(1, 2) @ k_BHDK
    position_BHLK = relative_shift((q_BLHD + w_HD).transpose(1, 2) @ r_HDK)
    score_BHLK = (content_BHLK + position_BHLK) * (1.0 / math.sqrt(q_BLHD.shape[-1]))
    weight_BHLK = torch.softmax(score_BHLK.masked_fill(masked_B1LK, float("-inf")), dim=-1)
    if dropout > 0.0:
        weight_BHLK = F.dropout(weight_BHLK, dropout)
    return (weight_BHLK @ v_BKHD.transpose(1, 2)).transpose(1, 2)


def _check(q: Tensor, k: Tensor, v: Tensor, r: Tensor, u: Tensor, w: Tensor, masked: Tensor) -> None:
    batch, queries, heads, width = q.shape
    keys = k.shape[1]
    wanted = {
        "k_BKHD": (k, (batch, keys, heads, width)),
        "v_BKHD": (v, (batch, keys, heads, width)),
        "r_THD": (r, (r.shape[0], heads, width)),
        "u_HD": (u, (heads, width)),
        "w_HD": (w, (heads, width)),
        "masked_B1LK": (masked, (batch, 1, queries, keys)),
    }
    for name, (tensor, shape) in wanted.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; with q_BLHD {tuple(q.shape)} it must be {shape}")
    if keys < queries:
        raise ValueError(f"k_BKHD has {keys} keys for {queries} queries; keys are memory and segment, so K >= L")
    if r.shape[0] < 1:
        raise ValueError("r_THD holds no distance; it needs at least distance 0")
