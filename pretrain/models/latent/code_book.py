"""Vector quantization with straight-through gradients, and the two ways in which codes learn.

van den Oord et al. 2017 (https://arxiv.org/abs/1711.00937, equations 1 to 3): each vector x becomes its nearest code c,
what follows is computed with c and its gradient handed to x unchanged, and |x - sg(c)|^2 (commitment) keeps the vectors
near the codes. These are moved

- `gradient`: by |sg(x) - c|^2 beside the rest. With n_k vectors that chose code k the gradient is 2 n_k (c_k - their
  mean), so a step of 1 / (2 n_k) along it would be one of Lloyd's algorithm;
- `moving_average` (the paper's appendix A.1): they are quotients of moving averages of the vectors that chose them, see
  `MovingAverageCodeBook`.

Shape legend: R rows, P positions, W width of a code, K codes.
"""

import abc
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.config import Config
from kernels.choice import Implementation
from kernels.nearest_code import nearest_code
from pretrain.layers.precision import at_least_float32
from pretrain.optim import OptimizerConfig, SGDConfig


class GradientCodes(Config):
    """Codes are parameters that descend their distance from the vectors, beside the rest of the model."""

    kind: Literal["gradient"] = "gradient"
    players: ClassVar[tuple[str, ...]] = ("model",)

    def build(self, num_codes: int, width: int) -> "CodeBook":
        return CodeBook(num_codes, width)

    def optimizer_problem(self, player: str, optimizer: OptimizerConfig) -> str | None:
        return None


class MovingAverageCodes(Config):
    """Codes are quotients of moving averages, whose decay is 1 - the learning rate of the player `code_book`."""

    kind: Literal["moving_average"]
    epsilon: float = Field(default=1e-7, gt=0)
    """Added to each code's share of the vectors, so that nothing divides by zero."""
    players: ClassVar[tuple[str, ...]] = ("code_book", "autoencoder")

    def build(self, num_codes: int, width: int) -> "MovingAverageCodeBook":
        return MovingAverageCodeBook(num_codes, width, self.epsilon)

    def optimizer_problem(self, player: str, optimizer: OptimizerConfig) -> str | None:
        """Why the statistics would be no moving averages: field, value, rule and remedy."""
        if player != "code_book":
            return None
        remedy = "set player_optimizers.code_book={kind: sgd, learning_rate: 0.01}, whose decay is 0.99"
        if not isinstance(optimizer, SGDConfig):
            return f"kind is '{optimizer.kind}': only plain gradient descent makes moving averages; {remedy}"
        if optimizer.gradient_clip is not None:
            return (
                f"gradient_clip is {optimizer.gradient_clip:g}: a clipped step is another decay in each turn; "
                "set it to null"
            )
        if optimizer.weight_decay:
            return f"weight_decay is {optimizer.weight_decay:g}: it would pull every code to zero; set it to 0"
        if optimizer.learning_rate > 1.0:
            return (
                f"learning_rate is {optimizer.learning_rate:g}: it is 1 - decay, at most 1 (a decay of 0, one step of "
                f"k-means); {remedy}"
            )
        return None


CodesConfig = Annotated[GradientCodes | MovingAverageCodes, Field(discriminator="kind")]
"""How codes learn."""


