"""The restricted Boltzmann machine, trained by persistent contrastive divergence.

Energy E(v, h) = -b.v - c.h - v'Wh over binary v and h, so that

    p(h_j = 1 given v) = sigmoid(c + v W)_j,    p(v_i = 1 given h) = sigmoid(b + W h)_i
    free energy F(v) = -log sum_h exp(-E(v, h)) = -b.v - sum_j softplus(c + v W)_j
    grad -log p(v) = grad F(v) - E_model[grad F]

The model's expectation is taken over Gibbs chains that go on from step to step (Tieleman 2008,
https://doi.org/10.1145/1390156.1390290): they are the carry, one per row.

Shape legend: R rows, D visible units, H hidden units.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import Accepts, VectorModelConfig


class RBMConfig(VectorModelConfig):
    """The sizes of an RBM and how far its chains move in a step."""

    kind: Literal["rbm"]
    num_visible: int = Field(gt=0)
    """Width of a row; its values lie in [0, 1], and one between is the probability of a 1."""
    num_hidden: int = Field(gt=0)
    gibbs_steps: int = Field(default=1, gt=0)
    """Gibbs steps of every chain in a training step."""
    initial_std: float = Field(default=0.01, gt=0.0)

    accepts: ClassVar[Accepts] = "unit"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_visible,)

    def build(self) -> "RBM":
        return RBM(self)


class RBM(Model):
    """Binary visible and hidden units; its carry is the chains."""

    unit = "image"
    sampling = "expensive"
    sampling_steps: ClassVar[int] = 1000
    """Gibbs steps from a random start to a sample."""

    def __init__(self, config: RBMConfig) -> None:
        super().__init__()
        self.config = config
        self.weight_DH = nn.Parameter(torch.randn(config.num_visible, config.num_hidden) * config.initial_std)
        self.visible_bias_D = nn.Parameter(torch.zeros(config.num_visible))
        self.hidden_bias_H = nn.Parameter(torch.zeros(config.num_hidden))

    def free_energy(self, v_RD: Tensor) -> Tensor:
        """[R] -log sum_h exp(-E(v, h)), in nats."""
        visible_R = at_least_float32(v_RD) @ at_least_float32(self.visible_bias_D)
        return -visible_R - F.softplus(at_least_float32(self._hidden_logits(v_RD))).sum(-1)

    def _hidden_logits(self, v_RD: Tensor) -> Tensor:
        return v_RD @ self.weight_DH + self.hidden_bias_H

    def _visible_logits(self, h_RH: Tensor) -> Tensor:
        return h_RH @ self.weight_DH.T + self.visible_bias_D

    @torch.no_grad()
    def gibbs(self, v_RD: Tensor, steps: int) -> Tensor:
        """[R, D] the chains after so many steps: hidden given visible, then visible given hidden."""
        for _ in range(steps):
            h_RH = torch.bernoulli(self._hidden_logits(v_RD).sigmoid())
            v_RD = torch.bernoulli(self._visible_logits(h_RH).sigmoid())
        return v_RD

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        """Free energy of the data minus that of the chains: only its gradient means something, not its value."""
        assert carry is not None, "an RBM is handed its chains"
        v_RD = torch.bernoulli(batch.values).to(self.weight_DH.dtype)
        chains_RD = self.gibbs(carry["chains"], self.config.gibbs_steps)
        total = (self.free_energy(v_RD) - self.free_energy(chains_RD)).sum()
        metrics = {"reconstruction_nats": self._reconstruction_nats(v_RD).sum()}
        return Loss(total=total, count=batch.rows, carry={"chains": chains_RD}, metrics=metrics)

    @torch.no_grad()
    def _reconstruction_nats(self, v_RD: Tensor) -> Tensor:
        """[R] -log p(v given the mean hidden units), the usual thing to watch; no likelihood."""
        logits_RD = self._visible_logits(self._hidden_logits(v_RD).sigmoid())
        logits_RD, target_RD = at_least_float32(logits_RD), at_least_float32(v_RD)
        return F.binary_cross_entropy_with_logits(logits_RD, target_RD, reduction="none").sum(-1)

    def initial_carry(self, rows: int) -> Carry | None:
        """Chains that start at fair coin flips."""
        half_RD = self.weight_DH.detach().new_full((rows, self.config.num_visible), 0.5)
        return {"chains": torch.bernoulli(half_RD)}

    def unnormalized_log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(v) + log Z of binary rows."""
        return -self.free_energy(batch.values.to(self.weight_DH.dtype))

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, H] probability of each hidden unit."""
        return at_least_float32(self._hidden_logits(batch.values.to(self.weight_DH.dtype))).sigmoid()

    def sample(self, count: int) -> Tensor:
        """[count, D] binary: chains from fair coin flips, after `sampling_steps` Gibbs steps."""
        carry = self.initial_carry(count)
        assert carry is not None
        return self.gibbs(carry["chains"], self.sampling_steps)

    def flops_per_count(self) -> float:
        """Products with the weights: two free energies, the reconstruction, and two in every Gibbs step."""
        return 2.0 * self.weight_DH.numel() * (4 + 2 * self.config.gibbs_steps)
