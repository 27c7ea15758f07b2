"""Deep energy-based models: a network for the energy, Langevin dynamics for the samples.

p(x) = exp(-E(x)) / Z with E(x) = f(x) + |x|^2 / (2 s^2), f a network and s the scale of a Gaussian that keeps the mass
in (Xie et al. 2016, https://arxiv.org/abs/1602.03264; without it, s is infinite). The gradient of -log p(x) is that of

    E(x) - E(y),    y ~ p

and y comes from a chain of Langevin steps (Du & Mordatch 2019, https://arxiv.org/abs/1903.08689, algorithm 1): it
starts at a sample of earlier steps, or with probability `rejuvenation` at noise. The samples kept are the carry:
`buffer` for each row, of which a step moves one. A rejuvenation of 1 is the short-run chain of Nijkamp et al. 2019
(https://arxiv.org/abs/1904.09770), which is then a generator of its own. Two regularisers:

    energy penalty    a (E(x)^2 + E(y)^2)            (Du & Mordatch)
    spectral penalty  b/2 sum_W |W|^2, the largest singular value of each weight (Yoshida & Miyato 2017,
                      https://arxiv.org/abs/1705.10941), of kernels as [out, in h w]

Spectral normalisation proper would need an estimate that outlives the step and depends on how many passes were made.

Shape legend: R rows, B samples kept for a row, D values of a row.
"""

import math
from functools import partial
from typing import ClassVar, Literal

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from data_pipeline.batch import VectorBatch
from data_pipeline.config import Config
from pretrain.contract import Carry, Loss, Model
from pretrain.layers.networks import NetworkConfig, flops_of_row
from pretrain.layers.precision import at_least_float32
from pretrain.models.vectors import VectorModelConfig
from pretrain.samplers.langevin import langevin


