"""Attention with relative positions over a segment and its memory (Transformer-XL)."""

from kernels.relative_attention.reference import relative_attention, window_mask

__all__ = ["relative_attention", "window_mask"]
