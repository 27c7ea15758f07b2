"""The annealing path of a binary RBM (Salakhutdinov & Murray 2008, https://doi.org/10.1145/1390156.1390266).

With energy E(v, h) = -b.v - c.h - v'Wh and a base of independent units with logits a, hidden units are summed out of

    log f_beta(v) = (1 - beta) (a.v - sum softplus(a) - H ln 2) + beta b.v + sum_j softplus(beta (c + v W)_j)

so that f_0 is the normalised base and log f_1(v) = -F(v), minus the free energy: Z is that of the RBM. Logits a from
the data's means make the path shorter.

Shape legend: R chains, D visible units, H hidden units.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class RBMPath:
    """A `Path` over visible states; a move is a Gibbs step, hidden given visible and back."""

    weight_DH: Tensor
    visible_bias_D: Tensor
    hidden_bias_H: Tensor
    base_logits_D: Tensor

    def start(self, chains: int, generator: torch.Generator) -> Tensor:
        """[chains, D] exact samples of the base."""
        return torch.bernoulli(self.base_logits_D.sigmoid().expand(chains, -1), generator=generator)

    def log_density(self, v_RD: Tensor, beta: float) -> Tensor:
        """[R] log f_beta(v)."""
        log_normaliser = F.softplus(self.base_logits_D).sum() + len(self.hidden_bias_H) * math.log(2.0)
        base_R = v_RD @ self.base_logits_D - log_normaliser
        hidden_R = F.softplus(beta * (v_RD @ self.weight_DH + self.hidden_bias_H)).sum(-1)
        return (1 - beta) * base_R + beta * (v_RD @ self.visible_bias_D) + hidden_R

    def log_ratio(self, x_RD: Tensor, beta_from: float, beta_to: float) -> Tensor:
        return self.log_density(x_RD, beta_to) - self.log_density(x_RD, beta_from)

    def move(self, x_RD: Tensor, beta: float, generator: torch.Generator) -> Tensor:
        hidden_RH = (beta * (x_RD @ self.weight_DH + self.hidden_bias_H)).sigmoid()
        h_RH = torch.bernoulli(hidden_RH, generator=generator)
        model_RD = beta * (h_RH @ self.weight_DH.T + self.visible_bias_D)
        return torch.bernoulli(((1 - beta) * self.base_logits_D + model_RD).sigmoid(), generator=generator)
