"""Inputs of relative attention, shared by tests, benchmark and tuner: hard shapes, and shapes that recipes use.

Shape legend as in the reference.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kernels.relative_attention.fused import Tensors

Window = Literal["memory", "same_length", "resets"]
"""How far queries see: to the beginning of the memory; equally far each; to the beginning of their document."""


@dataclass(frozen=True)
class Case:
    """One shape of the operation."""

    name: str
    rows: int
    heads: int
    queries: int
    memory: int
    width: int
    distances: int | None = None
    """Of the table; None: all K."""
    window: Window = "memory"
    dropout: float = 0.0
    memory_gradient: bool = True

    @property
    def keys(self) -> int:
        return self.memory + self.queries

    @property
    def visible_pairs(self) -> int:
        """Of query and key, over rows and heads, for windows to the beginning of the memory."""
        return self.rows * self.heads * (self.queries * self.memory + self.queries * (self.queries + 1) // 2)

    def tensors(self, dtype: torch.dtype, device: str | torch.device = "cpu", *, seed: int = 0) -> Tensors:
        """Standard normal; keys and values lie side by side, as the layer projects them."""
        generator = torch.Generator().manual_seed(seed)
        width = (self.heads, self.width)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator).to(device, dtype)

        k_BKHD, v_BKHD = draw(self.rows, self.keys, 2, *width).unbind(2)
        r_THD = draw(self.keys if self.distances is None else self.distances, *width)
        return Tensors(
            draw(self.rows, self.queries, *width), k_BKHD, v_BKHD, r_THD, draw(*width), draw(*width),
            self._window(generator).to(device),
        )  # fmt: skip

    def _window(self, generator: torch.Generator) -> Tensor:
        shape = (self.rows, self.queries)
        if self.window == "same_length":
            return torch.full(shape, max(self.memory, 1))
        if self.window == "resets":
            return torch.randint(0, self.keys, shape, generator=generator)
        return (torch.arange(self.queries) + self.memory).expand(shape).contiguous()


RAGGED = (
    Case("square", 2, 2, 32, 32, 16),
    Case("ragged", 1, 2, 50, 37, 41),
    Case("no memory", 2, 1, 20, 0, 32),
    Case("short segment", 2, 2, 9, 61, 16),
    Case("one query", 1, 2, 1, 190, 64),
    Case("same length", 1, 2, 33, 40, 16, window="same_length"),
    Case("documents", 3, 1, 40, 24, 16, window="resets"),
    Case("clamped", 1, 2, 40, 56, 16, distances=13),
    Case("table too long", 1, 1, 18, 14, 16, distances=50),
    Case("dropout", 2, 2, 33, 50, 16, dropout=0.3),
    Case("cached memory", 2, 1, 24, 40, 16, memory_gradient=False),
    Case("wide heads", 1, 1, 20, 30, 80),
    Case("widest heads", 1, 1, 17, 15, 128),
)
"""No length is a multiple of a tile, or all are; small enough for the interpreter."""

RECIPES = (
    Case("wt103-large", 16, 16, 384, 384, 64),
    Case("wt103-base", 60, 10, 150, 150, 41),
    Case("enwik8-base", 22, 8, 512, 512, 64),
    Case("enwik8-large", 8, 8, 768, 768, 128),
    Case("long", 4, 16, 2048, 2048, 64),
    Case("evaluation", 10, 16, 128, 1600, 64),
)
"""Training shapes of the paper's models (Dai et al. 2019, released scripts), a long one, and one of evaluation."""
