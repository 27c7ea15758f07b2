"""The restricted Boltzmann machine, trained by contrastive divergence from persistent chains or from the data.

Energy E(v, h) = -b.v - c.h - v'Wh over binary v and h, so that

    p(h_j = 1 given v) = sigmoid(c + v W)_j,    p(v_i = 1 given h) = sigmoid(b + W h)_i
    free energy F(v) = -log sum_h exp(-E(v, h)) = -b.v - sum_j softplus(c + v W)_j
    grad -log p(v) = grad F(v) - E_model[grad F]

The model's expectation is taken over Gibbs chains of `gibbs_steps` steps k. Persistent ones go on from step to step
(Tieleman 2008, https://doi.org/10.1145/1390156.1390290): they are the carry, one per row. With `chains: data` they
start at the data in every step: contrastive divergence, CD-k (Hinton 2002,
https://doi.org/10.1162/089976602760128018), whose gradient is biased for any k.

log Z of a model with few units on either side is a sum over their states:

    log Z = log sum_h exp(c.h + sum_i softplus(b + W h)_i) = log sum_v exp(-F(v))

Shape legend: R rows, D visible units, H hidden units, S states of the side that is enumerated.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import Accepts, VectorModelConfig

MOST_ENUMERATED = 24
"""Units whose states are summed over: 17 million states."""
ENUMERATED_AT_ONCE = 1 << 14
"""States, which bounds memory."""


class RBMConfig(VectorModelConfig):
    """The sizes of an RBM and how far its chains move in a step."""

    kind: Literal["rbm"]
    num_visible: int = Field(gt=0)
    """Width of a row; its values lie in [0, 1], and one between is the probability of a 1."""
    num_hidden: int = Field(gt=0)
    chains: Literal["persistent", "data"] = "persistent"
    """Where the chains of a step start: where those of the last step ended, or at the data."""
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
    """Binary visible and hidden units; persistent chains are its carry."""

    unit = "image"
    sampling = "expensive"
    objective_has_value = False
    lower_is_better = frozenset({"reconstruction_nats"})
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
        v_RD = torch.bernoulli(batch.values).to(self.weight_DH.dtype)
        persistent = self.config.chains == "persistent"
        assert (carry is not None) == persistent, "chains are handed on where they persist"
        chains_RD = self.gibbs(v_RD if carry is None else carry["chains"], self.config.gibbs_steps)
        total = (self.free_energy(v_RD) - self.free_energy(chains_RD)).sum()
        metrics = {"reconstruction_nats": self._reconstruction_nats(v_RD).sum()}
        return Loss(total=total, count=batch.rows, carry={"chains": chains_RD} if persistent else None, metrics=metrics)

    @torch.no_grad()
    def _reconstruction_nats(self, v_RD: Tensor) -> Tensor:
        """[R] -log p(v given the mean hidden units), the usual thing to watch; no likelihood."""
        logits_RD = self._visible_logits(self._hidden_logits(v_RD).sigmoid())
        logits_RD, target_RD = at_least_float32(logits_RD), at_least_float32(v_RD)
        return F.binary_cross_entropy_with_logits(logits_RD, target_RD, reduction="none").sum(-1)

    def initial_carry(self, rows: int) -> Carry | None:
        """Chains that start at fair coin flips; None where they start at the data."""
        return {"chains": self._coin_flips(rows)} if self.config.chains == "persistent" else None

    def _coin_flips(self, rows: int) -> Tensor:
        return torch.bernoulli(self.weight_DH.detach().new_full((rows, self.config.num_visible), 0.5))

    def unnormalized_log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(v) + log Z of binary rows."""
        return -self.free_energy(batch.values.to(self.weight_DH.dtype))

    @torch.no_grad()
    def log_partition(self) -> float:
        """log Z in nats, exact, by the states of whichever side has fewer units.

        Raises BadInput where that side has more than `MOST_ENUMERATED`: estimate it by annealing instead
        (`evals.metrics.rbm_path`).
        """
        weight_DH = self.weight_DH.double()
        few, many, weight = self.visible_bias_D.double(), self.hidden_bias_H.double(), weight_DH
        if len(few) > len(many):
            few, many, weight = many, few, weight_DH.T
        if len(few) > MOST_ENUMERATED:
            raise BadInput(
                f"num_visible {len(self.visible_bias_D)} and num_hidden {len(self.hidden_bias_H)}: log Z is a sum over "
                f"states where one of them is at most {MOST_ENUMERATED}; estimate it by annealed importance sampling"
            )
        bits = torch.arange(len(few), device=few.device)
        parts = []
        for states_S in torch.arange(2 ** len(few), device=few.device).split(ENUMERATED_AT_ONCE):
            states_SF = (states_S[:, None] >> bits & 1).double()
            parts.append((states_SF @ few + F.softplus(states_SF @ weight + many).sum(-1)).logsumexp(0))
        return float(torch.stack(parts).logsumexp(0))

    def encode(self, batch: VectorBatch) -> Tensor:
        """[R, H] probability of each hidden unit."""
        return at_least_float32(self._hidden_logits(batch.values.to(self.weight_DH.dtype))).sigmoid()

    def sample(self, count: int) -> Tensor:
        """[count, D] binary: chains from fair coin flips, after `sampling_steps` Gibbs steps."""
        return self.gibbs(self._coin_flips(count), self.sampling_steps)

    def flops_per_count(self) -> float:
        """Products with the weights: two free energies, the reconstruction, and two in every Gibbs step."""
        return 2.0 * self.weight_DH.numel() * (4 + 2 * self.config.gibbs_steps)
