"""What every attention of a decoder over a source has: energies, and reading in expectation or decision by decision.

An attention says for every target position how much it reads of each source position (its *weights*), and where it
stops (its *stops*): the probability that the position had read the source up to there and no further when it was
written. Training takes both in expectation, streaming decides. The energies are those of Raffel et al. 2017
(https://arxiv.org/abs/1704.00784, equation 16), additive attention whose scale and offset are parameters:

    energy(s, h) = g v . tanh(W s + V h + b) / |v| + r

Shape legend: R rows, T target positions, S source positions, Q query width, M memory width, A width of energies.
"""

import abc
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from data_pipeline.config import Config
from pretrain.layers.precision import at_least_float32

CERTAIN = 1e4
"""A stop logit whose probability is 1, with nothing left of the other in any precision."""


class AttentionConfig(Config, abc.ABC):
    """What the kinds have in common."""

    kind: str
    width: int = Field(gt=0)
    """Of the layer in which energies are computed."""

    @abc.abstractmethod
    def build(self, query_width: int, memory_width: int) -> "SourceAttention": ...


class StoppingConfig(AttentionConfig, abc.ABC):
    """Of those that decide where to stop."""

    noise_std: float = Field(default=1.0, ge=0.0)
    """Of the Gaussian noise that is added to stop logits in training, so that they learn to be far from 0 (Raffel et
    al. 2017, section 2.4)."""
    initial_stop_logit: float = -1.0
    """r at first: the lower, the further it reads before it has learned anything."""


@dataclass(frozen=True)
class Reading:
    """How the target positions read the source, in at least float32. No slots: ZeRO 3 looks into what modules return
    by its `__dict__`."""

    weights: Tensor
    """[R, T, S]: the context is their sum over the memory. A row sums to its stops' sum, but for soft attention's,
    which sums to 1."""
    stops: Tensor | None
    """[R, T, S] non-negative; a row sums to at most 1, and what is missing has run past the end. None: all is read
    before anything is written."""


class Energy(nn.Module):
    """Additive energies; `initial` is r at first, None for energies of a softmax, which does not depend on it."""

    def __init__(self, query_width: int, memory_width: int, width: int, *, initial: float | None = None) -> None:
        super().__init__()
        self.query = nn.Linear(query_width, width)
        self.memory = nn.Linear(memory_width, width, bias=False)
        self.direction_A = nn.Parameter(torch.randn(width))
        self.scale_1 = nn.Parameter(torch.full((1,), 1.0))
        self.offset_1 = None if initial is None else nn.Parameter(torch.full((1,), initial))

    def forward(self, s_RTQ: Tensor, h_RSM: Tensor) -> Tensor:
        """[R, T, S] of every query with every memory."""
        hidden_RTSA = (self.query(s_RTQ)[:, :, None] + self.memory(h_RSM)[:, None]).tanh()
        unit_A = self.direction_A / self.direction_A.norm()
        energies_RTS = self.scale_1 * (hidden_RTSA @ unit_A)
        return at_least_float32(energies_RTS if self.offset_1 is None else energies_RTS + self.offset_1)


class SourceAttention(nn.Module, abc.ABC):
    """One of the attentions; `present_RS` is true where the source has a position."""

    streams: bool
    """Whether it can write before it has read everything."""

    @abc.abstractmethod
    def forward(self, s_RTQ: Tensor, h_RSM: Tensor, present_RS: Tensor, *, hard: bool) -> Reading:
        """In expectation (with noise, in training), or `hard`: as a stream is read, where every stop is decided."""

    @abc.abstractmethod
    def stops_here(self, s_1Q: Tensor, h_1M: Tensor) -> bool:
        """Whether the target position stops at this source position, the next that it is shown."""

    @abc.abstractmethod
    def weights(self, s_1Q: Tensor, h_JM: Tensor) -> Tensor:
        """[J] of a target position that has read J source positions and stops at the last."""


def logits_of_present(energies_RTS: Tensor, present_RS: Tensor, absent: float) -> Tensor:
    """The energies, and `absent` where there is no source position."""
    return energies_RTS.masked_fill(~present_RS[:, None], absent)