class ChainsConfig(Config):
    """Langevin chains, where they start and where they may go."""

    low: float
    high: float
    """Noise is uniform between these."""
    clamp: bool = False
    """Push values back between `low` and `high` after every step."""
    steps: int = Field(gt=0)
    """Of every chain in a training step."""
    step_size: float = Field(gt=0.0)
    """lambda."""
    noise_std: float | None = Field(default=None, ge=0.0)
    """None: the square root of the step size; less is tempered."""
    buffer: int = Field(default=1, gt=0)
    """Samples kept for each row."""
    rejuvenation: float = Field(default=0.05, ge=0.0, le=1.0)
    """Probability that a chain starts at noise instead of at a sample that was kept."""
    sampling_steps: int = Field(default=200, gt=0)
    """From noise to a sample, when asked for one."""

    @model_validator(mode="after")
    def _check(self) -> "ChainsConfig":
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class EnergyBasedConfig(VectorModelConfig):
    """The network, its chains and its regularisers."""

    kind: Literal["energy_based"]
    row_shape: tuple[PositiveInt, ...] = Field(min_length=1)
    """[channels, height, width] of an image, [n] of rows whose order means nothing to the network."""
    network: NetworkConfig
    reference_std: float | None = Field(default=None, gt=0.0)
    """s; None: no Gaussian."""
    chains: ChainsConfig
    data_noise: float = Field(default=0.0, ge=0.0)
    """Standard deviation of noise that is added to data in training, which smooths what lies on levels."""
    energy_penalty: float = Field(default=0.0, ge=0.0)
    spectral_penalty: float = Field(default=0.0, ge=0.0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.row_shape

    @property
    def reads_whole_weights(self) -> str | None:
        return "spectral_penalty" if self.spectral_penalty > 0 else None

    @model_validator(mode="after")
    def _check(self) -> "EnergyBasedConfig":
        problem = self.network.problem(self.row_shape)
        if problem is not None:
            raise ValueError(f"network: {problem}")
        return self

    def build(self) -> "EnergyBased":
        return EnergyBased(self)


class EnergyBased(Model):
    """An energy, and a carry of samples."""

    unit: ClassVar[Literal["token", "image", "row"]] = "image"
    sampling = "expensive"
    objective_has_value = False
    lower_is_better: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: EnergyBasedConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.reader(config.row_shape, 1)

    def energy(self, x_RD: Tensor) -> Tensor:
        """[R] E(x), in nats."""
        energy_R = at_least_float32(self.network(x_RD)[:, 0])
        if self.config.reference_std is None:
            return energy_R
        return energy_R + at_least_float32(x_RD).square().sum(-1) / (2 * self.config.reference_std**2)

    def forward(self, batch: VectorBatch, carry: Carry | None, *, player: str, step: int) -> Loss:
        """Energy of the data minus that of the samples: only its gradient means something, not its value."""
        assert carry is not None, "an energy-based model is handed its samples"
        x_RD = batch.values.to(carry["samples"].dtype)
        x_RD = x_RD + self.config.data_noise * torch.randn_like(x_RD)
        y_RD, kept_RBD = self._moved(carry["samples"])
        data_R, samples_R = self.energy(x_RD), self.energy(y_RD)
        total = (data_R - samples_R).sum()
        total = total + self.config.energy_penalty * (data_R.square() + samples_R.square()).sum()
        if self.config.spectral_penalty > 0:
            total = total + batch.rows * self.config.spectral_penalty * self._half_spectral_squares()
        metrics = {"data_energy": data_R.detach().sum(), "sample_energy": samples_R.detach().sum()}
        return Loss(total=total, count=batch.rows, carry={"samples": kept_RBD}, metrics=metrics)

    def _moved(self, kept_RBD: Tensor) -> tuple[Tensor, Tensor]:
        """([R, D] one sample of each row after its chain, [R, B, D] the samples with that one in its place)."""
        rows = len(kept_RBD)
        row_R = torch.arange(rows, device=kept_RBD.device)
        place_R = torch.randint(self.config.chains.buffer, (rows,), device=kept_RBD.device)
        fresh_R1 = torch.rand(rows, 1, device=kept_RBD.device) < self.config.chains.rejuvenation
        start_RD = torch.where(fresh_R1, self._noise(rows), kept_RBD[row_R, place_R])
        y_RD = self._walk(start_RD, self.config.chains.steps)
        kept_RBD = kept_RBD.clone()
        kept_RBD[row_R, place_R] = y_RD
        return y_RD, kept_RBD

    def _walk(self, x_RD: Tensor, steps: int) -> Tensor:
        chains = self.config.chains
        bounds = (chains.low, chains.high) if chains.clamp else None
        return langevin(
            self.energy, x_RD, steps=steps, step_size=chains.step_size, noise_std=chains.noise_std, bounds=bounds
        )

    def _noise(self, rows: int) -> Tensor:
        """[R, D] uniform between `low` and `high`."""
        chains, like = self.config.chains, next(self.parameters())
        chance_RD = torch.rand(rows, math.prod(self.config.row_shape), dtype=like.dtype, device=like.device)
        return chains.low + (chains.high - chains.low) * chance_RD

    def _half_spectral_squares(self) -> Tensor:
        """[] half the sum of the weights' squared spectral norms."""
        norms = [
            torch.linalg.matrix_norm(at_least_float32(weight).flatten(1), ord=2)
            for weight in self.network.parameters()
            if weight.dim() >= 2
        ]
        return torch.stack(norms).square().sum() / 2

    def initial_carry(self, rows: int) -> Carry | None:
        """Samples that start at noise."""
        return {"samples": self._noise(rows * self.config.chains.buffer).unflatten(0, (rows, -1))}

    def unnormalized_log_prob(self, batch: VectorBatch) -> Tensor:
        """[R] log p(x) + log Z."""
        return -self.energy(batch.values.to(next(self.parameters()).dtype))

    def sample(self, count: int) -> Tensor:
        """[count, D]: chains from noise, after `sampling_steps` steps."""
        return self._walk(self._noise(count), self.config.chains.sampling_steps)

    def flops_per_count(self) -> float:
        """Two energies, and one with its slope (as much again) in every step of a chain."""
        shape = self.config.row_shape
        network = flops_of_row(partial(self.config.network.reader, shape, 1), math.prod(shape))
        return network * (2 + 2 * self.config.chains.steps)
