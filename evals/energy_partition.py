"""log Z of a deep energy-based model: by a grid in the plane, else by annealed importance sampling.

The density is exp(-E(x)) / Z over all x where the model has a reference Gaussian, which keeps its mass in; without one,
or where its chains are clamped, over the box from `low` to `high` that its chains live in. A tempered chain samples
another density, exp(-E(x) / T): that is not what is normalised here.

Annealing goes from the reference Gaussian, or from uniform numbers in the box, to the density by Hamiltonian moves. In
a box they are made on u with x = low + (high - low) sigmoid(u), where there are no walls:

    f(u) = exp(-E(x(u))) |dx/du|,    f_0(u) = |dx/du| / (high - low)^D

Shape legend: R chains, D dimensions, G points of a side of a grid, P of a part of it.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from data_pipeline.config import BadInput
from evals.metric import Metric
from evals.metrics.annealing import Annealed, GeometricPath, anneal, evenly_spaced
from evals.metrics.partition import log_partition
from evals.metrics.transitions import hamiltonian
from pretrain.models.energy.energy_based import EnergyBased
from pretrain.rng import seed_at

TEMPERATURES, CHAINS, LEAPFROG = 300, 100, 5
"""Of annealing: some 300,000 gradients of the energy with those of the pilots, seconds of one processor for a
perceptron of a few layers. More take longer and are nearer."""
STEP_SIZES = (0.02, 0.05, 0.1, 0.2, 0.5)
"""In deviations of the base; a pilot of a tenth of the temperatures chooses."""
GRID, COARSE = 512, 128
"""Points of a side: 262,000 energies, seconds of one processor; and of the grids that find out where the mass ends."""
MOST_DOUBLED = 6
MOST_AT_ONCE = 1 << 15
SPARE = 1e-6
"""Of the mass, the most that a grid may hold in its outer half."""


def grid_log_partition(model: EnergyBased, reach: float) -> tuple[float, dict[str, Any]]:
    """(log Z of a model of points of the plane, how it was found).

    The grid goes to `reach` on either side, or as often twice as far as there is mass in the outer half of a coarse
    one; a box is summed whole. Raises BadInput where the mass does not end.
    """
    exact, box = _in_float64(model), _box(model)
    low, high = box or (-reach, reach)
    outer = 0.0 if box else _outer_share(_log_masses(exact, low, high, COARSE))
    for _ in range(MOST_DOUBLED):
        if outer < SPARE:
            break
        low, high = 2 * low, 2 * high
        outer = _outer_share(_log_masses(exact, low, high, COARSE))
    if not outer < SPARE:
        raise BadInput(f"log Z: {outer:.2g} of the mass is beyond {high / 2:g}; the density does not end, or grows")
    log_z = float(_log_masses(exact, low, high, GRID).flatten().logsumexp(0))
    return log_z, {"log_z": log_z, "log_z_is": f"by a grid of {GRID}^2 points from {low:g} to {high:g}"}


@torch.no_grad()
def _log_masses(model: EnergyBased, low: float, high: float, points: int) -> Tensor:
    """[G, G] log of exp(-E) times the area of each square, of which its middle stands for all."""
    width = (high - low) / points
    line_G = low + width * (torch.arange(points, dtype=torch.float64) + 0.5)
    parts = torch.cartesian_prod(line_G, line_G).split(MOST_AT_ONCE)
    energies = torch.cat([model.energy(part_P2) for part_P2 in parts])
    return 2 * math.log(width) - energies.view(points, points)


def _outer_share(log_mass_GG: Tensor) -> float:
    """Of the mass: what is not in the inner half of either side."""
    quarter = len(log_mass_GG) // 4
    share_GG = log_mass_GG.flatten().softmax(0).view_as(log_mass_GG)
    share_GG[quarter:-quarter, quarter:-quarter] = 0.0
    return float(share_GG.sum())


def annealed_log_partition(
    model: EnergyBased, *, seed: int, protocol: Mapping[str, Any]
) -> tuple[Metric, Metric, Metric]:
    """`log_z` with its error, `log_z_below` and `effective_sample_size`; float64 on the CPU wherever the model is."""
    path, scale = _path(model), model.config.reference_std if _box(model) is None else 1.0
    assert scale is not None
    pilots = {
        size: float(_annealed(model, path(scale * size), max(TEMPERATURES // 10, 1), seed, "pilot").log_w_R.mean())
        for size in STEP_SIZES
    }
    best = max(pilots, key=lambda size: pilots[size])
    annealed = _annealed(model, path(scale * best), TEMPERATURES, seed, "annealing")
    known = {
        **protocol,
        "base": "uniform in the box" if _box(model) else f"a Gaussian of deviation {scale:g}",
        "step_size": scale * best,
        "seed": seed,
    }
    return log_partition(
        annealed.log_w_R,
        betas=evenly_spaced(TEMPERATURES),
        transition=f"one Hamiltonian trajectory of {LEAPFROG} leapfrog steps",
        protocol=known,
    )


def _annealed(model: EnergyBased, path: GeometricPath, temperatures: int, seed: int, purpose: str) -> Annealed:
    generator = torch.Generator().manual_seed(seed_at(seed, purpose))
    shape = (CHAINS, math.prod(model.config.row_shape))
    if _box(model) is None:
        start_RD = torch.randn(shape, generator=generator, dtype=torch.float64) * (model.config.reference_std or 1.0)
    else:
        start_RD = torch.rand(shape, generator=generator, dtype=torch.float64).logit(eps=1e-12)
    return anneal(start_RD, path, evenly_spaced(temperatures), generator)


def _path(model: EnergyBased) -> Any:
    """Step size to the path from the base to the model."""
    exact, box = _in_float64(model), _box(model)

    def gaussian(x_RD: Tensor) -> Tensor:
        scale = model.config.reference_std or 1.0
        constant = x_RD.shape[1] * (math.log(scale) + 0.5 * math.log(2 * math.pi))
        return -x_RD.square().sum(-1) / (2 * scale**2) - constant

    def log_slope(u_RD: Tensor) -> Tensor:
        """[R] log of the product of sigmoid's slopes."""
        return (F.logsigmoid(u_RD) + F.logsigmoid(-u_RD)).sum(-1)

    def inside(u_RD: Tensor) -> Tensor:
        low, high = box or (0.0, 1.0)
        volume = u_RD.shape[1] * math.log(high - low)
        return -exact.energy(low + (high - low) * u_RD.sigmoid()) + log_slope(u_RD) + volume

    def path(step_size: float) -> GeometricPath:
        moves = hamiltonian(step_size=step_size, leapfrog_steps=LEAPFROG)
        if box is None:
            return GeometricPath(gaussian, lambda x_RD: -exact.energy(x_RD), moves)
        return GeometricPath(log_slope, inside, moves)

    return path


def _box(model: EnergyBased) -> tuple[float, float] | None:
    """Where the density lives, if not everywhere."""
    chains = model.config.chains
    return (chains.low, chains.high) if chains.clamp or model.config.reference_std is None else None


def _in_float64(model: EnergyBased) -> EnergyBased:
    exact = copy.deepcopy(model).to("cpu", torch.float64)
    return exact.requires_grad_(requires_grad=False)