class Quantizer(nn.Module, abc.ABC):
    """K codes of one width for all positions."""

    kernel = "nearest_code"

    def __init__(self) -> None:
        super().__init__()
        self.impl: Implementation = "auto"

    @abc.abstractmethod
    def codes(self) -> Tensor:
        """[K, W], at least float32."""

    def kernel_unsupported(self) -> str | None:
        return None

    def nearest(self, x_RPW: Tensor) -> Tensor:
        """[R, P] int64 the number of each vector's nearest code."""
        x_NW, codes_KW = at_least_float32(x_RPW).detach().flatten(0, 1), self.codes().detach()
        return nearest_code(x_NW, codes_KW, impl=self.impl).view(x_RPW.shape[:2])

    def vectors(self, codes_RP: Tensor) -> Tensor:
        """[R, P, W], at least float32."""
        return F.embedding(codes_RP, self.codes())

    def forward(self, x_RPW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Vectors -> [R, P, W] codes whose gradient goes to the vectors, [R, P] their numbers, and of each row [R] the
        loss of the codes and the commitment."""
        x_RPW = at_least_float32(x_RPW)
        numbers_RP = self.nearest(x_RPW)
        chosen_RPW = self.vectors(numbers_RP)
        codes_R = (x_RPW.detach() - chosen_RPW).square().sum((1, 2))
        commitment_R = (x_RPW - chosen_RPW.detach()).square().sum((1, 2))
        return chosen_RPW.detach() + (x_RPW - x_RPW.detach()), numbers_RP, codes_R, commitment_R


class CodeBook(Quantizer):
    """Codes that are parameters."""

    def __init__(self, num_codes: int, width: int) -> None:
        super().__init__()
        self.codes_KW = nn.Parameter(torch.randn(num_codes, width))

    def codes(self) -> Tensor:
        return at_least_float32(self.codes_KW)


class MovingAverageCodeBook(Quantizer):
    """Codes c_k = m_k / N_k, with moving averages N_k of the share of vectors that choose code k, and m_k of the sum of
    these vectors by the number of all.

    A buffer that is overwritten in forward would hold another average on every worker. So the averages are parameters:
    half their squared distance from the statistics of each vector, `statistics_loss`, has over a batch of n vectors, of
    which n_k choose code k, the mean gradient

        N_k - n_k / n,    m_k - (sum of the n_k vectors) / n

    and a step of gradient descent at the rate 1 - decay along it, which an engine takes with the sum over all
    micro-batches and workers, is the paper's recurrence over the whole batch (in shares of it in place of numbers: the
    quotients are the same):

        N_k <- decay N_k + (1 - decay) n_k / n,    m_k <- decay m_k + (1 - decay) (sum of the n_k vectors) / n

    The shares sum to one and stay so. They are smoothed as in the authors' code (Laplace: sonnet's `vqvae.py`), to

        (N_k + epsilon) / (1 + K epsilon)

    so that a code which nobody chooses divides by no zero: N_k and m_k fall alike and the code stays where it is, until
    N_k comes near epsilon; then it shrinks to the origin. It starts with N_k = 1 / K, as if all had been chosen alike,
    and m_k such that the codes are drawn as those of `CodeBook`; these count for decay^t after t turns.
    """

    def __init__(self, num_codes: int, width: int, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.shares_K = nn.Parameter(torch.full((num_codes,), 1.0 / num_codes))
        self.sums_KW = nn.Parameter(torch.randn(num_codes, width) / num_codes)

    def codes(self) -> Tensor:
        """[K, W], at least float32, without a gradient: only the statistics have one, and only of their own loss."""
        shares_K = at_least_float32(self.shares_K).detach()
        smoothed_K = (shares_K.clamp(min=0.0) + self.epsilon) / (1.0 + len(shares_K) * self.epsilon)
        return at_least_float32(self.sums_KW).detach() / smoothed_K[:, None]

    def statistics_loss(self, x_RPW: Tensor) -> Tensor:
        """[] the sum over rows of the mean over positions of (|N - e|^2 + |m - e x^T|^2) / 2, where e [K] is one at the
        vector's code and zero elsewhere."""
        x_RPW = at_least_float32(x_RPW).detach()
        shares_K, sums_KW = at_least_float32(self.shares_K), at_least_float32(self.sums_KW)
        numbers_RP = self.nearest(x_RPW)
        own = len(x_RPW) * (shares_K.square().sum() + sums_KW.square().sum())
        shared = F.embedding(numbers_RP, shares_K[:, None]).sum() + (F.embedding(numbers_RP, sums_KW) * x_RPW).sum()
        theirs = numbers_RP.numel() + x_RPW.square().sum()
        return own / 2 + (theirs / 2 - shared) / numbers_RP.shape[1]
